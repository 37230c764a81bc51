//go:build linux && !386 && !arm && !mips && !mipsle

package uring

import (
	"io"
	"math/rand/v2"
	stdruntime "runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
)

// A peer sends a byte and closes while the receive is being armed. The receive must see
// the end too. The kernel forgets it if both come within a microsecond or so: see
// lookForEnd. Without that, about 1 of 1,000 receives here never ends.
func TestEndWhileArming(t *testing.T) {
	w := newWorld(t, Options{})
	var next atomic.Int32 // the peer that is to send and close
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			peer := int(next.Swap(0))
			if peer == 0 {
				stdruntime.Gosched()
				continue
			}
			for start, pause := time.Now(), rand.N(10*time.Microsecond); time.Since(start) < pause; {
			}
			_, _ = unix.Write(peer, []byte("x"))
			_ = unix.Close(peer)
		}
	}()
	defer func() {
		close(stop)
		<-stopped
	}()
	for range 20_000 {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		h, err := w.r.Adopt(fds[0])
		require.NoError(t, err)
		c := w.submit(runtime.Op{Code: runtime.OpRecvMany, Handle: h})
		next.Store(int32(fds[1]))
		w.until(func() bool { return c.over })
		require.Equal(t, io.EOF, c.Err)
		require.Equal(t, "x", string(c.data))
		require.NoError(t, w.do(runtime.Op{Code: runtime.OpClose, Handle: h}).Err)
	}
}
