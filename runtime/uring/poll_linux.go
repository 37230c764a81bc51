//go:build !386 && !arm && !mips && !mipsle

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

// Poll submits everything, delivers results, and waits for one, until the deadline
// or a Wake, if there is none. While there is work it makes one system call; a
// second one is only needed to wait.
func (r *Runtime) Poll(deadline int64) error {
	r.delivered = 0
	if !r.started || r.closing {
		r.deliver(r.done.Len()) // operations that were submitted after Close
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

// rearm submits what had no room or no buffer in an earlier turn.
func (r *Runtime) rearm() {
	r.drainBacklog()
	r.armWake()
	r.unpark()
}

// turn enters the kernel if there is something to submit, deferred work, or
// something to wait for. Most operations complete when they are submitted, and
// under load more has arrived meanwhile. So the first call does not wait, which
// allows it to be a raw system call (see ring.turn), and only an idle loop makes a
// second one.
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

// ready reports whether a result can be delivered without entering the kernel.
func (r *Runtime) ready() bool {
	return r.done.Len() > 0 || r.event < r.evts || r.fetch()
}

// entered handles the result of an enter and returns the error for Poll.
func (r *Runtime) entered(errno syscall.Errno) error {
	switch errno {
	case 0, syscall.ETIME, syscall.EINTR:
		return nil
	case syscall.EAGAIN, syscall.EBUSY:
		// The kernel is short of memory, or wants its completions read first. Those
		// that it has deferred reach the queue only when an enter asks for them, and
		// a refused enter does not. If there are none, a short wait gives the kernel
		// time.
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

// fetch copies completions out of the queue, so that the queue has room while they
// are handled.
func (r *Runtime) fetch() bool {
	r.event = 0
	r.evts = r.ring.peek(r.events[:], r.scratch[:])
	return r.evts > 0
}

// deliver handles completions in order until it has delivered budget of them or
// none is left. It begins with the results that were made without the kernel, but
// only those that exist now: a Done that submits such an operation again must not
// delay the kernel's completions for ever.
func (r *Runtime) deliver(budget int) {
	for n := r.done.Len(); n > 0 && r.delivered < budget; n-- {
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

// pollMask converts poll events to the form of a submission entry: 32 bits whose
// halves are swapped on big-endian machines.
func pollMask(events uint32) uint32 {
	if probe := uint16(1); *(*byte)(unsafe.Pointer(&probe)) == 0 {
		return bits.RotateLeft32(events, 16)
	}
	return events
}

// pollEvents and pollReady convert the flags of OpPoll to events and back.
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
