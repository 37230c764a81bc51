package backend

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
)

// retryAfter is how long an operation waits when no event will tell it to try again:
// when it waits for memory, or for room in a unix socket's backlog.
const retryAfter = int64(2 * time.Millisecond)

// Poll asks the kernel which handles are ready, waits if there is nothing to deliver,
// tries the operations of the ready handles, and delivers results.
func (r *Runtime) Poll(deadline int64) error {
	if !r.started || r.closing {
		r.deliver() // operations that were submitted after Close
		return opErr("poll", 0, runtime.ErrClosed)
	}
	for {
		late := deadline <= r.Now()
		woken, err := r.wait(deadline)
		if err != nil {
			return err
		}
		r.takeFiles()
		if r.deliver() > 0 || woken || late {
			return nil
		}
	}
}

// wait calls poll(2) and tries the operations of the ready handles: one in each
// direction, so that no handle gets ahead of the others.
func (r *Runtime) wait(deadline int64) (woken bool, err error) {
	until := r.ask(deadline)
	var timeout *unix.Timespec
	if until != runtime.Forever {
		t := unix.NsecToTimespec(max(0, until-r.Now()))
		timeout = &t
	}
	if _, err := unix.Ppoll(r.fds, timeout, nil); err == unix.EINTR {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("ppoll: %w", err)
	}
	for i, c := range r.asked {
		ready := r.fds[i].Revents
		if c == nil {
			if woken = ready != 0; woken {
				_, _ = unix.Read(r.eventFD, make([]byte, 8))
			}
			continue
		}
		r.try(c, ready)
	}
	return woken, nil
}

// ask fills in the arguments of poll(2) and returns until when it may wait.
func (r *Runtime) ask(deadline int64) (until int64) {
	r.fds = append(r.fds[:0], unix.PollFd{Fd: int32(r.eventFD), Events: unix.POLLIN})
	r.asked = append(r.asked[:0], nil)
	until = deadline
	if len(r.done) > 0 {
		until = 0
	}
	if len(r.done) >= budget {
		return until // deliver these first
	}
	now := r.Now()
	for i := range r.slots {
		c := r.slots[i].c
		if c == nil {
			continue
		}
		var events int16
		if c.retryAt > now {
			until = min(until, c.retryAt)
		} else {
			if len(c.in) > 0 {
				events |= unix.POLLIN | unix.POLLRDHUP
			}
			if len(c.out) > 0 {
				events |= unix.POLLOUT
			}
		}
		for _, op := range c.polls {
			if op.Flags&runtime.DirRead != 0 {
				events |= unix.POLLIN | unix.POLLRDHUP
			}
			if op.Flags&runtime.DirWrite != 0 {
				events |= unix.POLLOUT
			}
		}
		if events != 0 {
			r.fds = append(r.fds, unix.PollFd{Fd: int32(c.fd), Events: events})
			r.asked = append(r.asked, c)
		}
	}
	return until
}

// try tries the first operations in c's queues for which c is ready.
func (r *Runtime) try(c *conn, ready int16) {
	const broken = unix.POLLERR | unix.POLLHUP | unix.POLLNVAL
	var flags int
	if ready&(unix.POLLIN|unix.POLLRDHUP|broken) != 0 {
		flags |= runtime.DirRead
	}
	if ready&(unix.POLLOUT|broken) != 0 {
		flags |= runtime.DirWrite
	}
	var rest []*runtime.Op
	for _, op := range c.polls {
		if n := op.Flags & flags; n != 0 {
			r.finish(op, n, nil)
		} else {
			rest = append(rest, op)
		}
	}
	c.polls = rest
	if c.retryAt > r.Now() {
		return
	}
	c.retryAt = 0
	if flags&runtime.DirRead != 0 && len(c.in) > 0 {
		r.tryIn(c)
	}
	if flags&runtime.DirWrite != 0 && len(c.out) > 0 {
		r.tryOut(c)
	}
}

// again reports whether the kernel was not ready after all: the next Poll tries again.
func again(err error) bool { return err == unix.EAGAIN || err == unix.EINTR }

func (r *Runtime) tryIn(c *conn) {
	switch op := c.in[0]; op.Code {
	case runtime.OpRecv:
		if n, err := unix.Read(c.fd, op.Target()); !again(err) {
			r.finish(pop(&c.in), max(n, 0), err)
		}
	case runtime.OpRecvMany:
		r.tryRecvMany(c, op)
	default:
		r.tryAccept(c, op)
	}
}

