package deflate_test

import (
	"bytes"
	stdflate "compress/flate"
	"fmt"
	"io"
	"testing"

	"github.com/klauspost/compress/flate"

	"github.com/noria-go/noria/ws/internal/deflate"
)

// benchSizes are the sizes of the messages that the conformance suite sends.
var benchSizes = []int{64, 1024, 16 << 10, 256 << 10}

func benchMessage(size int) []byte {
	for _, m := range messages(4) {
		if len(m) == 300_000 && bytes.HasPrefix(m, []byte(`{"id"`)) {
			return m[:size]
		}
	}
	panic("no text among the messages")
}

func BenchmarkCompress(b *testing.B) {
	for _, size := range benchSizes {
		for _, takeover := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d takeover %v", size, takeover), func(b *testing.B) {
				m := benchMessage(size)
				c := deflate.NewCompressor(15, takeover, 0)
				defer c.Close()
				out := c.Message(nil, m)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					out = c.Message(out[:0], m)
				}
				b.ReportMetric(float64(len(out)), "B/message")
			})
		}
	}
}

// Each message is from a connection whose compressor another one has taken.
func BenchmarkCompressTakenAway(b *testing.B) {
	m := benchMessage(1024)
	var cs []*deflate.Compressor
	for range 2 * deflate.Parked {
		cs = append(cs, deflate.NewCompressor(15, true, 0))
	}
	out := make([]byte, 0, 4096)
	for range 33 {
		for _, c := range cs {
			out = c.Message(out[:0], m)
		}
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		out = cs[i%len(cs)].Message(out[:0], m)
		i++
	}
	for _, c := range cs {
		c.Close()
	}
}

func BenchmarkInflate(b *testing.B) {
	for _, size := range benchSizes {
		m := benchMessage(size)
		p := bytes.Clone(deflate.NewCompressor(15, false, 0).Message(nil, m))
		dst := make([]byte, size)
		for _, takeover := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d takeover %v", size, takeover), func(b *testing.B) {
				d := deflate.NewDecompressor(15, takeover)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					d.Begin(0)
					if n, _, done, err := d.Inflate(dst, p, true); n != size || !done || err != nil {
						b.Fatal(n, done, err)
					}
				}
			})
		}
		closed := append(bytes.Clone(p), "\x00\x00\xff\xff\x01\x00\x00\xff\xff"...)
		for name, r := range map[string]io.ReadCloser{"klauspost": flate.NewReader(nil), "standard": stdflate.NewReader(nil)} {
			b.Run(fmt.Sprintf("%d %s", size, name), func(b *testing.B) {
				src := bytes.NewReader(closed)
				b.SetBytes(int64(size))
				for b.Loop() {
					src.Reset(closed)
					if err := r.(flate.Resetter).Reset(src, nil); err != nil {
						b.Fatal(err)
					}
					if _, err := io.ReadFull(r, dst); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
