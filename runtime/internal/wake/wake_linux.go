package wake

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Waker is the waker of one loop. Open comes first.
type Waker struct {
	state atomic.Uint32
	mu    sync.Mutex
	fd    int // guarded by mu for all but the loop's thread; -1 after Close
}

// The states of a Waker.
const (
	runs   = iota // the loop's thread does not wait
	sleeps        // it waits, or is about to
	woken         // a Wake came, and no wait has ended since
)

// Open makes the eventfd.
func (w *Waker) Open() (err error) {
	w.fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return err
}

// FD returns the eventfd, which becomes readable when the loop is to wake. It is
// called on the loop's thread.
func (w *Waker) FD() int { return w.fd }

// Wake ends the wait of the loop's thread, or its next one. It may be called from
// any goroutine at any time, also after Close.
func (w *Waker) Wake() {
	if w.state.Swap(woken) == sleeps {
		w.Signal()
	}
}

// Signal makes the eventfd readable, whether the loop's thread sleeps or not. It
// may be called from any goroutine.
func (w *Waker) Signal() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd >= 0 {
		_, _ = unix.Write(w.fd, one[:]) // EAGAIN would mean that it is signalled 2^64-1 times over
	}
}

// Sleep announces a wait of the loop's thread. It reports false if there was a
// Wake: then the thread must not wait.
func (w *Waker) Sleep() bool { return w.state.CompareAndSwap(runs, sleeps) }

// Woken ends a wait, or none, and reports whether there was a Wake.
func (w *Waker) Woken() bool { return w.state.Swap(runs) == woken }

// Clear takes the signal off the eventfd, for a backend that looks at its level.
// It is called on the loop's thread.
func (w *Waker) Clear() {
	var count [8]byte
	_, _ = syscall.Read(w.fd, count[:]) // non-blocking; EAGAIN is as good
}

// Close closes the eventfd.
func (w *Waker) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	fd := w.fd
	w.fd = -1
	return unix.Close(fd)
}
