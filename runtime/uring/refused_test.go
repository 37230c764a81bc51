//go:build linux && !386 && !arm && !mips && !mipsle

package uring

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
)

// greetings submits a send on each of n sockets, more than one raw call submits. It
// returns the sends and the sockets' other ends.
func (w *world) greetings(n int) (sends []*call, peers []int) {
	for i := range n {
		h, peer := w.pair()
		peers = append(peers, peer)
		sends = append(sends, w.submit(runtime.Op{Code: runtime.OpSend, Handle: h, Buf: w.buffer(greeting(i))}))
	}
	return sends, peers
}

// refuse installs f as the hook ring.refuse. It is removed before the runtime is
// closed, or a failed test would hang there.
func (w *world) refuse(f func(n, flags uintptr) syscall.Errno) {
	w.r.ring.refuse = f
	w.t.Cleanup(func() { w.r.ring.refuse = nil })
}

func greeting(i int) string { return fmt.Sprintf("greeting %d", i) }

// requireGreeted checks that each send has ended exactly once, and that its peer
// has its bytes exactly once.
func (w *world) requireGreeted(sends []*call, peers []int) {
	w.t.Helper()
	for _, c := range sends {
		w.until(func() bool { return c.over })
		require.NoError(w.t, c.Err)
		require.Equal(w.t, 1, c.times)
		c.Buf.Release()
	}
	p := make([]byte, 100)
	for i, peer := range peers {
		n, _, err := unix.Recvfrom(peer, p, unix.MSG_DONTWAIT)
		require.NoError(w.t, err, "of socket %d", i)
		require.Equal(w.t, greeting(i), string(p[:n]))
		_, _, err = unix.Recvfrom(peer, p, unix.MSG_DONTWAIT)
		require.ErrorIs(w.t, err, unix.EAGAIN, "socket %d was sent to again", i)
	}
}

// Entries that go to the kernel in several calls: the first call is accepted and
// the second refused, once or for a while. The rest is submitted later. Nothing is
// lost or sent twice.
func TestSecondBatchIsRefused(t *testing.T) {
	for _, tt := range []struct {
		errno syscall.Errno
		times int
		hard  bool // Poll returns the error
	}{
		{unix.EINTR, 1, false},
		{unix.EINTR, 5, false},
		{unix.EAGAIN, 1, false},
		{unix.EAGAIN, 5, false},
		{unix.EBUSY, 1, false},
		{unix.EBUSY, 5, false},
		{unix.EFAULT, 1, true},
	} {
		t.Run(fmt.Sprintf("%s-%d", unix.ErrnoName(tt.errno), tt.times), func(t *testing.T) {
			everywhere(t, Options{Entries: 8 * rawBatch}, func(t *testing.T, w *world) {
				require.NoError(t, w.r.Poll(0)) // submits the runtime's own entries
				sends, peers := w.greetings(3*rawBatch + 1)
				require.EqualValues(t, len(sends), w.r.ring.pending())
				calls := 0
				w.refuse(func(n, _ uintptr) syscall.Errno {
					if n == 0 {
						return 0
					}
					calls++
					if calls > 1 && calls <= 1+tt.times {
						return tt.errno
					}
					return 0
				})
				err := w.r.Poll(0)
				if tt.hard {
					require.ErrorIs(t, err, tt.errno)
				} else {
					require.NoError(t, err)
				}
				require.Equal(t, 2, calls)
				require.EqualValues(t, len(sends)-rawBatch, w.r.ring.pending(), "the first batch was taken, the rest waits")
				w.requireGreeted(sends, peers)
				require.Greater(t, calls, 1+tt.times)
			})
		})
	}
}

// A kernel that takes nothing until its completions are read (EAGAIN, EBUSY) may
// hold them back as deferred work, and a refused call runs none. The loop must ask
// for that work, or the kernel would refuse for ever.
func TestRefusedUntilDeferredWorkIsDone(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.EAGAIN, unix.EBUSY} {
		t.Run(unix.ErrnoName(errno), func(t *testing.T) {
			everywhere(t, Options{Entries: 8 * rawBatch}, func(t *testing.T, w *world) {
				h, peer := w.pair()
				waits := w.submit(runtime.Op{Code: runtime.OpRecv, Handle: h, Buf: w.room(10)})
				require.NoError(t, w.r.Poll(0))
				require.False(t, waits.over)
				w.write(peer, "noria") // completes the receive, or leaves deferred work that does
				sends, peers := w.greetings(rawBatch + 1)
				w.refuse(func(n, _ uintptr) syscall.Errno {
					if n > 0 && !waits.over {
						return errno
					}
					return 0
				})
				w.until(func() bool { return waits.over })
				require.NoError(t, waits.Err)
				require.Equal(t, "noria", string(waits.Buf.Bytes()))
				waits.Buf.Release()
				w.requireGreeted(sends, peers)
			})
		})
	}
}
