package uring

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// What is in the kernel and is no flight has the top bit of user_data set.
const (
	userInternal = uint64(1) << 63
	userWake     = userInternal | 1
	userTimeout  = userInternal | 2 // and a number, shifted by timeoutShift
	timeoutShift = 8
	userKind     = 1<<timeoutShift - 1
)

// A waker gets a loop out of its wait: an eventfd with a one-shot poll on it,
// armed again each time it fired. (A multishot poll may end unseen, and a
// plain read of an eventfd hung on one kernel.) Nobody pays for a system call
// unless the loop really sleeps.
type waker struct {
	state atomic.Uint32
	armed bool // the poll is in the kernel; of the loop's thread
	mu    sync.Mutex
	fd    int // guarded by mu for all but the loop's thread; -1 after close
}

// The states of a waker.
const (
	loopRuns   = iota // Poll is not waiting
	loopSleeps        // it waits, or is about to
	loopWoken         // a Wake came that no Poll has returned for
)

func (w *waker) open() (err error) {
	w.fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return err
}

// wake may be called by anybody at any time.
func (w *waker) wake() {
	if w.state.Swap(loopWoken) == loopSleeps {
		w.signal()
	}
}

func (w *waker) signal() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd >= 0 {
		_, _ = unix.Write(w.fd, one[:]) // EAGAIN would mean that it is signalled 2^64-1 times over
	}
}

// sleep announces a wait. It reports false if there was a Wake: do not.
func (w *waker) sleep() bool { return w.state.CompareAndSwap(loopRuns, loopSleeps) }

// woken ends a wait, or none, and reports whether there was a Wake.
func (w *waker) woken() bool { return w.state.Swap(loopRuns) == loopWoken }

// clear takes the signal off the eventfd, so that the next poll waits.
func (w *waker) clear() {
	w.armed = false
	var count [8]byte
	_, _ = syscall.Read(w.fd, count[:]) // non-blocking; EAGAIN is as good
}

func (w *waker) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	fd := w.fd
	w.fd = -1
	return unix.Close(fd)
}

// Wake makes Poll return.
func (r *Runtime) Wake() { r.waker.wake() }

// armWake sees to it that the poll is there before the loop sleeps.
func (r *Runtime) armWake() {
	if r.waker.armed || r.closing {
		return
	}
	if sqe := r.sqe(); sqe != nil {
		sqe.OpCode, sqe.Fd, sqe.OpcodeFlags, sqe.UserData = opPollAdd, int32(r.waker.fd), pollMask(unix.POLLIN), userWake
		r.waker.armed = true
	}
}

// A timer is the timeout operation that ends a wait where the kernel has no
// EXT_ARG: at most one is in the kernel.
type timer struct {
	armed    bool
	removing bool
	deadline int64
	id       uint64
}

// armTimer sees to it that the loop comes back at deadline. An earlier timer
// is as good: the loop looks at the clock and waits again.
// It reports false if there is no room to do so: then the loop must not wait.
func (r *Runtime) armTimer(deadline, now int64) bool {
	t := &r.timer
	if t.armed && t.deadline <= deadline || t.removing {
		return true
	}
	if t.armed {
		return r.removeTimer() // the wait comes back when it is gone, and arms the right one
	}
	sqe := r.sqe()
	if sqe == nil {
		return false
	}
	ts := r.ring.timeout()
	left := max(deadline-now, 0)
	*ts = timespec{sec: left / 1e9, nsec: left % 1e9}
	t.armed, t.deadline = true, deadline
	t.id++
	sqe.OpCode, sqe.Addr, sqe.Len, sqe.UserData = opTimeout, addressOf(ts), 1, t.userData()
	return true
}

func (t *timer) userData() uint64 { return userTimeout | t.id<<timeoutShift&^userInternal }

func (r *Runtime) removeTimer() bool {
	t := &r.timer
	if !t.armed || t.removing {
		return true
	}
	sqe := r.sqe()
	if sqe == nil {
		return false
	}
	sqe.OpCode, sqe.Addr, sqe.UserData = opTimeoutRemove, t.userData(), userInternal
	t.removing = true
	return true
}

// fired handles the completion of what is no flight.
func (r *Runtime) fired(userData uint64) {
	switch userData & (userInternal | userKind) {
	case userWake:
		r.waker.clear()
		r.armWake()
	case userTimeout:
		if userData == r.timer.userData() {
			r.timer.armed, r.timer.removing = false, false
		}
	}
}
