package epoll

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/runtime/internal/sys"
)

// vec is the memory of a vectored send, shared by all of them.
type vec struct {
	msg unix.Msghdr
	iov [runtime.MaxVec]unix.Iovec
}

// longCall is the size in bytes from which a system call may take long enough that
// the scheduler must know of it.
const longCall = 128 << 10

func call(trap, a, b, c, d uintptr, long bool) (int, syscall.Errno) {
	var n uintptr
	var errno syscall.Errno
	for {
		if long {
			n, _, errno = syscall.Syscall6(trap, a, b, c, d, 0, 0)
		} else {
			n, _, errno = syscall.RawSyscall6(trap, a, b, c, d, 0, 0)
		}
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

func (r *Runtime) recv(fd int, p []byte) (int, syscall.Errno) {
	return call(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, len(p) > longCall)
}

// notReady makes the first operation of d wait for an event, and registers c for
// one. If that fails, the operation ends.
func (r *Runtime) notReady(c *conn, d *direction) {
	if err := r.register(c); err != nil {
		r.finish(c, d.pop(), 0, 0, err)
		return
	}
	d.ready = false
}

// register registers c with epoll, if it is not registered yet.
func (r *Runtime) register(c *conn) error {
	if c.registered {
		return nil
	}
	if err := r.poller.add(c.fd, c.h); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	c.registered = true
	return nil
}

// short records that a call transferred less than it could have, so that the next
// try would find nothing. If c cannot be registered, there will be no event and the
// tries continue.
func (r *Runtime) short(c *conn, d *direction) {
	if r.register(c) == nil {
		d.ready = false
	}
}

// drained is short for a read. The event of an end comes only once, so reads must
// continue until they see the end. They must also continue where the kernel stops
// before its data ends: at TCP's urgent data, and at a message of a unix socket
// that carries descriptors or urgent data. In these cases only EAGAIN shows that
// nothing is left.
func (r *Runtime) drained(c *conn) {
	if !c.broken && !c.urgent && !c.unix {
		r.short(c, &c.in)
	}
}

// empty records that a read found nothing. On a socket with TCP's urgent data, the
// kernel also reports EAGAIN when a signal is pending (tcp_recvmsg_locked), such as
// one of Go's own. Then the read is tried again.
func (r *Runtime) empty(c *conn) {
	if c.urgent {
		if ready, err := ask(c.fd); err == nil && ready&runtime.DirRead != 0 {
			return
		}
		c.urgent = false
	}
	r.notReady(c, &c.in)
}

// tryIn tries the first operation of the receiving direction.
func (r *Runtime) tryIn(c *conn) {
	if !c.in.runnable() {
		return
	}
	op := c.in.head
	switch op.Code {
	case runtime.OpRecv:
		p := op.Target()
		n, errno := r.recv(c.fd, p)
		if errno == unix.EAGAIN {
			r.empty(c)
			return
		}
		if errno == 0 && n > 0 && n < len(p) {
			r.drained(c)
		}
		c.in.remove(op)
		r.end(c, op, n, errno)
	case runtime.OpRecvMany:
		r.tryRecvMany(c, op)
	default:
		r.tryAccept(c, op)
	}
}

// end finishes op with the result of a system call.
func (r *Runtime) end(c *conn, op *runtime.Op, n int, errno syscall.Errno) {
	if errno != 0 {
		r.finish(c, op, 0, 0, errno)
		return
	}
	r.finish(c, op, n, 0, nil)
}

func (r *Runtime) tryRecvMany(c *conn, op *runtime.Op) {
	if len(r.idle) == 0 {
		c.in.parked = true
		r.parked = append(r.parked, c.h)
		return
	}
	i := r.idle[len(r.idle)-1]
	p := r.hot.Target(i)
	n, errno := r.recv(c.fd, p)
	switch {
	case errno == unix.EAGAIN:
		r.empty(c)
	case errno != 0 || n == 0:
		c.in.remove(op)
		r.end(c, op, 0, errno)
	default:
		if n < len(p) {
			r.drained(c)
		}
		r.idle = r.idle[:len(r.idle)-1]
		b, kept := r.hot.Deliver(i, n)
		if !kept {
			r.idle = append(r.idle, i)
		}
		r.delivered++
		op.Deliver(b, 0)
	}
}

func (r *Runtime) tryAccept(c *conn, op *runtime.Op) {
	fd, errno := call(unix.SYS_ACCEPT4, uintptr(c.fd), 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, false)
	switch {
	case errno == unix.EAGAIN:
		r.notReady(c, &c.in)
	case errno == unix.ECONNABORTED:
		// The peer closed the connection in the backlog. The next try accepts another.
	case errno != 0:
		c.in.remove(op)
		r.end(c, op, 0, errno)
	case op.Code == runtime.OpAccept:
		c.in.remove(op)
		r.finish(c, op, 0, r.openSocket(fd, c.unix), nil)
	default:
		r.delivered++
		op.Deliver(nil, r.openSocket(fd, c.unix))
	}
}

// tryOut tries the first operation of the sending direction.
func (r *Runtime) tryOut(c *conn) {
	if !c.out.runnable() {
		return
	}
	op := c.out.head
	switch op.Code {
	case runtime.OpConnect:
		r.tryConnect(c, op)
		return
	case runtime.OpShutdown:
		c.out.remove(op)
		r.shutdown(c, op)
		return
	}
	n, size, errno := r.send(c.fd, op)
	if errno == unix.EAGAIN {
		for o := op; o != nil; o = o.Sys.Next {
			r.vacate(o)
		}
		r.notReady(c, &c.out)
		return
	}
	if errno == 0 && n < size {
		r.short(c, &c.out)
	}
	c.out.remove(op)
	r.end(c, op, n, errno)
}

// vacate moves the data of op out of the few receive buffers before op waits for
// the peer.
func (r *Runtime) vacate(op *runtime.Op) {
	if op.Code == runtime.OpSend {
		r.hot.Vacate(op.Buf)
		return
	}
	for _, b := range op.Bufs {
		r.hot.Vacate(b)
	}
}

func (r *Runtime) send(fd int, op *runtime.Op) (n, size int, errno syscall.Errno) {
	if op.Code == runtime.OpSend {
		p := op.Unsent(0)
		n, errno = call(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_NOSIGNAL, len(p) > longCall)
		return n, len(p), errno
	}
	v := &r.scratch
	k := 0
	for i := range op.Bufs {
		p := op.Unsent(i)
		if p = p[:min(len(p), runtime.MaxBytes-size)]; len(p) == 0 {
			continue
		}
		v.iov[k].Base = &p[0]
		v.iov[k].SetLen(len(p))
		k++
		size += len(p)
	}
	v.msg.Iov = &v.iov[0]
	v.msg.SetIovlen(k)
	n, errno = call(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&v.msg)), unix.MSG_NOSIGNAL, 0, size > longCall)
	clear(v.iov[:k]) // keep no buffer alive
	return n, size, errno
}

