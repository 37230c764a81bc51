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
		hooked("lets a free buffer lie until the next event", "rule06/a-free-buffer-goes-to-bytes", dawdle),
		hooked("gives a flood every buffer", "rule06/floods-share-the-buffers", starve),
	}
}

// dawdle delivers the first bytes of a receive that has waited for some Polls only after
// a Poll in which nothing else happened.
func dawdle(s *shim) {
	polls, since := 0, map[*runtime.Op]int{}
	var late func()
	s.submit = func(op *runtime.Op) bool {
		since[op] = polls
		return false
	}
	s.done = func(op *runtime.Op) bool {
		start, first := since[op]
		delete(since, op)
		if !first || !op.More || op.Buf == nil || polls-start < 4 {
			return true
		}
		b, before := op.Buf, late
		late = func() {
			if before != nil {
				before()
			}
			op.Buf, op.N, op.More = b, b.Len(), true
			s.owners[op](op)
			op.Buf = nil
		}
		return false
	}
	s.poll = func(deadline int64) error {
		polls++
		err := s.Runtime.Poll(deadline)
		if late != nil && s.Now() >= deadline {
			late()
			late = nil
		}
		return err
	}
}
