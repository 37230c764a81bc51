package epoll

import (
	"errors"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/runtime/internal/sys"
)

// retryAfter is how long a connect to a unix socket with a full backlog waits
// before its next try. No event reports room in the backlog.
const retryAfter = int64(5 * time.Millisecond)

// Submit takes op. It never waits: an op that is refused gets its result from the
// next Poll, like any other.
func (r *Runtime) Submit(op *runtime.Op) {
	invalid := op.Begin()
	r.live++
	c, err := r.admit(op, invalid)
	if err != nil {
		r.finish(nil, op, 0, 0, err)
		return
	}
	switch op.Code {
	case runtime.OpNop:
		r.finish(nil, op, 0, 0, nil)
	case runtime.OpConnect:
		r.connect(op)
	case runtime.OpClose:
		r.closeConn(c, op)
	case runtime.OpOpen, runtime.OpReadAt, runtime.OpWriteAt, runtime.OpFsync, runtime.OpFdatasync, runtime.OpAllocate:
		r.toWorkers(c, op)
	case runtime.OpPoll:
		r.watch(c, op)
	case runtime.OpSend, runtime.OpSendVec:
		if !c.out.ready {
			r.vacate(op) // the send will wait for the peer
		}
		c.ops++
		c.out.push(op, inLine)
		if c.out.head == op {
			r.tryOut(c) // at once, so that its buffer is free before the next receive
		}
		r.schedule(c)
	case runtime.OpShutdown:
		if op.Flags == runtime.DirRead {
			c.ops++
			r.shutdown(c, op)
			return
		}
		r.enqueue(c, &c.out, op)
	default:
		r.enqueue(c, &c.in, op)
	}
}

// admit returns the handle's state, or nil if op has no handle. It fails with the
// error with which op ends.
func (r *Runtime) admit(op *runtime.Op, invalid error) (*conn, error) {
	if r.closing {
		return nil, runtime.ErrClosed
	}
	if invalid != nil {
		return nil, invalid
	}
	switch op.Code {
	case runtime.OpNop, runtime.OpConnect, runtime.OpOpen:
		return nil, nil
	}
	return r.conn(op.Handle)
}

func (r *Runtime) enqueue(c *conn, d *direction, op *runtime.Op) {
	c.ops++
	d.push(op, inLine)
	r.schedule(c)
}

// watch enqueues an OpPoll. A handle that is already ready causes no edge, so it is
// always checked once.
func (r *Runtime) watch(c *conn, op *runtime.Op) {
	c.ops++
	if err := r.register(c); err != nil && !errors.Is(err, unix.EPERM) { // EPERM: a regular file, always ready
		r.finish(c, op, 0, 0, err)
		return
	}
	c.polls.push(op, inLine)
	c.news = true
	r.schedule(c)
}

// connect makes a socket and starts to connect it.
func (r *Runtime) connect(op *runtime.Op) {
	fd, err := sys.Socket(op.Addr, true)
	if err != nil {
		r.finish(nil, op, 0, 0, err)
		return
	}
	h := r.openSocket(fd, op.Addr.Path != "")
	c := &r.fds.Get(h).Data
	c.ops++
	op.Sys.Got = h // so that Cancel finds it
	r.startConnect(c, op)
}

func (r *Runtime) startConnect(c *conn, op *runtime.Op) {
	raw := &r.peer
	err := raw.Set(op.Addr)
	if err == nil {
		_, errno := call(unix.SYS_CONNECT, uintptr(c.fd), uintptr(unsafe.Pointer(&raw.Any)), uintptr(raw.Len), 0, false)
		if errno != 0 {
			err = errno
		}
	}
	switch {
	case errors.Is(err, unix.EINPROGRESS):
		c.out.push(op, inLine)
		r.notReady(c, &c.out)
	case errors.Is(err, unix.EAGAIN) && op.Addr.Path != "":
		c.out.push(op, inLine)
		c.out.ready = false
		c.retryAt = r.Now() + retryAfter
		r.retries = append(r.retries, c)
	default:
		r.connected(c, op, err)
	}
}

// nextRetry returns when the next connect must be retried, or 0 if there is none.
func (r *Runtime) nextRetry() int64 {
	if len(r.retries) == 0 {
		return 0
	}
	return r.retries[0].retryAt
}

// retry retries the connects that are due. They are in order of retryAt.
func (r *Runtime) retry() {
	for len(r.retries) > 0 && r.retries[0].retryAt <= r.Now() {
		c := r.retries[0]
		r.retries = r.retries[1:]
		if op := c.out.pop(); op != nil {
			r.startConnect(c, op)
		}
	}
}

// Cancel requests that op end soon. It never waits.
func (r *Runtime) Cancel(op *runtime.Op) {
	if !op.InFlight() || op.Code == runtime.OpClose {
		return
	}
	switch op.Sys.State {
	case inLine:
		r.cancelInLine(op)
	case inWorkers:
		if r.files.cancel(op) {
			r.finish(r.connOf(op), op, 0, 0, runtime.ErrCanceled)
		}
	}
}

// connOf returns the state of op's handle, or nil if it has none.
func (r *Runtime) connOf(op *runtime.Op) *conn {
	if op.Code == runtime.OpOpen {
		return nil
	}
	if s := r.fds.Get(op.Handle); s != nil {
		return &s.Data
	}
	return nil
}

func (r *Runtime) cancelInLine(op *runtime.Op) {
	if op.Code == runtime.OpConnect {
		c := &r.fds.Get(op.Sys.Got).Data
		c.out.remove(op)
		op.Sys.Got = 0
		r.connected(c, op, runtime.ErrCanceled)
		return
	}
	c := r.connOf(op)
	switch op.Code {
	case runtime.OpPoll:
		c.polls.remove(op)
	case runtime.OpSend, runtime.OpSendVec, runtime.OpShutdown:
		c.out.remove(op)
	default:
		if c.in.head == op && c.in.parked {
			r.unparkConn(c) // the next operation may need no hot buffer
		}
		c.in.remove(op)
	}
	r.finish(c, op, 0, 0, runtime.ErrCanceled)
	if s := r.fds.Get(op.Handle); s != nil {
		r.schedule(&s.Data) // the next operation may be runnable
	}
}
