package ws

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws/internal/frame"
)

// pieces is a stream whose bytes have arrived in these pieces.
type pieces [][]byte

func (p *pieces) TryReadBuf() *runtime.Buffer {
	if len(*p) == 0 {
		return nil
	}
	b := runtime.NewShared(bytes.Clone((*p)[0])) // a copy, which is unmasked in place
	*p = (*p)[1:]
	return b
}

// frames returns the frames that a frameReader reads from the pieces, an incomplete last
// one included, and the error that ended it.
func frames(in pieces) (all []string) {
	e := frameReader{stream: &in}
	defer e.drop()
	for {
		var h frame.Header
		ok, err := e.header(&h)
		if err != nil {
			return append(all, err.Error())
		}
		if !ok {
			return all
		}
		var payload []byte
		for at := int64(0); at < h.Len; at = int64(len(payload)) {
			if h.Op.IsControl() {
				p := make([]byte, h.Len-at)
				n := e.control(p, &h, at)
				if payload = append(payload, p[:n]...); n == 0 {
					break
				}
				continue
			}
			s, ok := e.payload(&h, at)
			if !ok {
				break
			}
			payload = append(payload, s.data...)
			e.release(s.buf)
		}
		all = append(all, fmt.Sprintf("%+v %x", h, payload))
		if int64(len(payload)) < h.Len {
			return all
		}
	}
}

// FuzzFrames makes a frameReader read the same bytes in one piece, byte by byte, and cut as
// the input says, and compares the frames.
func FuzzFrames(f *testing.F) {
	masked := []byte("\x81\x85\x01\x02\x03\x04hello\x89\x80abcd\x02\x83\xff\x00\xff\x00abc")
	f.Add(masked, []byte{1, 2, 3})
	f.Add(slices.Concat([]byte("\x82\xfe\x01\x00KEYS"), bytes.Repeat([]byte("0123456789abcdef"), 16)), []byte{7, 0, 200})
	f.Add([]byte("\x82\xff\x00\x00\x00\x00\x00\x00\x00\x05KEYSabcde"), []byte{9})
	f.Fuzz(func(t *testing.T, data, cuts []byte) {
		want := frames(pieces{data})
		var single, cut pieces
		for i := range data {
			single = append(single, data[i:i+1])
		}
		rest := data
		for _, c := range cuts {
			if n := min(int(c), len(rest)); n > 0 {
				cut, rest = append(cut, rest[:n]), rest[n:]
			}
		}
		require.Equal(t, want, frames(single), "byte by byte")
		if len(rest) > 0 {
			cut = append(cut, rest)
		}
		require.Equal(t, want, frames(cut), "in %d pieces", len(cut))
	})
}
