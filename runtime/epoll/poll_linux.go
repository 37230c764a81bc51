package epoll

import (
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
)

// Poll tries what may be ready and takes events from epoll. It waits for events if
// there is nothing to deliver. Otherwise it takes them at least every other time,
// so that busy handles do not starve the rest.
func (r *Runtime) Poll(deadline int64) error {
	r.delivered = 0
	if !r.started || r.closing {
		r.deliver() // operations that were submitted after Close
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
	if r.turns.Len() > 0 || r.done.head != nil || r.delivered > 0 || r.canUnpark() {
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

// event handles one event. A stale event has the handle of a closed connection and
// is ignored.
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

// schedule queues c for a try, if it is runnable and not queued yet.
func (r *Runtime) schedule(c *conn) {
	if c.turn.List() == nil && c.runnable() {
		r.turns.PushBack(&c.turn, c)
	}
}

// work delivers results and tries the queued handles in turn, one try for each
// direction, up to the budget. Handles that become runnable meanwhile are left to
// the next call.
func (r *Runtime) work() {
	r.takeFiles()
	r.retry()
	r.unpark()
	r.deliver()
	for n := r.turns.Len(); n > 0 && r.turns.Len() > 0 && r.delivered < r.opts.Budget && !r.receiversFirst(); n-- {
		h := r.turns.PopFront().h
		r.turn(h)
	}
	r.deliver()
}

// receiversFirst reports whether work should stop, so that receivers can use and
// release their buffers. It does if buffers are short and enough have been released
// since it last did, so that more releases can be expected. This avoids copies in a
// burst from many connections. It does not avoid them if peers keep the buffers.
func (r *Runtime) receiversFirst() bool {
	if !r.hot.Short() || r.returned < r.hot.Count()/4 {
		return false
	}
	r.returned = 0
	return true
}

// turn tries both directions of h once. It looks the handle up again after each
// try, whose Done may have closed it.
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

// deliver delivers the results that exist now. An operation that a Done submits,
// and that ends at once, waits for the next call.
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

// finish ends an operation. Its result waits for Poll.
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

// unparkConn removes c from the handles that wait for a hot buffer.
func (r *Runtime) unparkConn(c *conn) {
	c.in.parked = false
	r.parked = slices.DeleteFunc(r.parked, func(h runtime.Handle) bool { return h == c.h })
}

// unpark resumes as many parked receives as there are free buffers.
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
