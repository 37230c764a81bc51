package epoll

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
)

// closeConn refuses new operations, cancels the waiting ones, and closes the
// descriptor after the last has completed.
func (r *Runtime) closeConn(c *conn, op *runtime.Op) {
	c.closer = op
	c.ops++ // until everything is cancelled
	r.cancelConn(c)
	c.ops--
	r.closeIfDone(c)
}

// cancelConn cancels the waiting operations of c.
func (r *Runtime) cancelConn(c *conn) {
	if c.in.parked {
		r.unparkConn(c)
	}
	for _, q := range []*opQueue{&c.in.opQueue, &c.out.opQueue, &c.polls} {
		for op := q.pop(); op != nil; op = q.pop() {
			r.finish(c, op, 0, 0, runtime.ErrCanceled)
		}
	}
	for _, op := range r.files.cancelHandle(c.h) {
		r.finish(c, op, 0, 0, runtime.ErrCanceled)
	}
}

// closeIfDone closes c if its close was submitted and nothing is in flight on it.
func (r *Runtime) closeIfDone(c *conn) {
	if c.closer == nil || c.ops > 0 {
		return
	}
	op := c.closer
	if c.file {
		// Closing a file may write, and thus block.
		op.Sys.N = c.fd
		r.forget(c)
		r.files.add(op)
		return
	}
	r.finish(nil, op, 0, 0, r.closeFD(c))
}

// closeFD closes a socket and removes its handle. The kernel removes a socket from
// epoll with its last descriptor. If the socket was adopted, another descriptor may
// be open, so closeFD removes it explicitly. Otherwise stale events would continue
// for as long as that descriptor is open.
func (r *Runtime) closeFD(c *conn) error {
	fd := c.fd
	if c.adopted && c.registered {
		_ = r.poller.remove(fd) // a failure only causes stale events
	}
	if c.retryAt != 0 {
		r.retries = slices.DeleteFunc(r.retries, func(o *conn) bool { return o == c })
	}
	r.forget(c)
	if err := unix.Close(fd); err != nil && err != unix.EINTR { // after EINTR the descriptor is closed too
		return err
	}
	return nil
}

// Close cancels all operations, waits for those that a worker runs, and closes
// everything.
func (r *Runtime) Close() error {
	if r.closed || r.closing {
		return opErr("close runtime", 0, runtime.ErrClosed)
	}
	r.closing = true
	var errs []error
	for h, s := range r.fds.All() {
		c := &s.Data
		if op := c.out.head; op != nil && op.Code == runtime.OpConnect {
			r.cancelInLine(op)
			continue
		}
		r.cancelConn(c)
		_ = h
	}
	for _, op := range r.files.cancelAll() {
		r.finish(r.connOf(op), op, 0, 0, runtime.ErrCanceled)
	}
	r.drain()
	for h, s := range r.fds.All() {
		errs = append(errs, unix.Close(s.FD))
		r.fds.Remove(h)
	}
	r.files.stop()
	errs = append(errs, r.waker.Close(), r.poller.close())
	if r.hot != nil {
		errs = append(errs, r.hot.Close())
	}
	r.closed = true
	return errors.Join(errs...)
}

// drain delivers results until nothing is in flight. An operation that a Done
// submits meanwhile is refused and completes too.
func (r *Runtime) drain() {
	for r.live > 0 {
		r.delivered = 0
		r.deliver()
		if r.live > 0 && r.done.head == nil {
			r.files.waitResult()
			r.takeFiles()
		}
	}
}
