package uring

import "golang.org/x/sys/unix"

// What is in the kernel and is no flight has the top bit of user_data set.
const (
	userInternal = uint64(1) << 63
	userWake     = userInternal | 1
	userTimeout  = userInternal | 2 // and a number, shifted by timeoutShift
	timeoutShift = 8
	userKind     = 1<<timeoutShift - 1
)

// Wake makes Poll return.
func (r *Runtime) Wake() { r.waker.Wake() }

// armWake sees to it that a poll of the waker is in the kernel before the loop
// sleeps: a one-shot poll, armed again each time it fired. (A multishot poll may end
// unseen, and a plain read of an eventfd hung on one kernel.)
func (r *Runtime) armWake() {
	if r.wakeArmed || r.closing {
		return
	}
	if sqe := r.sqe(); sqe != nil {
		sqe.OpCode, sqe.Fd, sqe.OpcodeFlags, sqe.UserData = opPollAdd, int32(r.waker.FD()), pollMask(unix.POLLIN), userWake
		r.wakeArmed = true
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
		r.waker.Clear()
		r.wakeArmed = false
		r.armWake()
	case userTimeout:
		if userData == r.timer.userData() {
			r.timer.armed, r.timer.removing = false, false
		}
	}
}
