package epoll

import (
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
)

// Poll tries what can be tried, and looks at epoll: to wait if nothing is to
// be delivered, and otherwise at least every other time, lest those who are
// busy keep the rest from being seen.
func (r *Runtime) Poll(deadline int64) error {
	r.delivered = 0
	if !r.started || r.closing {
		r.deliver() // what was submitted after Close
		return opErr("poll", 0, runtime.ErrClosed)
	}
	r.work()
	if r.delivered > 0 && !r.skipped {
		r.skipped = true
		r.waker.Woken()
		return nil
	}
	r.skipped = false
	for {
		late, woken, err := r.look(deadline)
		if err != nil {
			return err
		}
		r.work()
		if r.delivered > 0 || woken || late {
			return nil
		}
	}
}

// look takes events, and waits for them if there is nothing else to do.
func (r *Runtime) look(deadline int64) (late, woken bool, err error) {
	timeout := int64(-1)
	if deadline != runtime.Forever {
		timeout = max(0, deadline-r.Now())
		late = timeout == 0
	}
	if r.turns.head != nil || r.done.head != nil || r.delivered > 0 || r.canUnpark() {
		timeout = 0
	}
	if at := r.nextRetry(); at != 0 && timeout != 0 {
		if left := max(0, at-r.Now()); timeout < 0 || left < timeout {
			timeout = left
		}
	}
	if timeout != 0 && !r.waker.Sleep() {
		timeout = 0
	}
	n, err := r.poller.wait(timeout)
	if err != nil && err != syscall.EINTR {
		return false, false, fmt.Errorf("epoll_wait: %w", err)
	}
	for i := range n {
		r.event(&r.poller.events[i])
	}
	return late, r.waker.Woken(), nil
}

// event takes one event. It may be stale: the handle says.
func (r *Runtime) event(ev *unix.EpollEvent) {
	s := r.fds.Get(runtime.MakeHandle(uint32(ev.Fd), uint32(ev.Pad)))
	if s == nil {
		return
	}
	c := &s.Data
	c.news = true
	const broken = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	if ev.Events&broken != 0 {
		c.broken = true
	}
	if ev.Events&unix.EPOLLPRI != 0 {
		c.urgent = true
	}
	if ev.Events&(unix.EPOLLIN|broken) != 0 {
		c.in.ready = true
	}
	if ev.Events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		c.out.ready = true
	}
	r.schedule(c)
}

// schedule has c tried, if that makes sense and is not so already.
func (r *Runtime) schedule(c *conn) {
	if c.queue == nil && c.runnable() {
		r.turns.push(c)
	}
}

// work delivers what is done and tries what may be ready, one try for each
// direction of a handle in turn, up to the budget. What becomes possible
// meanwhile is for the next time.
func (r *Runtime) work() {
	r.takeFiles()
	r.retry()
	r.unpark()
	r.deliver()
	for n := r.turns.n; n > 0 && r.turns.head != nil && r.delivered < r.opts.Budget && !r.breather(); n-- {
		h := r.turns.pop().h
		r.turn(h)
	}
	r.deliver()
}

// breather reports whether to let those who received have their turn first:
// buffers are short, and so many have come back since it was last so that they
// will again. A burst from many connections is no reason to copy; peers that
// do not give buffers back are.
func (r *Runtime) breather() bool {
	if !r.hot.Short() || r.returned < r.hot.Count()/4 {
		return false
	}
	r.returned = 0
	return true
}

// turn tries both directions of h once. The handle is looked up again after
// tryIn, whose Done may have closed it.
func (r *Runtime) turn(h runtime.Handle) {
	if s := r.fds.Get(h); s != nil {
		r.tryPolls(&s.Data)
		r.tryIn(&s.Data)
	}
	if s := r.fds.Get(h); s != nil {
		r.tryOut(&s.Data)
	}
	if s := r.fds.Get(h); s != nil {
		r.schedule(&s.Data)
	}
}

// deliver gives back what is done, but only what is there now: what a Done
// submits and is refused at once waits its turn.
func (r *Runtime) deliver() {
	for n := r.done.n; n > 0 && r.delivered < r.opts.Budget; n-- {
		op := r.done.pop()
		if op == nil {
			return
		}
		r.delivered++
		r.live--
		op.Complete(op.Sys.N, op.Sys.Got, op.Sys.Err)
	}
}

// finish ends an operation: its result waits for Poll.
func (r *Runtime) finish(c *conn, op *runtime.Op, n int, got runtime.Handle, err error) {
	op.Sys.N, op.Sys.Got, op.Sys.Err = n, got, err
	r.done.push(op, inDone)
	if c == nil {
		return
	}
	c.ops--
	r.closeIfDone(c)
}

func (r *Runtime) canUnpark() bool { return len(r.parked) > 0 && len(r.idle) > 0 }

// unparkConn takes c out of those that wait for a hot buffer.
func (r *Runtime) unparkConn(c *conn) {
	c.in.parked = false
	r.parked = slices.DeleteFunc(r.parked, func(h runtime.Handle) bool { return h == c.h })
}

// unpark lets as many receives go on as there are buffers.
func (r *Runtime) unpark() {
	n := min(len(r.idle), len(r.parked))
	for _, h := range r.parked[:n] {
		if s := r.fds.Get(h); s != nil {
			s.Data.in.parked = false
			r.schedule(&s.Data)
		}
	}
	r.parked = slices.Delete(r.parked, 0, n)
}
