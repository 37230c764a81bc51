package broken

import (
	"github.com/noria-go/noria/runtime"
)

func bufferFaults() []Fault {
	return []Fault{
		onSubmit("holds a buffer for each that waits", "buffers/idle-holds-none", func(s *shim, op *runtime.Op) bool {
			if op.Code != runtime.OpRecvMany {
				return false
			}
			b, err := s.pool.Get(4096)
			if err != nil {
				return false
			}
			s.pass(op)
			owner := s.owners[op]
			s.owners[op] = func(op *runtime.Op) {
				if !op.More {
					b.Release()
				}
				owner(op)
			}
			return true
		}),
		onSubmit("sends what is shared once only", "buffers/shared-in-many-sends", func(s *shim, op *runtime.Op) bool {
			if op.Code == runtime.OpSend && op.Buf.Friend(key).Shared() && s.every(5) {
				s.answer(op, op.Buf.Len(), nil)
				return true
			}
			return false
		}),
		onDone("keeps a reference to what it delivered", "buffers/released-from-elsewhere", func(_ *shim, op *runtime.Op) bool {
			if op.More && op.Buf != nil {
				op.Buf.Retain()
			}
			return true
		}),
	}
}
