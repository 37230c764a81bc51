package broken

import (
	"errors"
	"io"
	"syscall"

	"github.com/noria-go/noria/runtime"
)

func streamFaults() []Fault {
	return []Fault{
		onDone("ends a stream without io.EOF", "rule03/eof", func(_ *shim, op *runtime.Op) bool {
			if op.Err == io.EOF {
				op.Err = nil
			}
			return true
		}),
		hooked("drops bytes that raced a cancel", "rule03/data-wins-over-cancel", dropBytes),
		hooked("serves the busiest first", "rule05/one-busy-connection", starve),
		hooked("delivers until nothing is left", "rule05/budget", func(s *shim) {
			told := 0
			s.done = func(*runtime.Op) bool { told++; return true }
			s.poll = func(deadline int64) error {
				for {
					before := told
					if err := s.Runtime.Poll(deadline); err != nil || told == before {
						return err
					}
					deadline = 0
				}
			}
		}),
		onDone("names the wrong error for a broken pipe", "rule07/no-sigpipe", func(_ *shim, op *runtime.Op) bool {
			if errors.Is(op.Err, syscall.EPIPE) {
				fail(op, syscall.EAGAIN)
			}
			return true
		}),
		hooked("sends in pairs, the second first", "rule08/sends-in-order", swap(runtime.OpSend)),
		hooked("receives in pairs, the second first", "rule08/receives-in-order", swap(runtime.OpRecv)),
		onDone("counts a byte too many of a short send", "rule08/partial-sends", func(_ *shim, op *runtime.Op) bool {
			if op.Code == runtime.OpSend && op.Err == nil && op.N < op.Buf.Len()-op.Skip {
				op.N++
			}
			return true
		}),
		onSubmit("forgets Skip", "rule08/vectored-sends", func(_ *shim, op *runtime.Op) bool {
			op.Skip = 0
			return false
		}),
		onDone("hangs up when the peer has sent all", "stream/half-close-both-ways", func(s *shim, op *runtime.Op) bool {
			if op.Err == io.EOF {
				s.Runtime.Submit(&runtime.Op{Code: runtime.OpShutdown, Flags: runtime.DirWrite, Handle: op.Handle, Done: func(*runtime.Op) {}})
			}
			return true
		}),
		onDone("complains that the peer is gone already", "stream/shutdown-of-what-has-gone", func(_ *shim, op *runtime.Op) bool {
			if op.Code == runtime.OpShutdown {
				fail(op, syscall.ENOTCONN)
			}
			return true
		}),
		hooked("shuts down before it has sent", "stream/shutdown-follows-the-sends", swap(runtime.OpSend)),
		onDone("takes a reset for an end", "stream/reset-after-data", func(_ *shim, op *runtime.Op) bool {
			if errors.Is(op.Err, syscall.ECONNRESET) {
				op.Err = io.EOF
			}
			return true
		}),
		onDone("spoils a byte", "stream/checksums", func(s *shim, op *runtime.Op) bool {
			if op.More && op.Buf != nil && s.every(20) {
				op.Buf.Bytes()[0] ^= 1
			}
			return true
		}),
	}
}

// dropBytes lets a cancelled operation run until bytes arrive, and drops them.
func dropBytes(s *shim) {
	s.cancel = func(op *runtime.Op) bool { return true }
	s.done = func(op *runtime.Op) bool {
		switch {
		case !s.canceled[op] || op.N == 0:
			return true
		case op.More:
			op.Buf.Release()
			s.Runtime.Cancel(op)
			return false
		}
		op.Buf.Reset(0)
		fail(op, runtime.ErrCanceled)
		return true
	}
}

// swap holds one operation back until the next one, of any kind, or until Poll.
func swap(code runtime.OpCode) func(s *shim) {
	return func(s *shim) {
		var held *runtime.Op
		s.submit = func(op *runtime.Op) bool {
			switch {
			case held != nil:
				first := held
				held = nil
				s.pass(op)
				s.release(first)
				return true
			case op.Code == code && op.Friend(key).Check() == nil:
				held = op
				op.Begin()
				return true
			}
			return false
		}
		s.poll = func(deadline int64) error {
			if held != nil {
				s.release(held)
				held = nil
			}
			return s.Runtime.Poll(deadline)
		}
	}
}

// release submits the operation that was held back. To its owner it is in flight
// already, so release uses another Op.
func (s *shim) release(op *runtime.Op) {
	inner := &runtime.Op{Code: op.Code, Handle: op.Handle, Skip: op.Skip}
	var own *runtime.Buffer
	if op.Code == runtime.OpRecv {
		own, _ = s.pool.Get(len(op.Target()))
		own.Reset(own.Friend(key).Cap() - len(op.Target()))
	} else {
		own = runtime.NewShared(op.Unsent(0))
		inner.Skip = 0
	}
	inner.Buf = own
	inner.Done = func(*runtime.Op) {
		if inner.N > 0 && op.Code == runtime.OpRecv {
			copy(op.Target(), own.Bytes())
		}
		own.Release()
		op.Complete(inner.N, 0, inner.Err)
	}
	s.Runtime.Submit(inner)
}

// starve holds back what arrives for all connections but the first until the first has
// had its fill.
func starve(s *shim) {
	var busy *runtime.Op
	type piece struct {
		op  *runtime.Op
		buf *runtime.Buffer
	}
	var held []piece
	s.done = func(op *runtime.Op) bool {
		if op.Code != runtime.OpRecvMany || !op.More {
			return true
		}
		if busy == nil {
			busy = op
		}
		if op != busy {
			held = append(held, piece{op, op.Buf})
			return false
		}
		if s.every(6000) {
			for _, p := range held {
				p.op.Buf, p.op.N, p.op.More = p.buf, p.buf.Len(), true
				s.owners[p.op](p.op)
				p.op.Buf = nil
			}
			held = nil
		}
		return true
	}
}
