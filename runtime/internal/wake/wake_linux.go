package wake

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Waker wakes the thread of one loop. Open is called before the other methods.
type Waker struct {
	state atomic.Uint32
	mu    sync.Mutex
	fd    int // -1 after Close; threads other than the loop's hold mu to read it
}

// The states of a Waker.
const (
	runs   = iota // the loop's thread does not wait
	sleeps        // the thread waits, or is about to wait
	woken         // Wake was called after the last wait ended
)

// Open makes the eventfd.
func (w *Waker) Open() (err error) {
	w.fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return err
}

// FD returns the eventfd, which becomes readable when the loop must wake. It is called on
// the loop's thread.
func (w *Waker) FD() int { return w.fd }

// Wake ends the wait of the loop's thread, or its next wait if it does not wait now. It
// may be called from any goroutine, also after Close.
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
		_, _ = unix.Write(w.fd, one[:]) // fails only with EAGAIN, if the counter is full: it is readable then
	}
}

// Sleep announces a wait of the loop's thread. It returns false if Wake was called: then
// the thread must not wait.
func (w *Waker) Sleep() bool { return w.state.CompareAndSwap(runs, sleeps) }

// Woken is called when the thread does not wait any more. It reports whether Wake was
// called.
func (w *Waker) Woken() bool { return w.state.Swap(runs) == woken }

// Clear makes the eventfd unreadable, for a backend that watches it level-triggered. It is
// called on the loop's thread.
func (w *Waker) Clear() {
	var count [8]byte
	_, _ = syscall.Read(w.fd, count[:]) // does not block: it fails with EAGAIN if there is no signal
}

// Close closes the eventfd. It is called on the loop's thread.
func (w *Waker) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	fd := w.fd
	w.fd = -1
	return unix.Close(fd)
}
