//go:build !386 && !arm && !mips && !mipsle

package uring

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
)

// finish ends f without the kernel. The result waits for the next Poll, because
// Submit and Cancel must not call Done.
func (r *Runtime) finish(f *flight, n int, got runtime.Handle, err error) {
	f.n, f.got, f.err = n, got, err
	r.done.push(f, phaseDone)
	r.startNext(f)
}

// end completes the Op of f.
func (r *Runtime) end(f *flight, n int, got runtime.Handle, err error) {
	r.startNext(f)
	op, c := f.op, f.conn
	if c != nil {
		c.remove(f)
	}
	if op.Code == runtime.OpConnect && got == 0 && f.fd >= 0 {
		closeAll(int(f.fd))
	}
	r.putBuffer(f)
	r.table.drop(f)
	if c != nil && c.closer != nil && c.ops.Len() == 0 {
		r.closeNow(c)
	}
	r.delivered++
	op.Complete(n, got, err)
}

// startNext starts the next operation in f's direction, if f was the active one.
func (r *Runtime) startNext(f *flight) {
	if f.conn == nil {
		return
	}
	i := lineOf(f.op)
	if i == noLine || f.conn.lines[i].active != f {
		return
	}
	l := &f.conn.lines[i]
	l.active = l.waiting.pop()
	if l.active != nil {
		r.start(l.active)
	}
}

// completed handles a completion of the kernel.
func (r *Runtime) completed(userData uint64, res int32, flags uint32) {
	f := r.table.get(userData)
	if f == nil {
		return // cannot happen: a flight stays until its last completion
	}
	if flags&cqeMore == 0 {
		f.phase = phaseIdle
	}
	switch {
	case f.op == nil:
		r.canceled(f, syscall.Errno(-min(res, 0)))
	case f.poll:
		f.poll = false
		r.polled(f, res)
	case f.op.Code == runtime.OpRecvMany:
		r.received(f, res, flags)
	case res < 0:
		r.failed(f, syscall.Errno(-res))
	default:
		r.succeeded(f, int(res), flags)
	}
}

// polled continues an operation whose handle became ready.
func (r *Runtime) polled(f *flight, res int32) {
	switch {
	case f.canceled:
		r.end(f, 0, 0, runtime.ErrCanceled)
	case res < 0:
		r.failed(f, syscall.Errno(-res))
	case f.op.Code == runtime.OpRecvMany:
		r.parked.push(f, phaseParked)
	default:
		r.push(f)
	}
}

func (r *Runtime) succeeded(f *flight, n int, flags uint32) {
	switch f.op.Code {
	case runtime.OpAccept, runtime.OpAcceptMany:
		r.accepted(f, n, flags)
	case runtime.OpConnect:
		if r.closing {
			r.end(f, 0, 0, runtime.ErrCanceled) // end closes the socket
			return
		}
		r.end(f, 0, r.open(int(f.fd)), nil)
	case runtime.OpOpen:
		if r.closing {
			closeAll(n)
			r.end(f, 0, 0, runtime.ErrCanceled)
			return
		}
		r.end(f, 0, r.open(n), nil)
	case runtime.OpPoll:
		r.end(f, pollReady(f.op.Flags, pollMask(uint32(n))), 0, nil)
	default:
		r.end(f, n, 0, nil)
	}
}

// accepted delivers a connection. It closes the connection instead if the listener
// or the runtime is being closed. After a mere Cancel it delivers the connection,
// because the accept won the race.
func (r *Runtime) accepted(f *flight, fd int, flags uint32) {
	unwanted := r.closing || f.conn.closer != nil
	if unwanted {
		closeAll(fd)
	}
	if f.op.Code == runtime.OpAccept {
		if unwanted {
			r.end(f, 0, 0, runtime.ErrCanceled)
		} else {
			r.end(f, 0, r.open(fd), nil)
		}
		return
	}
	if !unwanted {
		r.delivered++
		f.op.Deliver(nil, r.open(fd))
	}
	if flags&cqeMore == 0 {
		r.again(f)
	}
}

// again resubmits f, unless it was cancelled.
func (r *Runtime) again(f *flight) {
	if f.canceled {
		r.end(f, 0, 0, runtime.ErrCanceled)
		return
	}
	r.push(f)
}

// failed ends f with an error, or retries it if the error is transient.
func (r *Runtime) failed(f *flight, errno syscall.Errno) {
	code := f.op.Code
	switch {
	case errno == unix.ECANCELED && code == runtime.OpRecvMany && !f.canceled:
		r.recvAgain(f) // see lookForEnd
	case errno == unix.ECANCELED:
		r.end(f, 0, 0, runtime.ErrCanceled)
	case errno == unix.EINTR && code == runtime.OpClose:
		r.end(f, 0, 0, nil) // the descriptor is closed even so: close(2)
	case errno == unix.EINTR,
		errno == unix.ECONNABORTED && (code == runtime.OpAccept || code == runtime.OpAcceptMany):
		r.again(f)
	case errno == unix.EAGAIN && code != runtime.OpConnect:
		r.wouldBlock(f)
	default:
		r.end(f, 0, 0, errno)
	}
}

// wouldBlock handles EAGAIN. Non-blocking descriptors, which were adopted, return
// it, and so do sends: the first attempt is non-blocking, so that the runtime
// learns that the peer does not read. From then on neither this send nor those
// behind it may hold one of the few receive buffers.
func (r *Runtime) wouldBlock(f *flight) {
	switch f.op.Code {
	case runtime.OpSend, runtime.OpSendVec:
		if f.nowait {
			f.nowait, f.blocked = false, true
			r.vacate(f.op)
			for next := range f.conn.lines[lineSend].waiting.All() {
				r.vacate(next.op)
			}
			break
		}
		f.poll = true
	case runtime.OpAccept, runtime.OpAcceptMany, runtime.OpRecv, runtime.OpRecvMany:
		f.poll = true
	default:
		f.async = true
	}
	r.again(f)
}

// vacate moves the data of op, if it is a send, out of the receive buffers.
func (r *Runtime) vacate(op *runtime.Op) {
	if op.Code == runtime.OpSend {
		r.buffers.set.Vacate(op.Buf)
	}
	for _, b := range op.Bufs {
		r.buffers.set.Vacate(b)
	}
}
