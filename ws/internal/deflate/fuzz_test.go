package deflate_test

import (
	"bytes"
	stdflate "compress/flate"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/ws/internal/deflate"
)

// An accepted offer gives valid parameters and an answer that parses.
func FuzzNegotiate(f *testing.F) {
	for _, s := range []string{"permessage-deflate", "permessage-deflate; client_max_window_bits, x", `a;b="c"`, "permessage-deflate; server_max_window_bits=9; client_no_context_takeover", ",,;"} {
		f.Add(s, 0, 9)
	}
	f.Fuzz(func(t *testing.T, header string, server, client int) {
		c := deflate.Config{ServerMaxWindowBits: server, ClientMaxWindowBits: client}
		if c.Check() != nil {
			return
		}
		list, err := deflate.ParseExtensions([]string{header})
		if err != nil {
			return
		}
		_, _, _ = c.Confirm(list)
		p, answer, ok := c.Accept(list)
		if !ok {
			return
		}
		require.True(t, 8 <= p.ServerMaxWindowBits && p.ServerMaxWindowBits <= 15 && 8 <= p.ClientMaxWindowBits && p.ClientMaxWindowBits <= 15)
		require.NotContains(t, answer, "\n")
		again, err := deflate.ParseExtensions([]string{answer})
		require.NoError(t, err)
		p2, ok, err := deflate.Config{}.Confirm(again)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, p, p2)
	})
}

// For any input, Inflate never writes more than the limit, gives the same result in
// any pieces, and agrees with the standard library.
func FuzzInflate(f *testing.F) {
	f.Add([]byte("\xf2\x48\xcd\xc9\xc9\x07\x00"), uint8(0), uint8(1), uint8(3))
	f.Add([]byte("\x00\x05\x00\xfa\xffHello\x00"), uint8(7), uint8(2), uint8(1))
	for level := -2; level <= 9; level++ {
		var out bytes.Buffer
		w, _ := stdflate.NewWriter(&out, level)
		_, _ = w.Write(bytes.Repeat([]byte("dynamic codes are wanted: abcdefghijklmnopqrstuvwxyz0123456789 "), 9))
		_ = w.Flush()
		f.Add(out.Bytes()[:out.Len()-4], uint8(level), uint8(5), uint8(9))
	}
	const limit = 1 << 16
	f.Fuzz(func(t *testing.T, payload []byte, known, src, dst uint8) {
		dict := bytes.Repeat([]byte{'a', 'b', 'c'}, int(known))
		run := func(srcPiece, dstPiece int) ([]byte, error) {
			d := deflate.NewDecompressor(15, true)
			if len(dict) > 0 {
				_, err := inflate(d, deflate.NewCompressor(15, false, 0).Message(nil, dict), 1<<10, 1<<10, 0)
				require.NoError(t, err)
			}
			out, err := inflate(d, payload, srcPiece, dstPiece, limit)
			require.LessOrEqual(t, len(out), limit)
			return out, err
		}
		whole, err := run(len(payload)+1, limit+1)
		pieces, perr := run(1+int(src), 1+int(dst))
		require.Equal(t, err, perr)
		require.True(t, bytes.Equal(whole, pieces))
		std, serr := io.ReadAll(io.LimitReader(stdflate.NewReaderDict(io.MultiReader(bytes.NewReader(payload), bytes.NewReader([]byte("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))), dict), limit+1))
		switch {
		case err == nil && serr == nil:
			// The standard library stops at the first final block. This inflater may
			// continue.
			require.True(t, bytes.HasPrefix(whole, std))
		case err == nil:
			// The standard library requires the tail and rejects the whole read
			// without it, so only the common part must agree.
			require.True(t, bytes.HasPrefix(whole, std) || bytes.HasPrefix(std, whole))
		case serr == nil && len(std) <= limit:
			// Only a message that cannot end, or ends within a block, is refused by
			// this inflater alone.
			require.ErrorIs(t, err, deflate.ErrCorrupt)
			require.True(t, bytes.HasPrefix(std, whole) || bytes.HasPrefix(whole, std))
		}
	})
}

func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("Hello"), []byte("Hello"), uint8(0), true)
	f.Add(bytes.Repeat([]byte("abc"), 1000), []byte("bca"), uint8(7), false)
	f.Fuzz(func(t *testing.T, one, two []byte, more uint8, takeover bool) {
		bits := 8 + int(more%8)
		c, d := deflate.NewCompressor(bits, takeover, 1+int(more%9)), deflate.NewDecompressor(bits, takeover)
		defer c.Close()
		for _, m := range [][]byte{one, two, one} {
			p := c.Append(nil, m[:len(m)/2])
			p = c.End(c.Append(p, m[len(m)/2:]))
			got, err := inflate(d, p, 1+int(more), 1+len(m)/2, int64(len(m)))
			require.NoError(t, err)
			require.True(t, bytes.Equal(m, got))
		}
	})
}
