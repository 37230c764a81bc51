package epoll

import (
	"fmt"
	"os"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
)

// What every backend must do is tested by package conformance. These tests are
// about epoll alone.

// start returns a Runtime that belongs to the test's thread.
func start(t *testing.T) (*Runtime, *runtime.Pool) {
	t.Helper()
	goruntime.LockOSThread()
	r, err := New(Options{})
	require.NoError(t, err)
	pool := runtime.NewPool(0)
	require.NoError(t, r.Start(pool))
	t.Cleanup(func() {
		require.NoError(t, r.Close())
		require.NoError(t, pool.Close())
		goruntime.UnlockOSThread()
	})
	return r, pool
}

func pair(t *testing.T) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	return fds[0], fds[1]
}

// registered counts the descriptors registered with epoll: see proc(5), fdinfo.
func (r *Runtime) registered(t *testing.T) int {
	t.Helper()
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", r.poller.fd))
	require.NoError(t, err)
	return strings.Count(string(info), "tfd:")
}

func until(t *testing.T, r *Runtime, ok func() bool) {
	t.Helper()
	for range 20_000 {
		if ok() {
			return
		}
		require.NoError(t, r.Poll(r.Now()+1e6))
	}
	t.Fatal("waited in vain")
}

// A socket that another process shares is unregistered when this process closes or
// detaches it.
func TestSharedSocketIsUnregistered(t *testing.T) {
	r, _ := start(t)
	before := r.registered(t)
	for _, detach := range []bool{false, true} {
		ours, peer := pair(t)
		theirs, err := unix.FcntlInt(uintptr(ours), unix.F_DUPFD_CLOEXEC, 0)
		require.NoError(t, err)
		h, err := r.Adopt(ours)
		require.NoError(t, err)
		recv := &runtime.Op{Code: runtime.OpRecvMany, Handle: h, Done: func(*runtime.Op) {}}
		r.Submit(recv)
		until(t, r, func() bool { return r.registered(t) == before+1 })
		if detach {
			r.Cancel(recv)
			until(t, r, func() bool { return !recv.InFlight() })
			fd, err := r.Detach(h)
			require.NoError(t, err)
			require.NoError(t, unix.Close(fd))
		} else {
			end := &runtime.Op{Code: runtime.OpClose, Handle: h, Done: func(*runtime.Op) {}}
			r.Submit(end)
			until(t, r, func() bool { return !end.InFlight() })
		}
		require.Equal(t, before, r.registered(t))
		require.NoError(t, unix.Close(theirs))
		require.NoError(t, unix.Close(peer))
	}
}

// An echo allocates nothing.
func TestNoAllocation(t *testing.T) {
	r, _ := start(t)
	ours, peer := pair(t)
	defer unix.Close(peer)
	require.NoError(t, unix.SetNonblock(peer, true))
	h, err := r.Adopt(ours)
	require.NoError(t, err)
	send := &runtime.Op{Code: runtime.OpSend, Handle: h, Done: func(op *runtime.Op) { op.Buf.Release() }}
	r.Submit(&runtime.Op{Code: runtime.OpRecvMany, Handle: h, Done: func(op *runtime.Op) {
		if op.More {
			send.Buf = op.Buf
			r.Submit(send)
		}
	}})
	p, got := []byte("noria"), make([]byte, 16)
	round := func() {
		if _, err := unix.Write(peer, p); err != nil {
			t.Error(err)
		}
		for n := 0; n <= 0; n, _ = unix.Read(peer, got) {
			if err := r.Poll(0); err != nil {
				t.Error(err)
				return
			}
		}
	}
	for range 100 {
		round()
	}
	require.Zero(t, testing.AllocsPerRun(200, round))
}

func TestOptions(t *testing.T) {
	_, err := New(Options{BufferSize: 10})
	require.ErrorContains(t, err, "want more than")
	r, err := New(Options{Off: []string{FeaturePwait2}})
	require.NoError(t, err)
	require.False(t, inUse(r, FeaturePwait2))
	require.NoError(t, r.Close())
}

// inUse reports whether r uses the feature of that name.
func inUse(r runtime.Runtime, name string) bool {
	return slices.ContainsFunc(r.Info().Features, func(f runtime.Feature) bool { return f.Name == name && f.On })
}
