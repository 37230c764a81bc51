//go:build !386 && !arm && !mips && !mipsle

package uring

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
)

// Cancel requests that op end soon. It never waits.
func (r *Runtime) Cancel(op *runtime.Op) {
	if !op.InFlight() {
		return
	}
	if f := r.table.at(op.Sys.Slot); f != nil && f.op == op {
		r.cancel(f)
	}
}

// cancel ends f if the kernel does not have it, and otherwise submits a
// cancellation. A close cannot be cancelled.
func (r *Runtime) cancel(f *flight) {
	if f.canceled || f.op.Code == runtime.OpClose {
		return
	}
	f.canceled = true
	switch f.phase {
	case phaseWaiting, phaseBacklog, phaseParked:
		f.leaveQueue()
		r.finish(f, 0, 0, runtime.ErrCanceled)
	case phaseKernel:
		r.sendCancel(f.userData())
	}
}

// sendCancel submits a cancellation of the flight with this user_data, or of
// everything if it is 0. It takes the same path as all operations, so it stays
// behind its target.
func (r *Runtime) sendCancel(target uint64) {
	f := r.table.take(nil)
	f.target = target
	r.push(f)
}

// maxCancels bounds how often a cancellation is repeated for a target that the
// kernel does not find.
const maxCancels = 16

// canceled handles the result of a cancellation. ENOENT for a target that is still
// in flight means that the kernel was between the target's poll and its retry. The
// cancellation is then repeated, or the target could wait for ever. (EALREADY means
// that a worker runs the target: it was interrupted and will complete.)
func (r *Runtime) canceled(f *flight, errno syscall.Errno) {
	target := r.table.get(f.target)
	if errno == unix.ENOENT && f.target != 0 && target != nil && target.phase == phaseKernel && f.tries < maxCancels {
		f.tries++
		r.push(f)
		return
	}
	r.table.drop(f)
}

// closeConn begins to close a handle: it cancels every operation on it, and the
// descriptor is closed after the last of them. close(2) alone cancels nothing, and
// the peer sees no end while an operation keeps the socket open.
func (r *Runtime) closeConn(f *flight) {
	slot := r.conns.Get(f.op.Handle)
	c := &slot.Data
	for on := range c.ops.All() {
		r.cancel(on)
	}
	if c.ops.Len() == 0 {
		r.closeNow(c)
	}
}

// closeNow closes the descriptor of a handle that has no operation in flight.
func (r *Runtime) closeNow(c *conn) {
	f := c.closer
	r.conns.Remove(c.handle)
	r.push(f)
}

// Close cancels every operation, waits until all have completed, and only then
// frees the memory that the kernel uses.
func (r *Runtime) Close() error {
	if r.closed || r.closing {
		return &runtime.OpError{Op: "close runtime", Err: runtime.ErrClosed}
	}
	r.closing = true
	var err error
	if r.started {
		err = r.drain()
	}
	for h, slot := range r.conns.All() {
		err = errors.Join(err, unix.Close(slot.FD))
		r.conns.Remove(h)
	}
	if r.ring != nil {
		err = errors.Join(err, r.closeBuffers(), r.ring.close())
	}
	r.closed = true
	return errors.Join(err, r.waker.Close())
}

// drain cancels every operation and waits until all have completed.
func (r *Runtime) drain() error {
	r.waker.Signal() // ends its poll, which is not armed again
	r.removeTimer()
	all := r.can.has(FeatureCancelAll)
	r.cancelFlights(!all)
	if all && r.table.live > 0 {
		r.sendCancel(0)
	}
	for one := !all; r.busy(); {
		r.drainBacklog()
		if r.timer.armed {
			r.removeTimer()
		}
		before := r.table.live
		if err := r.step(false); err != nil {
			return err
		}
		switch {
		case !r.busy() || r.table.live < before || r.ready():
		case !one: // some operations escaped the one cancellation
			one = true
			r.cancelKernel()
		default:
			if err := r.step(true); err != nil {
				return err
			}
		}
	}
	return nil
}

// busy reports whether anything is still in flight.
func (r *Runtime) busy() bool {
	return r.table.live > 0 || r.wakeArmed || r.timer.armed || r.done.Len() > 0
}

// step enters the kernel and delivers all results.
func (r *Runtime) step(wait bool) error {
	errno := r.ring.turn()
	if wait && !r.ready() {
		errno = r.ring.wait(-1)
	}
	if err := r.entered(errno); err != nil {
		return err
	}
	r.delivered = 0
	r.deliver(int(^uint(0) >> 1))
	return nil
}

// cancelFlights cancels every operation that the kernel does not have, and every
// other one too if each is set.
func (r *Runtime) cancelFlights(each bool) {
	for _, page := range r.table.pages {
		for i := range page {
			f := &page[i]
			switch {
			case !f.used || f.op == nil:
			case f.phase == phaseKernel && !each:
				f.canceled = f.op.Code != runtime.OpClose
			default:
				r.cancel(f)
			}
		}
	}
}

// cancelKernel submits a cancellation for every operation that the kernel still
// has.
func (r *Runtime) cancelKernel() {
	for _, page := range r.table.pages {
		for i := range page {
			if f := &page[i]; f.used && f.op != nil && f.phase == phaseKernel && f.canceled {
				r.sendCancel(f.userData())
			}
		}
	}
}
