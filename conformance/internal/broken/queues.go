package broken

import (
	"errors"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/noria-go/noria/runtime"
)

func queueFaults() []Fault {
	return []Fault{
		onSubmit("refuses what its queue has no room for", "rule06/full-submission-queue", func(s *shim, op *runtime.Op) bool {
			if len(s.owners) < 1000 {
				return false
			}
			s.answer(op, 0, syscall.EBUSY)
			return true
		}),
		hooked("loses cancels", "rule06/cancels-in-a-full-queue", func(s *shim) {
			s.cancel = func(*runtime.Op) bool { return s.every(10) }
		}),
		onDone("loses completions", "rule06/completion-flood", func(s *shim, op *runtime.Op) bool {
			if op.More && op.Buf != nil && s.every(200) {
				op.Buf.Release()
				return false
			}
			return true
		}),
		hooked("does not go on with a multishot accept", "rule06/accept-goes-on", func(s *shim) {
			s.done = func(op *runtime.Op) bool {
				if op.Code == runtime.OpAcceptMany && op.More && s.every(50) {
					s.Runtime.Cancel(op)
				}
				return true
			}
		}),
		hooked("lets a stream die when buffers run out", "rule06/out-of-buffers", func(s *shim) {
			starved := map[*runtime.Op]bool{}
			s.done = func(op *runtime.Op) bool {
				if op.Code == runtime.OpRecvMany && op.More && s.every(10) {
					starved[op] = true
					s.Runtime.Cancel(op)
				}
				if !op.More && starved[op] && errors.Is(op.Err, runtime.ErrCanceled) {
					fail(op, syscall.ENOBUFS)
				}
				return true
			}
		}),
		hooked("forgets the buffer of what is cancelled", "rule06/cancel-loses-no-buffer", func(s *shim) {
			lost := 0
			s.done = func(op *runtime.Op) bool {
				if op.Code != runtime.OpRecvMany {
					return true
				}
				if lost >= 4 && op.More { // no buffer is left to receive into
					op.Buf.Release()
					return false
				}
				if errors.Is(op.Err, runtime.ErrCanceled) {
					lost++
				}
				return true
			}
		}),
		hooked("stops receiving while buffers are held", "rule06/holders-do-not-stop-others", noneWhileHeld),
		hooked("stops receiving while senders wait", "rule06/senders-that-wait-do-not-stop-others", noneWhileHeld),
	}
}

// noneWhileHeld drops bytes that arrive while other connections hold memory. (A real
// runtime with this fault would not receive them; the reader sees the same.)
func noneWhileHeld(s *shim) {
	s.done = func(op *runtime.Op) bool {
		if op.Code == runtime.OpRecvMany && op.More && s.pool.Friend(key).Stats().Outstanding > 20 {
			op.Buf.Release()
			return false
		}
		return true
	}
}

func pollFaults() []Fault {
	return []Fault{
		hooked("comes back before the deadline", "poll/deadline", func(s *shim) {
			s.poll = func(int64) error { return s.Runtime.Poll(0) }
		}),
		hooked("does nothing unless it may wait", "poll/without-waiting-delivers", func(s *shim) {
			s.poll = func(deadline int64) error {
				if deadline == 0 {
					return nil
				}
				return s.Runtime.Poll(deadline)
			}
		}),
		onDone("finds everything ready", "poll/once", func(_ *shim, op *runtime.Op) bool {
			if op.Code == runtime.OpPoll {
				op.N = runtime.DirRead | runtime.DirWrite
			}
			return true
		}),
		hooked("shows EINTR", "rule07/eintr", func(s *shim) {
			s.poll = func(deadline int64) error {
				if s.every(100) {
					return syscall.EINTR
				}
				return s.Runtime.Poll(deadline)
			}
		}),
		{Name: "forgets a Wake that came before Poll", Case: "wake/counts-before-poll", Wrap: func(good runtime.Runtime) runtime.Runtime {
			s := newShim(good)
			s.poll = func(deadline int64) error { return good.Poll(min(deadline, good.Now()+int64(time.Second))) }
			return deaf{s}
		}},
		{Name: "loses a Wake now and then", Case: "wake/never-lost", Wrap: func(good runtime.Runtime) runtime.Runtime {
			return &dozy{shim: newShim(good)}
		}},
	}
}

type deaf struct{ *shim }

func (deaf) Wake() {}

type dozy struct {
	*shim
	calls atomic.Int64 // from any goroutine
}

func (d *dozy) Wake() {
	if d.calls.Add(1) != 1000 {
		d.Runtime.Wake()
	}
}
