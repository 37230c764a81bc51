package uring

import (
	"fmt"
	"syscall"

	"github.com/godzie44/go-uring/uring"
	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/runtime/internal/hot"
)

const recvGroup = 1 // group of the provided buffers

// buffers are the receive buffers. The kernel gets them through a ring or, without
// one, each for a single receive once the socket is readable.
type buffers struct {
	set  *hot.Set
	ring *bufRing // nil without the feature
	mem  []byte   // memory of the ring
	free int      // number of buffers that neither a receiver nor a receive holds

	idle []uint32 // the free buffers, without a ring; the one used last, and thus cached, is reused first
}

func (r *Runtime) openBuffers() error {
	b := &r.buffers
	var err error
	if b.set, err = hot.New(r.pool, r.opts.Buffers, r.opts.BufferSize, r.recycle); err != nil {
		return err
	}
	if r.can.has(FeatureBufferRing) {
		if err := r.openBufRing(); err != nil {
			r.lose(FeatureBufferRing, err.Error())
		}
	}
	r.multiRecv = b.ring != nil && r.can.has(FeatureMultishotRecv)
	r.multiAccept = r.can.has(FeatureMultishotAccept)
	if b.ring == nil {
		b.idle = make([]uint32, 0, b.set.Count())
	}
	for i := range b.set.Count() {
		r.recycle(uint32(i))
	}
	return nil
}

func (r *Runtime) openBufRing() error {
	b := &r.buffers
	page := syscall.Getpagesize()
	size := (bufRingSize(b.set.Count()) + page - 1) / page * page
	mem, err := r.pool.Map(size)
	if err != nil {
		return err
	}
	ring, err := newBufRing(r.ring.fd, recvGroup, mem, b.set.Count())
	if err != nil {
		_ = r.pool.Unmap(mem)
		return fmt.Errorf("io_uring_register refuses it: %w", err)
	}
	b.ring, b.mem, r.ring.provided = ring, mem, ring
	return nil
}

// closeBuffers must be called when nothing is in flight.
func (r *Runtime) closeBuffers() error {
	b := &r.buffers
	if b.ring != nil {
		r.ring.provided = nil
		err := b.ring.unregister()
		if err != nil {
			return err // the kernel still uses the memory: a leak is better than a stray write
		}
		if err := r.pool.Unmap(b.mem); err != nil {
			return err
		}
		b.ring, b.mem = nil, nil
	}
	if b.set == nil {
		return nil
	}
	return b.set.Close()
}

// recycle makes buffer i available to a receive.
func (r *Runtime) recycle(i uint32) {
	b := &r.buffers
	b.free++
	if b.ring != nil {
		b.ring.add(i, b.set.Target(i))
	} else {
		b.idle = append(b.idle, i)
	}
}

// putBuffer recycles the buffer that f holds.
func (r *Runtime) putBuffer(f *flight) {
	if f.buf >= 0 {
		r.recycle(uint32(f.buf))
		f.buf = -1
	}
}

// armRecv begins or continues an OpRecvMany.
func (r *Runtime) armRecv(f *flight) {
	f.poll = r.buffers.ring == nil
	r.push(f)
}

// recvReady submits a receive. Without a ring the socket is readable now, and the
// receive gets a buffer of its own or is parked.
func (r *Runtime) recvReady(f *flight) {
	b := &r.buffers
	if b.ring == nil {
		if len(b.idle) == 0 {
			r.parked.push(f, phaseParked)
			return
		}
		last := len(b.idle) - 1
		f.buf = int32(b.idle[last])
		b.idle = b.idle[:last]
		b.free--
	}
	r.push(f)
}

// unpark continues parked receives, as many as there are free buffers.
func (r *Runtime) unpark() {
	for n := r.buffers.free; n > 0 && r.parked.Len() > 0; n-- {
		r.recvReady(r.parked.pop())
	}
}

func (r *Runtime) fillRecv(f *flight, sqe *uring.SQEntry) {
	sqe.OpCode = opRecv
	if f.buf >= 0 {
		sqe.Addr, sqe.Len = bytesAt(r.buffers.set.Target(uint32(f.buf)))
		sqe.OpcodeFlags = unix.MSG_DONTWAIT // a receive that waits would hold the buffer
		return
	}
	sqe.Flags |= sqeBufferSelect
	sqe.BufIG = recvGroup
	if r.multiRecv {
		sqe.IoPrio = recvMultishot
	}
}

// received handles a completion of OpRecvMany.
func (r *Runtime) received(f *flight, res int32, flags uint32) {
	buf := f.buf
	f.buf = -1
	if flags&cqeBuffer != 0 { // on failure too: the kernel has given the buffer back
		buf = int32(flags >> cqeBufferShift)
		r.buffers.free--
	}
	if res > 0 && buf >= 0 {
		b, kept := r.buffers.set.Deliver(uint32(buf), int(res))
		if !kept {
			r.recycle(uint32(buf))
		}
		r.delivered++
		f.op.Deliver(b, 0)
		if flags&cqeMore == 0 {
			r.recvAgain(f)
		}
		return
	}
	if buf >= 0 {
		r.recycle(uint32(buf))
	}
	if flags&cqeMore != 0 {
		return
	}
	switch errno := syscall.Errno(-res); {
	case errno == 0:
		r.end(f, 0, 0, nil)
	case errno == unix.ENOBUFS && !f.canceled:
		r.parked.push(f, phaseParked)
	case errno == unix.EINTR || errno == unix.ENOBUFS:
		r.recvAgain(f)
	default:
		r.failed(f, errno)
	}
}

// recvAgain continues an OpRecvMany whose receive was not meant to be the last.
func (r *Runtime) recvAgain(f *flight) {
	if f.canceled {
		r.end(f, 0, 0, runtime.ErrCanceled)
		return
	}
	r.armRecv(f)
}
