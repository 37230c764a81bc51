//go:build !race

package deflate_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/ws/internal/deflate"
)

// Not under the race detector, whose sync.Pool drops items on purpose.
func TestNoAllocationPerMessage(t *testing.T) {
	for _, takeover := range []bool{false, true} {
		for _, bits := range []int{10, 15} {
			c, d := deflate.NewCompressor(bits, takeover, 0), deflate.NewDecompressor(bits, takeover)
			m := bytes.Repeat([]byte(`{"price":17.25,"symbol":"NOR"}`), 40)
			payload, out := make([]byte, 0, 1<<16), make([]byte, 1<<16)
			turn := func() {
				p := c.Message(payload, m)
				d.Begin(0)
				n, _, done, err := d.Inflate(out, p, true)
				if err != nil || !done || n != len(m) {
					t.Errorf("%d bytes, done %v, %v", n, done, err)
				}
			}
			for range 100 { // the window has grown to its full size
				turn()
			}
			require.Zero(t, testing.AllocsPerRun(200, turn), "takeover %v bits %d", takeover, bits)
			c.Close()
		}
	}
}
