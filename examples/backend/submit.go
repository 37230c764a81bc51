package backend

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
)

// Submit takes op. It never calls Done: an operation that is refused at once gets its
// result from the next Poll too.
func (r *Runtime) Submit(op *runtime.Op) {
	err := op.Begin()
	r.live++
	c, err := r.admit(op, err)
	if err != nil {
		r.finish(op, 0, err)
		return
	}
	switch op.Code {
	case runtime.OpNop:
		r.finish(op, 0, nil)
	case runtime.OpConnect:
		r.connect(op)
	case runtime.OpOpen, runtime.OpReadAt, runtime.OpWriteAt, runtime.OpFsync, runtime.OpFdatasync, runtime.OpAllocate:
		r.toFiles(c, op)
	case runtime.OpPoll:
		c.polls = append(c.polls, op)
	case runtime.OpClose:
		c.closer = op
		r.cancelAll(c)
		r.closeIfDone(c)
	case runtime.OpShutdown:
		if op.Flags == runtime.DirRead {
			r.shutdown(c, op)
			return
		}
		c.out = append(c.out, op)
		r.runShutdowns(c)
	case runtime.OpSend, runtime.OpSendVec:
		c.out = append(c.out, op)
	default: // OpAccept, OpAcceptMany, OpRecv, OpRecvMany
		c.in = append(c.in, op)
	}
}

// admit returns the state of op's handle, if op has one, unless op is invalid.
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
	return r.usable(op.Handle)
}

// finish gives op its terminal result. op must have left its queue.
func (r *Runtime) finish(op *runtime.Op, n int, err error) {
	r.done = append(r.done, result{op: op, n: n, err: err})
}

// Cancel ends op if it waits in a queue. Otherwise it has a result already, or a
// goroutine has it, and the result stands.
func (r *Runtime) Cancel(op *runtime.Op) {
	if !op.InFlight() {
		return
	}
	h := op.Handle
	if op.Code == runtime.OpConnect {
		h = op.Sys.Got
	}
	c := r.conn(h)
	if c == nil {
		return
	}
	for _, line := range []*[]*runtime.Op{&c.in, &c.out, &c.polls} {
		if i := slices.Index(*line, op); i >= 0 {
			*line = slices.Delete(*line, i, i+1)
			r.canceled(c, op)
			r.runShutdowns(c) // the next operation in the queue may be a shutdown
			return
		}
	}
}

// cancelAll cancels the operations in c's queues.
func (r *Runtime) cancelAll(c *conn) {
	ops := slices.Concat(c.in, c.out, c.polls)
	c.in, c.out, c.polls = nil, nil, nil
	for _, op := range ops {
		r.canceled(c, op)
	}
}

func (r *Runtime) canceled(c *conn, op *runtime.Op) {
	if op.Code == runtime.OpConnect {
		_ = r.closeFD(c) // no caller has its handle
	}
	r.finish(op, 0, runtime.ErrCanceled)
}

// closeIfDone closes c if OpClose was submitted and nothing is in flight on c except
// results that are delivered before OpClose's.
func (r *Runtime) closeIfDone(c *conn) {
	if c.closer != nil && c.files == 0 {
		r.finish(c.closer, 0, r.closeFD(c))
	}
}

// runShutdowns carries out the shutdowns at the head of the queue: they follow the
// sends before them, but need not wait until the socket has room.
func (r *Runtime) runShutdowns(c *conn) {
	for len(c.out) > 0 && c.out[0].Code == runtime.OpShutdown {
		r.shutdown(c, pop(&c.out))
	}
}

func (r *Runtime) shutdown(c *conn, op *runtime.Op) {
	err := unix.Shutdown(c.fd, op.Flags-1) // SHUT_RD, SHUT_WR and SHUT_RDWR are 0, 1 and 2
	if err == unix.ENOTCONN {              // the peer has left already, which is not an error
		err = nil
	}
	r.finish(op, 0, err)
}

func pop(line *[]*runtime.Op) *runtime.Op {
	op := (*line)[0]
	*line = slices.Delete(*line, 0, 1)
	return op
}
