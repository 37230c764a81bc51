package echo

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria"
	"github.com/noria-go/noria/loop"
)

const request = "GET /chat HTTP/1.1\r\nHost: noria.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

// frame returns a frame as the peer of a server (toServer) or of a client sends it.
func frame(toServer bool, op ws.OpCode, fin bool, payload string) []byte {
	f := ws.NewFrame(op, fin, []byte(payload))
	if toServer {
		f = ws.MaskFrameWith(f, [4]byte{1, 2, 3, 4})
	}
	return ws.MustCompileFrame(f)
}

// session returns what a peer sends: each encoding of a length, messages in fragments
// that cut a character, pings between them, and the closing handshake.
func session(toServer bool) []byte {
	var all []byte
	add := func(op ws.OpCode, fin bool, payload string) { all = append(all, frame(toServer, op, fin, payload)...) }
	add(ws.OpText, true, "hello")
	add(ws.OpText, true, "")
	add(ws.OpText, false, "Gr\xc3")
	add(ws.OpPing, true, "between")
	add(ws.OpContinuation, false, "")
	add(ws.OpContinuation, true, "\xb6\xc3\x9fe, 水車")
	add(ws.OpPong, true, "of nothing")
	for _, n := range []int{125, 126, 1000, 66_000} {
		add(ws.OpBinary, true, strings.Repeat("payload ", n/8+1)[:n])
	}
	add(ws.OpPing, true, "")
	add(ws.OpClose, true, "\x03\xe8bye")
	add(ws.OpText, true, "nobody reads this")
	return all
}

const echoes = `1 fin=true rsv=0 "hello"
1 fin=true rsv=0 ""
a fin=true rsv=0 "between"
1 fin=true rsv=0 "Größe, 水車"
2 fin=true rsv=0 "payload payload payl" and so on, 125 bytes
2 fin=true rsv=0 "payload payload payl" and so on, 126 bytes
2 fin=true rsv=0 "payload payload payl" and so on, 1000 bytes
2 fin=true rsv=0 "payload payload payl" and so on, 66000 bytes
a fin=true rsv=0 ""
8 fin=true rsv=0 "\x03\xe8"
`

// A server's connection behaves the same however its bytes arrive: cut in two at every
// byte, and in chunks of every small size, each of which interrupts the library inside
// headers.
func TestServerOverEveryCut(t *testing.T) {
	in := append([]byte(request), session(true)...)
	want := "HTTP/1.1 101 Switching Protocols\n" + echoes
	overEveryCut(t, in, want, func(l *loop.Loop, next func([]byte) []byte) outcome { return runServer(l, Options{}, next) })
}

// The same for a client after its handshake.
func TestClientOverEveryCut(t *testing.T) {
	overEveryCut(t, session(false), echoes, func(l *loop.Loop, next func([]byte) []byte) outcome {
		return runFrames(l, Options{}, true, next)
	})
}

func overEveryCut(t *testing.T, in []byte, want string, f func(l *loop.Loop, next func([]byte) []byte) outcome) {
	g := group(t)
	arrive := func(pieces ...[]byte) outcome {
		return onLoop(t, g, func(l *loop.Loop) outcome { return f(l, inPieces(pieces...)) })
	}
	got := arrive(in)
	require.Equal(t, want, got.sent)
	require.Equal(t, "<nil>", got.err)
	for cut := 1; cut < len(in); cut += cutStep(cut, len(in)) {
		got := arrive(in[:cut:cut], in[cut:])
		require.Equal(t, want, got.sent, "cut at %d of %d", cut, len(in))
		require.Equal(t, "<nil>", got.err, "cut at %d of %d", cut, len(in))
	}
	for _, n := range []int{1, 2, 3, 5, 7, 11, 13, 1000, 4096, 65536} {
		got := arrive(chunks(in, n)...)
		require.Equal(t, want, got.sent, "in chunks of %d", n)
		require.Equal(t, "<nil>", got.err, "in chunks of %d", n)
		require.LessOrEqual(t, got.peakBuffer, 2*maxBuffer)
	}
}

