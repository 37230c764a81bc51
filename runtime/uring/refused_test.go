//go:build linux

package uring

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
)

// greetings submits a send on each of n sockets, which is more than one raw call
// hands over, and returns them with the sockets' other ends.
func (w *world) greetings(n int) (sends []*call, peers []int) {
	for i := range n {
		h, peer := w.pair()
		peers = append(peers, peer)
		sends = append(sends, w.submit(runtime.Op{Code: runtime.OpSend, Handle: h, Buf: w.buffer(greeting(i))}))
	}
	return sends, peers
}

// refuse has f asked before each call to the kernel: see ring.refuse. It ends before
// the runtime is closed, or a test that failed would hang there.
func (w *world) refuse(f func(n, flags uintptr) syscall.Errno) {
	w.r.ring.refuse = f
	w.t.Cleanup(func() { w.r.ring.refuse = nil })
}

func greeting(i int) string { return fmt.Sprintf("greeting %d", i) }

// requireGreeted checks that each send has ended once, and that its peer has its
// bytes, and has them once.
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

// Of what goes in several calls the first is taken and the second is refused, once
// or for a while: the rest goes later, nothing is lost, and nothing goes twice.
func TestSecondBatchIsRefused(t *testing.T) {
	for _, tt := range []struct {
		errno syscall.Errno
		times int
		hard  bool // Poll returns it
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
				require.NoError(t, w.r.Poll(0)) // the runtime's own
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

// A kernel that takes nothing more until its completions are taken (EAGAIN,
// EBUSY) may still hold them back as deferred work, and a refused call does none:
// they have to be asked for, or it would refuse for ever.
func TestRefusedUntilDeferredWorkIsDone(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.EAGAIN, unix.EBUSY} {
		t.Run(unix.ErrnoName(errno), func(t *testing.T) {
			everywhere(t, Options{Entries: 8 * rawBatch}, func(t *testing.T, w *world) {
				h, peer := w.pair()
				waits := w.submit(runtime.Op{Code: runtime.OpRecv, Handle: h, Buf: w.room(10)})
				require.NoError(t, w.r.Poll(0))
				require.False(t, waits.over)
				w.write(peer, "noria") // which completes it, or leaves work to do so
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
