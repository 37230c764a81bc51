//go:build !386 && !arm && !mips && !mipsle

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

// buffers are the receive buffers. A free buffer is in the ring, where the kernel
// gives it to any receive, or in idle, for the receives that are parked.
type buffers struct {
	set   *hot.Set
	ring  *bufRing // nil without the feature
	mem   []byte   // memory of the ring
	shown int      // buffers in the ring, as far as the handled completions tell: the kernel may have taken some of them
	idle  []uint32 // the one used last, and thus cached, is reused first

	tried bool // a parked receive may be taking its buffer from the ring: see unpark
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
	b.idle = make([]uint32, 0, b.set.Count())
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

// recycle makes buffer i available: to the parked receives if there are any, and
// otherwise to all.
func (r *Runtime) recycle(i uint32) {
	b := &r.buffers
	if b.ring == nil || b.tried || r.parked.Len() > 0 {
		b.idle = append(b.idle, i)
		return
	}
	b.show(i)
}

// show puts buffer i into the ring.
func (b *buffers) show(i uint32) {
	b.ring.add(i, b.set.Target(i))
	b.shown++
}

// putBuffer recycles the buffer that f holds.
func (r *Runtime) putBuffer(f *flight) {
	if f.buf >= 0 {
		r.recycle(uint32(f.buf))
		f.buf = -1
	}
}

// armRecv begins or continues an OpRecvMany. While the ring has no buffers, or
// receives are parked, it only asks for readiness: a receive that meets the empty ring
// fails at once, even if there are no bytes.
func (r *Runtime) armRecv(f *flight) {
	f.poll = r.buffers.shown == 0 || r.parked.Len() > 0
	r.push(f)
}

// unpark continues parked receives, in order, as many as there are free buffers. Each
// gets one buffer, however much its peer has sent. Every parked receive has bytes, or
// its end, so it takes the buffer at once. When none is left, the free buffers go to
// the ring.
//
// If none is idle, some may be in the ring, and parked receives take theirs from it.
// How many there are is known when all completions are handled; until then Poll does
// not sleep. On kernels that run completion work at any time, armed receives can
// still be faster. Then the parked receive returns to its place, and tried has kept
// for it the buffers that came back meanwhile.
func (r *Runtime) unpark() {
	b := &r.buffers
	if r.parked.Len() == 0 && len(b.idle) == 0 && !b.tried {
		return
	}
	for len(b.idle) > 0 && r.parked.Len() > 0 {
		f, last := r.parked.pop(), len(b.idle)-1
		f.buf = int32(b.idle[last])
		b.idle = b.idle[:last]
		r.push(f)
	}
	if (b.tried || r.parked.Len() > 0) && !r.ready() {
		b.tried = false
		for n := b.shown; n > 0 && r.parked.Len() > 0; n-- {
			f := r.parked.pop()
			f.once, b.tried = true, true
			r.push(f)
		}
	}
	if b.ring != nil && !b.tried && r.parked.Len() == 0 {
		for _, i := range b.idle {
			b.show(i)
		}
		b.idle = b.idle[:0]
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
	if r.multiRecv && !f.once {
		sqe.IoPrio = recvMultishot
		f.fresh = true
	}
}

// received handles a completion of OpRecvMany.
func (r *Runtime) received(f *flight, res int32, flags uint32) {
	buf, once := f.buf, f.once
	f.buf, f.once = -1, false
	if once {
		r.buffers.tried = false
	}
	if flags&cqeBuffer != 0 { // on failure too: the kernel has given the buffer back
		buf = int32(flags >> cqeBufferShift)
		r.buffers.shown--
	}
	if res > 0 && buf >= 0 {
		b, kept := r.buffers.set.Deliver(uint32(buf), int(res))
		if !kept {
			r.recycle(uint32(buf))
		}
		r.delivered++
		f.op.Deliver(b, 0)
		switch {
		case flags&cqeMore == 0:
			r.recvAgain(f)
		case f.fresh:
			r.lookForEnd(f)
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
	case errno == unix.ENOBUFS && once && !f.canceled:
		r.parked.pushFront(f, phaseParked)
	case errno == unix.ENOBUFS && !f.canceled:
		f.poll = true // whether there are bytes is not known
		r.push(f)
	case errno == unix.EINTR || errno == unix.ENOBUFS:
		r.recvAgain(f)
	default:
		r.failed(f, errno)
	}
}

// lookForEnd is called after the first delivery of a multishot receive. If the stream
// has ended already, it cancels the receive, which is then armed again and meets the
// end.
//
// The kernel forgets the end of a stream in one case. A multishot receive first tries
// the socket and then arms a poll. If bytes and a reset (or, on a Unix socket, the end)
// arrive between the two, they are one event: the receive delivers the bytes and waits
// for the next event, which never comes. This happens to one of some 10,000 connections
// whose peer connects, sends and resets at once. A similar fault, where two events
// arrive before the first is handled, was mended in Linux 7.0 and in stable kernels
// (a68ed2df7213, CVE-2026-23473).
func (r *Runtime) lookForEnd(f *flight) {
	f.fresh = false
	if f.canceled {
		return
	}
	fds := []unix.PollFd{{Fd: f.fd, Events: unix.POLLRDHUP}}
	if n, _ := unix.Poll(fds, 0); n > 0 {
		r.sendCancel(f.userData())
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