// An incomplete header is rolled back and read again, once for each piece. A complete
// header is not, and a payload never is.
func TestRollback(t *testing.T) {
	g := group(t)
	long := frame(true, ws.OpBinary, true, strings.Repeat("x", 300)) // 8 bytes of header
	for _, c := range []struct {
		pieces    [][]byte
		rollbacks int64
	}{
		{[][]byte{long}, 0},
		{[][]byte{long[:1], long[1:]}, 1},
		{[][]byte{long[:7], long[7:]}, 1},
		{[][]byte{long[:8], long[8:]}, 0},
		{chunks(long, 3), 2},
		{chunks(long, 1), 7},
	} {
		got := onLoop(t, g, func(l *loop.Loop) outcome { return runFrames(l, Options{}, false, inPieces(c.pieces...)) })
		require.Equal(t, "2 fin=true rsv=0 \"xxxxxxxxxxxxxxxxxxxx\" and so on, 300 bytes\n", got.sent)
		require.Equal(t, "EOF", got.err)
		require.Equal(t, c.rollbacks, got.rollbacks, "%d pieces", len(c.pieces))
		require.Equal(t, c.rollbacks, got.wouldBlock)
	}
}

// cutStep is 1, but larger inside the long payload, unless that payload is all there
// is.
func cutStep(cut, size int) int {
	const near = 2500
	if !testing.Short() || cut < near || size-cut < 200 {
		return 1
	}
	return min(997, size-cut-100)
}

// A client's handshake, cut at every byte of the response, with frames behind it: the
// library makes one key, and gets the response and nothing more.
func TestClientHandshakeAtEveryCut(t *testing.T) {
	g := group(t)
	for cut, size := 1, 2; cut < size; cut++ {
		requests := 0
		var pieces func([]byte) []byte
		got := onLoop(t, g, func(l *loop.Loop) outcome {
			return run(l, Options{}, true, func(sent []byte) []byte {
				if pieces == nil {
					if !bytes.HasSuffix(sent, []byte("\r\n\r\n")) {
						return []byte{}
					}
					requests = bytes.Count(sent, []byte("GET / HTTP/1.1"))
					answer := slices.Concat(response(sent), frame(false, ws.OpText, true, "at once"), frame(false, ws.OpClose, true, ""))
					size = len(answer)
					pieces = inPieces(answer[:cut:cut], answer[cut:])
				}
				return pieces(sent)
			}, func(c *conn) error {
				if err := c.ask(address); err != nil {
					return err
				}
				return c.end(c.echo())
			})
		})
		require.Equal(t, "1 fin=true rsv=0 \"at once\"\n8 fin=true rsv=0 \"\"\n", got.sent, "cut at %d of %d", cut, size)
		require.Equal(t, "<nil>", got.err, "cut at %d of %d", cut, size)
		require.Equal(t, 1, requests)
	}
}

// FuzzChunks makes a connection of either role read the same bytes in one piece, byte
// by byte, and cut as the input says. What it sends and returns must be the same.
func FuzzChunks(f *testing.F) {
	o := Options{MaxMessage: 1000}
	for _, server := range []bool{true, false} {
		f.Add(session(server)[:60], []byte{1, 2, 3}, server)
		f.Add(slices.Concat(frame(server, ws.OpText, false, "\xf4"), frame(server, ws.OpContinuation, true, "\x90")), []byte{9}, server)
		f.Add(frame(server, ws.OpBinary, true, strings.Repeat("x", 1001)), []byte{200, 0, 200}, server)
		f.Add(frame(server, ws.OpClose, true, "\x03"), []byte{2}, server)
	}
	f.Add([]byte("\x82\xff\x80\x00\x00\x00\x00\x00\x00\x01aaaa"), []byte{9}, true)
	g, err := noria.Start(noria.Options{Loops: 1}) // not backendtest.Group, which looks for leaks: fuzzing has goroutines of its own
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, g.Stop()) })
	f.Fuzz(func(t *testing.T, data, cuts []byte, server bool) {
		var cut [][]byte
		rest := data
		for _, c := range cuts {
			if n := min(int(c), len(rest)); n > 0 {
				cut, rest = append(cut, rest[:n:n]), rest[n:]
			}
		}
		if len(rest) > 0 {
			cut = append(cut, rest)
		}
		var got []string
		for _, pieces := range [][][]byte{{data}, chunks(data, 1), cut} {
			r := onLoop(t, g, func(l *loop.Loop) outcome { return runFrames(l, o, !server, inPieces(pieces...)) })
			got = append(got, fmt.Sprint(r.sent, r.err))
		}
		require.Equal(t, got[0], got[1], "byte by byte")
		require.Equal(t, got[0], got[2], "in %d pieces", len(cut))
	})
}
