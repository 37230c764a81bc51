package broken

import (
	"errors"
	"io"
	"syscall"

	"github.com/noria-go/noria/runtime"
)

func operationFaults() []Fault {
	return []Fault{
		onSubmit("calls Done inside Submit", "rule01/submit-never-completes", func(s *shim, op *runtime.Op) bool {
			if op.Code != runtime.OpShutdown {
				return false
			}
			_ = op.Begin()
			op.Complete(0, 0, nil)
			return true
		}),
		onSubmit("panics at bad arguments", "rule01/what-is-wrong-becomes-the-result", func(_ *shim, op *runtime.Op) bool {
			if err := op.Friend(key).Check(); err != nil {
				panic(err)
			}
			return false
		}),
		hooked("calls Done twice", "rule01/one-terminal-completion", func(s *shim) {
			s.done = func(op *runtime.Op) bool {
				if op.Code == runtime.OpRecv && op.Err == nil {
					op.Done(op)
				}
				return true
			}
		}),
		onDone("keeps the buffer of what was cancelled", "rule01/buffer-is-lent-and-comes-back", func(_ *shim, op *runtime.Op) bool {
			if errors.Is(op.Err, runtime.ErrCanceled) && op.Buf != nil {
				op.Buf.Release()
				op.Buf = nil
			}
			return true
		}),
		onSubmit("loses what is submitted from Done", "rule01/op-is-reused-from-done", func(s *shim, op *runtime.Op) bool {
			if s.inDone > 0 && s.every(100) {
				_ = op.Begin()
				return true
			}
			return false
		}),
		hooked("cancels whatever is on the handle", "rule01/cancel-of-what-is-not-in-flight", func(s *shim) {
			s.cancel = func(op *runtime.Op) bool {
				for o := range s.owners {
					if o.Handle == op.Handle {
						s.Runtime.Cancel(o)
					}
				}
				return true
			}
		}),
		onDone("completes once more after a cancel", "rule01/cancel-ends-once", func(s *shim, op *runtime.Op) bool {
			if s.canceled[op] && op.Code == runtime.OpAccept {
				op.Done(op)
			}
			return true
		}),
		hooked("uses memory after it has gone", "rule09/garbage-collector", useAfter),
		onDone("gives bare error numbers", "rule10/errors", func(_ *shim, op *runtime.Op) bool {
			var errno syscall.Errno
			if errors.As(op.Err, &errno) {
				op.Err = errno
			}
			return true
		}),
		onDone("wraps io.EOF", "rule10/errors", func(_ *shim, op *runtime.Op) bool {
			if op.Err == io.EOF {
				fail(op, io.EOF)
			}
			return true
		}),
		onSubmit("writes to the wrong place", "files/write-read-sync", func(_ *shim, op *runtime.Op) bool {
			if op.Code == runtime.OpWriteAt {
				op.Off++
			}
			return false
		}),
		onDone("does not read all of a file", "files/many-at-once", func(s *shim, op *runtime.Op) bool {
			if op.Code == runtime.OpReadAt && op.Err == nil && s.every(50) {
				fail(op, syscall.EIO)
			}
			return true
		}),
		hooked("leaves a file open that a cancelled open had opened", "files/cancel", dropCancelled(runtime.OpOpen)),
	}
}

// useAfter sends from memory that has another owner by the time that the kernel reads
// it, like a stack frame. Some backends try a send in Submit already, so the bytes are
// overwritten before that.
func useAfter(s *shim) {
	s.submit = func(op *runtime.Op) bool {
		if op.Code != runtime.OpSendVec {
			return false
		}
		inner := &runtime.Op{Code: op.Code, Handle: op.Handle, Skip: op.Skip}
		var frames [][]byte
		for _, b := range op.Bufs {
			frame := append([]byte(nil), b.Bytes()...)
			frames = append(frames, frame)
			inner.Bufs = append(inner.Bufs, runtime.NewShared(frame))
		}
		_ = op.Begin()
		inner.Done = func(*runtime.Op) { op.Complete(inner.N, 0, inner.Err) }
		for _, f := range frames {
			clear(f)
		}
		s.Runtime.Submit(inner)
		return true
	}
}

// dropCancelled lets cancelled operations run, reports that they were cancelled, and
// forgets the handle that they made.
func dropCancelled(code runtime.OpCode) func(s *shim) {
	return func(s *shim) {
		s.cancel = func(op *runtime.Op) bool { return op.Code == code }
		s.done = func(op *runtime.Op) bool {
			if op.Code == code && op.Got != 0 && s.canceled[op] {
				fail(op, runtime.ErrCanceled)
			}
			return true
		}
	}
}
