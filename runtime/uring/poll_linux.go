package uring

import (
	"fmt"
	"math/bits"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/runtime/internal/sys"
)

// Poll makes one system call as long as there is work: it hands over what was
// submitted, and waits in a second one if nothing came of that.
func (r *Runtime) Poll(deadline int64) error {
	r.delivered = 0
	if !r.started || r.closing {
		r.deliver(r.done.len) // what was submitted after Close
		return &runtime.OpError{Op: "poll", Err: runtime.ErrClosed}
	}
	for {
		r.rearm()
		late, woken, err := r.turn(deadline)
		if err != nil {
			return err
		}
		r.deliver(r.opts.Budget)
		if r.delivered > 0 || woken || late {
			return nil
		}
	}
}

// rearm queues what an earlier turn could not.
func (r *Runtime) rearm() {
	r.drainBacklog()
	r.armWake()
	r.unpark()
}

// turn enters the kernel if there is a reason to: something to hand over,
// deferred work, or something to wait for. What was handed over completes at
// once as a rule, and under load more has arrived meanwhile; so the first call
// does not wait, which is what lets it be a raw one (see ring.turn), and an
// idle loop makes a second one.
func (r *Runtime) turn(deadline int64) (late, woken bool, err error) {
	timeout := int64(-1)
	wait := !r.ready() && r.wakeArmed
	if deadline != runtime.Forever {
		now := int64(0)
		if deadline > 0 {
			now = sys.Now()
		}
		timeout = deadline - now
		late = timeout <= 0
		wait = wait && !late
		if wait && !r.ring.extArg {
			wait = r.armTimer(deadline, now)
		}
	}
	if r.ring.pending() > 0 || r.ring.hasWork() {
		err = r.entered(r.ring.turn())
		wait = wait && err == nil && !r.ready()
	}
	if wait && r.waker.Sleep() {
		err = r.entered(r.ring.wait(timeout))
	}
	return late, r.waker.Woken(), err
}

// ready reports whether something can be delivered without the kernel.
func (r *Runtime) ready() bool {
	return r.done.head != nil || r.event < r.evts || r.fetch()
}

// entered says what an enter's error means for Poll.
func (r *Runtime) entered(errno syscall.Errno) error {
	switch errno {
	case 0, syscall.ETIME, syscall.EINTR:
		return nil
	case syscall.EAGAIN, syscall.EBUSY:
		// The kernel is short of memory, or wants its completions to be taken
		// first. Those that it has deferred it puts into the queue only when it is
		// asked to, and a call that it refuses does not ask. If there are none to
		// take then, let it breathe.
		if !r.ready() {
			r.ring.work()
		}
		if !r.ready() {
			fds := []unix.PollFd{{Fd: int32(r.ring.fd), Events: unix.POLLIN}}
			_, _ = unix.Poll(fds, 1)
		}
		return nil
	}
	return fmt.Errorf("io_uring_enter: %w", errno)
}

// fetch copies completions out of the queue, so that it has room again while
// they are worked on.
func (r *Runtime) fetch() bool {
	r.event = 0
	r.evts = r.ring.peek(r.events[:], r.scratch[:])
	return r.evts > 0
}

// deliver handles completions in the order in which they came, until budget
// of them were delivered or none is left. Results that were made here go
// first, but only those that are there now: a Done that submits the like again
// must not keep the kernel's waiting.
func (r *Runtime) deliver(budget int) {
	for n := r.done.len; n > 0 && r.delivered < budget; n-- {
		if f := r.done.pop(); f != nil {
			r.end(f, f.n, f.got, f.err)
		}
	}
	for r.delivered < budget && (r.event < r.evts || r.fetch()) {
		e := r.events[r.event]
		r.event++
		if e.UserData&userInternal != 0 {
			r.fired(e.UserData)
			continue
		}
		r.completed(e.UserData, e.Res, e.Flags)
	}
}

// pollMask puts poll events where a submission entry has them: 32 bits whose
// halves are swapped on big-endian machines.
func pollMask(events uint32) uint32 {
	if probe := uint16(1); *(*byte)(unsafe.Pointer(&probe)) == 0 {
		return bits.RotateLeft32(events, 16)
	}
	return events
}

// pollEvents and pollReady translate Op.Flags of OpPoll to events and back.
func pollEvents(flags int) (events uint32) {
	if flags&runtime.DirRead != 0 {
		events |= unix.POLLIN | unix.POLLRDHUP
	}
	if flags&runtime.DirWrite != 0 {
		events |= unix.POLLOUT
	}
	return events
}

func pollReady(flags int, events uint32) (ready int) {
	const broken = unix.POLLERR | unix.POLLHUP | unix.POLLNVAL
	if events&(unix.POLLIN|unix.POLLRDHUP|broken) != 0 {
		ready |= runtime.DirRead
	}
	if events&(unix.POLLOUT|broken) != 0 {
		ready |= runtime.DirWrite
	}
	return ready & flags
}