// tryRecvMany receives into a buffer of the pool. It takes the buffer only when bytes
// have arrived, so an operation that waits holds no memory. A backend that must give
// the kernel memory in advance makes its own buffers with runtime.NewBuffer.
func (r *Runtime) tryRecvMany(c *conn, op *runtime.Op) {
	b, err := r.pool.Get(bufferSize)
	if err != nil {
		c.retryAt = r.Now() + retryAfter // until buffers have come back: no connection ends because of it
		return
	}
	n, err := unix.Read(c.fd, b.Room())
	if n > 0 {
		b.Extend(n)
		r.done = append(r.done, result{op: op, more: true, buf: b})
		return
	}
	b.Release()
	if !again(err) {
		r.finish(pop(&c.in), 0, err) // without an error, Complete sets io.EOF
	}
}

func (r *Runtime) tryAccept(c *conn, op *runtime.Op) {
	fd, _, err := unix.Accept4(c.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	switch {
	case again(err) || err == unix.ECONNABORTED: // the peer gave up; another one may be waiting
	case err != nil:
		r.finish(pop(&c.in), 0, err)
	default:
		if op.Code == runtime.OpAccept {
			pop(&c.in)
		}
		r.done = append(r.done, result{op: op, more: op.Code == runtime.OpAcceptMany, got: r.open(fd).h})
	}
}

func (r *Runtime) tryOut(c *conn) {
	op := c.out[0]
	if op.Code == runtime.OpConnect {
		r.tryConnect(c, op)
		return
	}
	n, err := unix.SendmsgBuffers(c.fd, unsent(op), nil, nil, unix.MSG_NOSIGNAL)
	if !again(err) {
		r.finish(pop(&c.out), max(n, 0), err)
		r.runShutdowns(c)
	}
}

// unsent returns the bytes that op has to send, at most MaxBytes.
func unsent(op *runtime.Op) (parts [][]byte) {
	room := runtime.MaxBytes
	for i := range max(len(op.Bufs), 1) {
		p := op.Unsent(i)
		p = p[:min(len(p), room)]
		room -= len(p)
		parts = append(parts, p)
		if op.Code == runtime.OpSend {
			break
		}
	}
	return parts
}

// connect makes a socket and a handle, which belongs to the caller once it is
// connected.
func (r *Runtime) connect(op *runtime.Op) {
	fd, err := socket(op.Addr)
	if err != nil {
		r.finish(op, 0, err)
		return
	}
	c := r.open(fd)
	op.Sys.Got = c.h // for Cancel
	r.startConnect(c, op)
}

func (r *Runtime) startConnect(c *conn, op *runtime.Op) {
	sa, err := toSockaddr(op.Addr)
	if err == nil {
		err = unix.Connect(c.fd, sa)
	}
	switch err {
	case unix.EINPROGRESS, unix.EINTR:
		c.out = []*runtime.Op{op}
	case unix.EAGAIN: // a unix socket whose peer's backlog is full
		c.out = []*runtime.Op{op}
		c.retryAt = r.Now() + retryAfter
		op.Sys.State = mustRetry
	default:
		r.connected(c, op, err)
	}
}

// mustRetry is the Op.Sys.State of a connect that the kernel has refused for now.
const mustRetry = 1

func (r *Runtime) tryConnect(c *conn, op *runtime.Op) {
	pop(&c.out)
	if op.Sys.State == mustRetry {
		op.Sys.State = 0
		r.startConnect(c, op)
		return
	}
	v, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && v != 0 {
		err = unix.Errno(v)
	}
	r.connected(c, op, err)
}

func (r *Runtime) connected(c *conn, op *runtime.Op, err error) {
	if err != nil {
		_ = r.closeFD(c)
		r.finish(op, 0, err)
		return
	}
	r.done = append(r.done, result{op: op, got: c.h})
}

// deliver calls Done for the results that are there now, up to the budget. A Done may
// submit an operation that is done at once: its result waits for the next Poll.
func (r *Runtime) deliver() (n int) {
	n = min(len(r.done), budget)
	for range n {
		res := r.done[0]
		r.done[0] = result{}
		r.done = r.done[1:]
		if res.more {
			res.op.Deliver(res.buf, res.got)
			continue
		}
		r.live--
		res.op.Complete(res.n, res.got, res.err)
	}
	return n
}
