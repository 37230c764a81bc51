package ws_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	goruntime "runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/ws/internal/frame"
)

// An echo allocates nothing for a message, whether the message is sent from its own buffer
// or copied together with others.
func TestNoAllocation(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		addr := serve(t, backendtest.Group(t, v, 1), echoServer())
		for _, size := range []int{1, 64, 1024, 16 << 10} {
			for _, batch := range []int{1, 8} {
				t.Run(fmt.Sprintf("%d bytes, %d together", size, batch), func(t *testing.T) {
					nc, err := net.Dial("tcp", addr)
					require.NoError(t, err)
					defer nc.Close()
					require.Zero(t, connectOver(t, nc).r.Buffered())
					out := bytes.Repeat(fr(frame.Binary, true, string(make([]byte, size))), batch)
					in := make([]byte, batch*(size+(&frame.Header{Len: int64(size)}).Size()))
					round := func() {
						_, err := nc.Write(out)
						if err == nil {
							_, err = io.ReadFull(nc, in)
						}
						if err != nil {
							t.Fatal(err)
						}
					}
					allocations := func(rounds int) uint64 {
						var before, after goruntime.MemStats
						goruntime.ReadMemStats(&before)
						for range rounds {
							round()
						}
						goruntime.ReadMemStats(&after)
						return after.Mallocs - before.Mallocs
					}
					allocations(50) // pools and slices grow to their size
					// Timers and the garbage collector allocate a little, and a pool may map memory.
					const rounds = 300
					require.Less(t, allocations(rounds), uint64(rounds*batch/4))
				})
			}
		}
	})
}
