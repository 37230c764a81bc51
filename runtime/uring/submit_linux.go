//go:build !386 && !arm && !mips && !mipsle

package uring

import (
	"unsafe"

	"github.com/godzie44/go-uring/uring"
	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/runtime/internal/sys"
)

// Submit takes op. It never waits: an op that is refused gets its result from the
// next Poll, like any other.
func (r *Runtime) Submit(op *runtime.Op) {
	invalid := op.Begin()
	f := r.table.take(op)
	op.Sys.Slot = f.slot
	if err := r.admit(f, invalid); err != nil {
		r.finish(f, 0, 0, err)
		return
	}
	switch op.Code {
	case runtime.OpNop:
		r.finish(f, 0, 0, nil)
	case runtime.OpClose:
		r.closeConn(f)
	case runtime.OpConnect:
		r.connect(f)
	case runtime.OpOpen:
		r.openFile(f)
	default:
		r.enqueue(f)
	}
}

// admit attaches the flight to its handle, or returns the error with which the op
// ends.
func (r *Runtime) admit(f *flight, invalid error) error {
	if r.closing {
		return runtime.ErrClosed
	}
	if invalid != nil {
		return invalid
	}
	switch f.op.Code {
	case runtime.OpNop, runtime.OpConnect, runtime.OpOpen:
		return nil
	}
	c := r.conn(f.op.Handle)
	if c == nil {
		return runtime.ErrClosed
	}
	if f.op.Code == runtime.OpClose {
		f.fd, c.closer = c.fd, f
	} else {
		c.add(f)
	}
	return nil
}

// enqueue starts f, or lets it wait for the active operation of its direction.
func (r *Runtime) enqueue(f *flight) {
	if i := lineOf(f.op); i != noLine {
		l := &f.conn.lines[i]
		if l.active != nil {
			l.waiting.push(f, phaseWaiting)
			if l.active.blocked {
				r.vacate(f.op)
			}
			return
		}
		l.active = f
	}
	r.start(f)
}

// start begins an operation that is the active one of its direction.
func (r *Runtime) start(f *flight) {
	switch f.op.Code {
	case runtime.OpShutdown:
		r.shutdown(f)
	case runtime.OpRecvMany:
		r.armRecv(f)
	case runtime.OpSend, runtime.OpSendVec:
		f.nowait = true
		r.push(f)
	default:
		r.push(f)
	}
}

// shutdown calls shutdown(2) at once, because it does not block and io_uring would
// run it on a worker thread.
func (r *Runtime) shutdown(f *flight) {
	r.finish(f, 0, 0, sys.Shutdown(int(f.fd), f.op.Flags))
}

// connect makes the socket. It is a blocking socket: on a non-blocking one io_uring
// answers EAGAIN instead of waiting. No call here ever blocks on it.
func (r *Runtime) connect(f *flight) {
	m := r.table.takeMem(f)
	err := m.addr.Set(f.op.Addr)
	if err == nil {
		var fd int
		if fd, err = sys.Socket(f.op.Addr, false); err == nil {
			f.fd = int32(fd)
			r.push(f)
			return
		}
	}
	r.finish(f, 0, 0, err)
}

func (r *Runtime) openFile(f *flight) {
	path, err := unix.ByteSliceFromString(f.op.Path)
	if err != nil {
		r.finish(f, 0, 0, err)
		return
	}
	r.table.takeMem(f).path = path
	r.push(f)
}

// push adds f to the next enter. If the submission queue is full and cannot be
// flushed, f joins the end of the backlog. The order is kept, because a
// cancellation must not overtake its target.
func (r *Runtime) push(f *flight) {
	if r.backlog.Len() == 0 {
		if sqe := r.sqe(); sqe != nil {
			r.fill(f, sqe)
			return
		}
	}
	r.backlog.push(f, phaseBacklog)
}

// drainBacklog submits the backlog as far as the submission queue has room.
func (r *Runtime) drainBacklog() {
	for r.backlog.Len() > 0 {
		sqe := r.sqe()
		if sqe == nil {
			return
		}
		r.fill(r.backlog.pop(), sqe)
	}
}

// sqe returns a free submission entry. If there is none, it flushes the queue
// first. It returns nil if the kernel takes no entries now.
func (r *Runtime) sqe() *uring.SQEntry {
	sqe := r.ring.next()
	if sqe == nil {
		_ = r.ring.submit() // Poll reports a permanent error
		sqe = r.ring.next()
	}
	return sqe
}

func addressOf[T any](p *T) uint64 { return uint64(uintptr(unsafe.Pointer(p))) }

