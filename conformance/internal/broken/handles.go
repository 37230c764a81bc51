package broken

import (
	"errors"

	"github.com/noria-go/noria/runtime"
)

func handleFaults() []Fault {
	return []Fault{
		hooked("looks at the slot of a handle only", "rule04/stale-handle", func(s *shim) {
			latest := map[uint32]runtime.Handle{}
			s.done = func(op *runtime.Op) bool {
				if op.Got != 0 {
					latest[op.Got.Slot()] = op.Got
				}
				return true
			}
			s.submit = func(op *runtime.Op) bool {
				if h, ok := latest[op.Handle.Slot()]; ok && op.Handle != 0 {
					op.Handle = h
				}
				return false
			}
		}),
		onSubmit("closes first and cancels then", "rule04/close-joins", func(s *shim, op *runtime.Op) bool {
			if op.Code != runtime.OpClose {
				return false
			}
			h := op.Handle
			op.Begin()
			s.after(func() {
				op.Complete(0, 0, nil)
				s.Runtime.Submit(&runtime.Op{Code: runtime.OpClose, Handle: h, Done: func(*runtime.Op) {}})
			})
			return true
		}),
		onDone("forgets the sends of what is closed", "rule04/close-with-everything-pending", func(_ *shim, op *runtime.Op) bool {
			if op.Code == runtime.OpSend && errors.Is(op.Err, runtime.ErrCanceled) {
				op.Begin() // marks it as in flight and never completes it
				return false
			}
			return true
		}),
		onDone("has nothing against a closed handle", "rule04/closed-is-refused", func(_ *shim, op *runtime.Op) bool {
			if errors.Is(op.Err, runtime.ErrClosed) {
				op.Err = nil
			}
			return true
		}),
		hooked("drops connections that came while the listener was closed", "rule04/unwanted-descriptors", func(s *shim) {
			// After OpClose it accepts one more connection and delivers it to no
			// caller.
			accept := func(h runtime.Handle) {
				s.Runtime.Submit(&runtime.Op{Code: runtime.OpAccept, Handle: h, Done: func(*runtime.Op) {}})
				_ = s.Runtime.Poll(0)
				_ = s.Runtime.Poll(0)
			}
			s.submit = func(op *runtime.Op) bool {
				if op.Code == runtime.OpClose {
					for o := range s.owners {
						if o.Handle == op.Handle {
							s.Runtime.Cancel(o)
						}
					}
					accept(op.Handle)
				}
				return false
			}
		}),
		hooked("drops a connection that a cancelled accept had", "rule04/accept-races-cancel", dropCancelled(runtime.OpAccept)),
		hooked("drops a connection that a cancelled connect had", "rule04/connect-races-cancel", dropCancelled(runtime.OpConnect)),
	}
}
