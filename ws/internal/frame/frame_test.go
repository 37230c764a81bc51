package frame

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// decode passes p to a Decoder in pieces whose sizes cycle through sizes.
func decode(d *Decoder, p []byte, sizes ...int) (h Header, used int, ok bool, err error) {
	for i := 0; used < len(p); i++ {
		n := min(sizes[i%len(sizes)], len(p)-used)
		k, ok, err := d.Next(p[used:used+n], &h)
		used += k
		if ok || err != nil {
			return h, used, ok, err
		}
		if k != n {
			panic(fmt.Sprintf("%d of %d bytes were taken, and the header is not complete", k, n))
		}
	}
	return h, used, false, nil
}

func TestRoundTrip(t *testing.T) {
	for _, length := range []int64{0, 1, 125, 126, 127, 0xffff, 0x10000, 1 << 40, 1<<63 - 1} {
		for _, masked := range []bool{false, true} {
			for _, h := range []Header{
				{Op: Text, Fin: true}, {Op: Binary}, {Op: Continuation, Fin: true}, {Op: Text, Rsv: Rsv1}, {Op: Ping, Fin: true},
			} {
				h.Len, h.Masked = length, masked
				if masked {
					h.Mask = [4]byte{1, 2, 3, 4}
				}
				if h.Op.IsControl() && length > MaxControl {
					continue
				}
				p := make([]byte, MaxHeader)
				n := h.Put(p)
				require.Equal(t, h.Size(), n)
				for size := 1; size <= n; size++ {
					d := Decoder{Client: !masked, Rsv: Rsv1}
					got, used, ok, err := decode(&d, append(p[:n:n], "payload"...), size)
					require.NoError(t, err)
					require.True(t, ok)
					require.Equal(t, n, used)
					require.Equal(t, h, got)
					require.Zero(t, d.Partial())
				}
			}
		}
	}
}

// A violation is found by the first byte that shows it, in whatever pieces the
// bytes arrive. at is how many bytes that takes.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		client bool
		rsv    uint8
		frame  string
		at     int
		want   Error
	}{
		{"rsv1", false, 0, "\xc1\x80aaaa", 1, ErrReserved},
		{"rsv2", false, Rsv1, "\xa1\x80aaaa", 1, ErrReserved},
		{"rsv3", false, Rsv1, "\x91\x80aaaa", 1, ErrReserved},
		{"rsv1 on a continuation", false, Rsv1, "\xc0\x80aaaa", 1, ErrReserved},
		{"rsv1 on a ping", false, Rsv1, "\xc9\x80aaaa", 1, ErrReserved},
		{"opcode 3", false, 0, "\x83\x80aaaa", 1, ErrOpcode},
		{"opcode 7", false, 0, "\x87\x80aaaa", 1, ErrOpcode},
		{"opcode 11", false, 0, "\x8b\x80aaaa", 1, ErrOpcode},
		{"opcode 15", false, 0, "\x8f\x80aaaa", 1, ErrOpcode},
		{"a ping in fragments", false, 0, "\x09\x80aaaa", 1, ErrControlFin},
		{"a long ping", false, 0, "\x89\xfe\x00\x7eaaaa", 2, ErrControlLen},
		{"a close of 64 bits", false, 0, "\x88\xff", 2, ErrControlLen},
		{"not masked", false, 0, "\x81\x01a", 2, ErrNotMasked},
		{"masked", true, 0, "\x81\x81aaaaa", 2, ErrMasked},
		{"top bit", true, 0, "\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", 3, ErrTopBit},
		{"16 bits for 125", true, 0, "\x82\x7e\x00\x7d", 4, ErrNotMinimal},
		{"64 bits for 65535", true, 0, "\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff", 10, ErrNotMinimal},
	} {
		t.Run(c.name, func(t *testing.T) {
			for size := 1; size <= len(c.frame); size++ {
				d := Decoder{Client: c.client, Rsv: c.rsv}
				_, _, ok, err := decode(&d, []byte(c.frame), size)
				require.ErrorIs(t, err, c.want)
				require.False(t, ok)
			}
			d := Decoder{Client: c.client, Rsv: c.rsv}
			_, _, _, err := decode(&d, []byte(c.frame[:c.at-1]), 1)
			require.NoError(t, err)
			_, _, _, err = decode(&d, []byte(c.frame[c.at-1:c.at]), 1)
			require.ErrorIs(t, err, c.want)
		})
	}
}

func TestMask(t *testing.T) {
	key := [4]byte{0xa, 0xb, 0xc, 0xd}
	for n := range 70 {
		for at := range 9 {
			p := make([]byte, n)
			Mask(p, key, int64(at)+1<<40)
			for i := range p {
				require.Equal(t, key[(i+at)%4], p[i])
			}
		}
	}
}

func TestNames(t *testing.T) {
	for op, want := range map[Opcode]string{Continuation: "continuation", Text: "text", Binary: "binary", Close: "close", Ping: "ping", Pong: "pong", 5: "opcode(0x5)"} {
		require.Equal(t, want, op.String())
	}
}

// FuzzDecoder: a Decoder makes the same of any bytes in whatever pieces they
// arrive, and a header that it accepts encodes to the same bytes again.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte("\x81\x85abcdhello\x89\x80abcd\x88\x82abcdxx"), uint64(1), false, uint8(0))
	f.Add([]byte("\x02\x7e\x01\x00"), uint64(2), true, uint8(4))
	f.Add([]byte("\x82\xff\x00\x00\x00\x01\x00\x00\x00\x00abcd"), uint64(3), false, uint8(0))
	f.Fuzz(func(t *testing.T, p []byte, seed uint64, client bool, rsv uint8) {
		whole := scan(Decoder{Client: client, Rsv: rsv & 7}, p, func(left int) int { return left })
		rnd := rand.New(rand.NewPCG(seed, 0))
		for _, cut := range []func(int) int{
			func(int) int { return 1 },
			func(left int) int { return 1 + rnd.IntN(left) },
			func(left int) int { return min(left, 1+rnd.IntN(3)) },
		} {
			require.Equal(t, whole, scan(Decoder{Client: client, Rsv: rsv & 7}, p, cut))
		}
	})
}

// scan decodes a stream of frames and describes it.
func scan(d Decoder, p []byte, cut func(left int) int) (all string) {
	var h Header
	var skip int64
	header := []byte{}
	for len(p) > 0 {
		piece := p[:cut(len(p))]
		p = p[len(piece):]
		for len(piece) > 0 {
			if skip > 0 {
				n := min(skip, int64(len(piece)))
				piece, skip = piece[n:], skip-n
				continue
			}
			n, ok, err := d.Next(piece, &h)
			header = append(header, piece[:n]...)
			piece = piece[n:]
			if err != nil {
				return all + err.Error()
			}
			if ok {
				again := make([]byte, MaxHeader)
				if again = again[:h.Put(again)]; !bytes.Equal(again, header) {
					panic(fmt.Sprintf("%x was read as %+v, which is %x", header, h, again))
				}
				all += fmt.Sprintf("%+v;", h)
				header = header[:0]
				skip = h.Len
			}
		}
	}
	return all + fmt.Sprintf("%d left, %d of a header", skip, d.Partial())
}
