package wake_test

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime/internal/wake"
)

func readable(t *testing.T, w *wake.Waker) bool {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(w.FD()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	require.NoError(t, err)
	return n > 0
}

// A Wake costs a system call only while the loop sleeps, and is never lost.
func TestWaker(t *testing.T) {
	var w wake.Waker
	require.NoError(t, w.Open())
	w.Wake()
	require.False(t, readable(t, &w), "the loop does not sleep")
	require.False(t, w.Sleep(), "Wake was called before")
	require.True(t, w.Woken())
	require.True(t, w.Sleep())
	require.False(t, w.Woken(), "the wait ended without a Wake")
	require.True(t, w.Sleep())
	w.Wake()
	w.Wake()
	require.True(t, readable(t, &w))
	require.True(t, w.Woken())
	w.Clear()
	require.False(t, readable(t, &w))
	w.Clear() // without a signal it does not wait
	w.Signal()
	require.True(t, readable(t, &w))
	require.NoError(t, w.Close())
}

// Goroutines may call Wake while the loop closes the Waker, and afterwards.
func TestWakeBesideClose(t *testing.T) {
	var w wake.Waker
	require.NoError(t, w.Open())
	require.True(t, w.Sleep())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 1000 {
				w.Wake()
				w.Signal()
			}
		})
	}
	require.NoError(t, w.Close())
	wg.Wait()
}
