package websocket

import (
	"bufio"
	"bytes"
	"compress/flate"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCases(t *testing.T) {
	seen := map[string]bool{}
	counts := map[string]int{}
	for _, c := range Cases() {
		require.False(t, seen[c.ID], c.ID)
		seen[c.ID] = true
		counts[groupOf(c.ID)]++
		require.NotEmpty(t, c.Description)
		require.NotEmpty(t, c.Expectation)
	}
	require.Len(t, seen, 517)
	require.Equal(t, map[string]int{"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1, "12": 90, "13": 126}, counts)
	require.Less(t, compareIDs("1.2.9", "1.2.10"), 0)
	require.Less(t, compareIDs("13.7.18", "trap01.slow"), 0)
}

func TestFrameRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536} {
		for _, masked := range []bool{false, true} {
			f := frame{fin: n%2 == 0, rsv: 4, opcode: opBinary, payload: bytes.Repeat([]byte{7}, n)}
			b := f.append(nil, masked)
			for cut := range min(len(b)-n, 14) {
				_, got, err := parseHeader(b[:cut])
				require.NoError(t, err)
				require.Zero(t, got)
			}
			h, at, err := parseHeader(b)
			require.NoError(t, err)
			require.Equal(t, header{fin: f.fin, masked: masked, rsv: 4, opcode: opBinary, length: uint64(n), mask: h.mask}, h)
			p := b[at:]
			if masked {
				applyMask(p, h.mask)
			}
			require.True(t, bytes.Equal(f.payload, p))
		}
	}
}

func TestHeaderViolations(t *testing.T) {
	for name, b := range map[string]string{
		"short length in two":   "\x82\x7e\x00\x05",
		"short length in eight": "\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff",
		"top bit":               "\x82\x7f\x80\x00\x00\x00\x00\x01\x00\x00",
	} {
		_, _, err := parseHeader([]byte(b))
		require.Error(t, err, name)
	}
	good := header{fin: true, opcode: opText, masked: true}
	require.NoError(t, good.check(true, false, false))
	for name, h := range map[string]header{
		"no mask":           {fin: true, opcode: opText},
		"opcode 3":          {fin: true, opcode: 3, masked: true},
		"opcode 11":         {fin: true, opcode: 11, masked: true},
		"rsv1":              {fin: true, opcode: opText, rsv: rsv1, masked: true},
		"fragmented ping":   {opcode: opPing, masked: true},
		"long ping":         {fin: true, opcode: opPing, length: 126, masked: true},
		"stray":             {fin: true, opcode: opContinuation, masked: true},
		"rsv1 on ping":      {fin: true, opcode: opPing, rsv: rsv1, masked: true},
		"rsv2 with deflate": {fin: true, opcode: opText, rsv: rsv2, masked: true},
	} {
		require.Error(t, h.check(true, false, name != "rsv1"), name)
	}
	require.Error(t, good.check(true, true, false), "a new message inside another")
	require.Error(t, good.check(false, false, false), "a server's mask")
	require.NoError(t, header{fin: true, opcode: opText, rsv: rsv1, masked: true}.check(true, false, true))
}

func TestCloseCodes(t *testing.T) {
	for code, valid := range map[uint16]bool{0: false, 999: false, 1000: true, 1003: true, 1004: false, 1005: false, 1006: false, 1007: true, 1014: true, 1015: false, 1016: false, 2999: false, 3000: true, 4999: true, 5000: false} {
		require.Equal(t, valid, validCloseCode(code), code)
	}
}

func TestExtensions(t *testing.T) {
	for header, want := range map[string]string{
		"permessage-deflate": "permessage-deflate",
		` permessage-deflate ;server_max_window_bits="10" ; client_no_context_takeover`: "permessage-deflate; client_no_context_takeover; server_max_window_bits=10",
		"permessage-deflate; client_max_window_bits":                                    "permessage-deflate; client_max_window_bits",
	} {
		list, err := parseExtensions(header)
		require.NoError(t, err)
		p, err := list[0].parseDeflate(false)
		require.NoError(t, err)
		require.Equal(t, want, p.String())
	}
	for _, bad := range []string{
		"server_max_window_bits", "server_max_window_bits=7", "server_max_window_bits=16", "server_max_window_bits=010", "client_max_window_bits=x",
		"server_no_context_takeover=1", "foo", "client_no_context_takeover; client_no_context_takeover",
	} {
		list, err := parseExtensions(extension + "; " + bad)
		require.NoError(t, err)
		_, err = list[0].parseDeflate(false)
		require.Error(t, err, bad)
	}
	offers := []deflateParams{{}}
	_, err := acceptAnswer("permessage-deflate; client_max_window_bits=10", offers)
	require.Error(t, err, "it was not offered")
	_, err = acceptAnswer("permessage-deflate, permessage-deflate", offers)
	require.Error(t, err)
	p, err := acceptAnswer("", offers)
	require.NoError(t, err)
	require.Nil(t, p)
}

// TestFarthest compares the walk with the output of the standard library's inflater.
func TestFarthest(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for level := -2; level <= 9; level++ {
		for range 10 {
			p := corpora[r.IntN(len(corpora))].cut(r.IntN(100), 1+r.IntN(60000))
			var out bytes.Buffer
			w, err := flate.NewWriter(&out, level)
			require.NoError(t, err)
			_, _ = w.Write(p)
			_ = w.Flush()
			far, n, err := farthest(out.Bytes()[:out.Len()-4], 0)
			require.NoError(t, err)
			require.Equal(t, len(p), n)
			require.LessOrEqual(t, far, 1<<15)
		}
	}
}

// TestWindow: a deflater with a small window keeps to it, and an inflater notices a
// peer that does not.
func TestWindow(t *testing.T) {
	for bits := 8; bits <= 15; bits++ {
		d, in := newDeflater(true, bits), newInflater(true, bits)
		for i := range 20 {
			p := corpora[0].cut(i, 3000)
			got, err := in.inflate(d.compress(p), 1<<20)
			require.NoError(t, err)
			require.True(t, bytes.Equal(p, got))
		}
	}
	wide := newDeflater(true, 15)
	_, err := newInflater(true, 9).inflate(wide.compress(corpora[0].cut(0, 20000)), 1<<20)
	require.ErrorContains(t, err, "looks back")
	_, err = newInflater(true, 15).inflate(wide.compress(make([]byte, 1000)), 999)
	require.ErrorContains(t, err, "more than 999")
}

func TestHead(t *testing.T) {
	read := func(s string) (head, error) { return readHead(bufio.NewReader(strings.NewReader(s))) }
	h, err := read("HTTP/1.1 101 Switching Protocols\r\nA: b\r\na: c , d\r\n\r\nrest")
	require.NoError(t, err)
	require.Equal(t, 101, h.status())
	require.True(t, h.has("a", "D"))
	for _, bad := range []string{"", "HTTP/1.1 101 x\r\n", "HTTP/1.1 101 x\nA: b\n\n", "HTTP/1.1 101 x\r\n A: b\r\n\r\n", "HTTP/1.1 101 x\r\nA\r\n\r\n", "HTTP/1.1 101 x\r\nA : b\r\n\r\n"} {
		_, err := read(bad)
		require.Error(t, err, "%q", bad)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(text(hello).append(nil, true), true)
	f.Add(closeFrame(1000, "x").append(nil, false), false)
	f.Fuzz(func(t *testing.T, b []byte, fromClient bool) {
		h, n, err := parseHeader(b)
		if n > len(b) || n > 14 || err != nil && n != 0 {
			t.Fatalf("%d bytes of %d: %v", n, len(b), err)
		}
		_ = h.check(fromClient, false, true)
		_, _, _, _ = parseClose(b)
	})
}

func FuzzDeflate(f *testing.F) {
	f.Add(newDeflater(true, 15).compress([]byte(hello)))
	f.Add([]byte{0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := newInflater(true, 15).inflate(b, 1<<20)
		if err != nil {
			return
		}
		// If the standard library can inflate a message, the walk must accept it too.
		if _, n, err := farthest(b, 0); err != nil || n != len(out) {
			t.Fatalf("%d bytes inflate to %d; the walk says %d, %v", len(b), len(out), n, err)
		}
	})
}

func FuzzHead(f *testing.F) {
	f.Add("HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n")
	f.Add("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := readHead(bufio.NewReader(strings.NewReader(s)))
		if err != nil {
			return
		}
		if c, err := checkRequest(h); err == nil && c.key == "" {
			t.Fatal("no key")
		}
		_, _ = checkAnswer(h, "AAAAAAAAAAAAAAAAAAAAAA==", []deflateParams{{}})
	})
}