func bytesAt(p []byte) (addr uint64, n uint32) {
	return addressOf(unsafe.SliceData(p)), uint32(len(p))
}

// fill writes the submission entry of f.
func (r *Runtime) fill(f *flight, sqe *uring.SQEntry) {
	f.phase = phaseKernel
	sqe.Fd, sqe.UserData = f.fd, f.userData()
	if f.async {
		sqe.Flags = sqeAsync
	}
	op := f.op
	switch {
	case op == nil:
		sqe.OpCode, sqe.Fd, sqe.Addr = opAsyncCancel, -1, f.target
		if f.target == 0 {
			sqe.OpcodeFlags = cancelAll | cancelAny
		}
		return
	case f.poll:
		sqe.OpCode, sqe.OpcodeFlags = opPollAdd, pollMask(unix.POLLIN)
		if lineOf(op) == lineSend {
			sqe.OpcodeFlags = pollMask(unix.POLLOUT)
		}
		return
	}
	switch op.Code {
	case runtime.OpAccept:
		sqe.OpCode, sqe.OpcodeFlags = opAccept, unix.SOCK_CLOEXEC
	case runtime.OpAcceptMany:
		sqe.OpCode, sqe.OpcodeFlags = opAccept, unix.SOCK_CLOEXEC
		if r.multiAccept {
			sqe.IoPrio = acceptMultishot
		}
	case runtime.OpConnect:
		sqe.OpCode, sqe.Addr, sqe.Off = opConnect, addressOf(&f.mem.addr.Any), uint64(f.mem.addr.Len)
	case runtime.OpRecv:
		sqe.OpCode = opRecv
		sqe.Addr, sqe.Len = bytesAt(op.Target())
	case runtime.OpRecvMany:
		r.fillRecv(f, sqe)
	case runtime.OpSend, runtime.OpSendVec:
		r.fillSend(f, sqe)
	case runtime.OpPoll:
		sqe.OpCode, sqe.OpcodeFlags = opPollAdd, pollMask(pollEvents(op.Flags))
	default:
		fillFile(f, sqe)
	}
}

func fillFile(f *flight, sqe *uring.SQEntry) {
	op := f.op
	switch op.Code {
	case runtime.OpClose:
		sqe.OpCode = opClose
	case runtime.OpOpen:
		sqe.OpCode, sqe.Fd = opOpenat, unix.AT_FDCWD
		sqe.Addr, sqe.Len, sqe.OpcodeFlags = addressOf(&f.mem.path[0]), op.Mode, uint32(op.Flags)|unix.O_CLOEXEC
	case runtime.OpReadAt:
		sqe.OpCode, sqe.Off = opRead, uint64(op.Off)
		sqe.Addr, sqe.Len = bytesAt(op.Target())
	case runtime.OpWriteAt:
		sqe.OpCode, sqe.Off = opWrite, uint64(op.Off)
		sqe.Addr, sqe.Len = bytesAt(op.Unsent(0))
	case runtime.OpFsync:
		sqe.OpCode = opFsync
	case runtime.OpFdatasync:
		sqe.OpCode, sqe.OpcodeFlags = opFsync, fsyncDatasync
	case runtime.OpAllocate:
		sqe.OpCode, sqe.Off, sqe.Addr = opFallocate, uint64(op.Off), uint64(op.Len) // addr is the length
	}
}

// fillSend writes the entry of a send. Several buffers are one message, whose
// msghdr and iovecs the kernel reads when it takes the entry. They stay allocated
// until the end.
func (r *Runtime) fillSend(f *flight, sqe *uring.SQEntry) {
	op := f.op
	sqe.OpcodeFlags = unix.MSG_NOSIGNAL
	if f.nowait {
		sqe.OpcodeFlags |= unix.MSG_DONTWAIT
	}
	if op.Code == runtime.OpSend {
		sqe.OpCode = opSend
		sqe.Addr, sqe.Len = bytesAt(op.Unsent(0))
		return
	}
	m := r.table.takeMem(f)
	n, left := 0, runtime.MaxBytes
	for i := range op.Bufs {
		p := op.Unsent(i)
		if p = p[:min(len(p), left)]; len(p) > 0 {
			m.iov[n].Base = &p[0]
			m.iov[n].SetLen(len(p))
			n++
			left -= len(p)
		}
	}
	m.msg = unix.Msghdr{Iov: &m.iov[0]}
	m.msg.SetIovlen(n)
	sqe.OpCode, sqe.Addr, sqe.Len = opSendmsg, addressOf(&m.msg), 1
}
