//go:build !386 && !arm && !mips && !mipsle

package uring

import "golang.org/x/sys/unix"

// The user_data of kernel operations that are not flights. Their top bit is set.
const (
	userInternal = uint64(1) << 63
	userWake     = userInternal | 1
	userTimeout  = userInternal | 2 // and the timer's id, shifted by timeoutShift
	timeoutShift = 8
	userKind     = 1<<timeoutShift - 1
)

// Wake makes Poll return. It may be called from any goroutine.
func (r *Runtime) Wake() { r.waker.Wake() }

// armWake makes sure that the kernel polls the waker before the loop sleeps: with a
// one-shot poll, which is armed again each time it has fired. (A multishot poll may end
// without a completion, and a read of an eventfd hung on one kernel.)
func (r *Runtime) armWake() {
	if r.wakeArmed || r.closing {
		return
	}
	if sqe := r.sqe(); sqe != nil {
		sqe.OpCode, sqe.Fd, sqe.OpcodeFlags, sqe.UserData = opPollAdd, int32(r.waker.FD()), pollMask(unix.POLLIN), userWake
		r.wakeArmed = true
	}
}

// A timer is the timeout operation that ends a wait on kernels without EXT_ARG. At most
// one is in the kernel.
type timer struct {
	armed    bool
	removing bool
	deadline int64
	id       uint64
}

// armTimer makes sure that the wait ends at deadline or before. If it ends before, the
// loop looks at the clock and waits again. armTimer returns false if the submission queue
// has no room: then the loop must not wait.
func (r *Runtime) armTimer(deadline, now int64) bool {
	t := &r.timer
	if t.armed && t.deadline <= deadline || t.removing {
		return true
	}
	if t.armed {
		return r.removeTimer() // its completion ends the wait, and the next wait arms a new timer
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

// fired handles a completion that is not of a flight.
func (r *Runtime) fired(userData uint64) {
	switch userData & (userInternal | userKind) {
	case userWake:
		r.waker.Clear()
		r.wakeArmed = false
		r.armWake()
	case userTimeout:
		if userData == r.timer.userData() {
			r.timer.armed, r.timer.removing = false, false
		}
	}
}