// tryConnect checks the outcome of a connect.
func (r *Runtime) tryConnect(c *conn, op *runtime.Op) {
	if !c.registered {
		r.notReady(c, &c.out)
		return
	}
	// The first event may be the registration's own, which reports a hang-up for a
	// socket that is not connected yet.
	v, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && v != 0 {
		err = syscall.Errno(v)
	}
	if err == nil {
		fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLOUT}}
		if n, perr := unix.Poll(fds, 0); perr == nil && (n == 0 || fds[0].Revents&unix.POLLOUT == 0) {
			c.out.ready = false
			return
		}
	}
	c.out.remove(op)
	r.connected(c, op, err)
}

// connected ends a connect. On success the handle goes to the caller, otherwise it
// is closed.
func (r *Runtime) connected(c *conn, op *runtime.Op, err error) {
	c.ops--
	if err != nil {
		r.closeFD(c)
		r.finish(nil, op, 0, 0, err)
		return
	}
	c.in.ready, c.out.ready = true, true
	r.finish(nil, op, 0, c.h, nil)
}

// tryPolls ends the OpPolls whose handle is ready. Edges do not say what is ready
// now, so it asks the kernel.
func (r *Runtime) tryPolls(c *conn) {
	if c.polls.head == nil || !c.news {
		return
	}
	c.news = false
	ready, err := ask(c.fd)
	for op := c.polls.head; op != nil; {
		next := op.Sys.Next
		if n := ready & op.Flags; n != 0 || err != nil {
			c.polls.remove(op)
			r.finish(c, op, n, 0, err)
		}
		op = next
	}
}

func ask(fd int) (ready int, err error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP | unix.POLLOUT}}
	for {
		if _, err = unix.Poll(fds, 0); err != unix.EINTR {
			break
		}
	}
	const broken = unix.POLLERR | unix.POLLHUP | unix.POLLNVAL
	if fds[0].Revents&(unix.POLLIN|unix.POLLRDHUP|broken) != 0 {
		ready |= runtime.DirRead
	}
	if fds[0].Revents&(unix.POLLOUT|broken) != 0 {
		ready |= runtime.DirWrite
	}
	return ready, err
}

func (r *Runtime) shutdown(c *conn, op *runtime.Op) {
	r.finish(c, op, 0, 0, sys.Shutdown(c.fd, op.Flags))
}
