package loop

import (
	"context"
	"fmt"
	"os"

	"github.com/noria-go/noria/runtime"
)

// Close sends what was written, for as long as Linger, and closes the socket. A task of
// the loop waits for that and gets the error of sending. Reads and writes that wait fail
// with ErrClosed. A killed task may call Close too, and it always returns. In a function
// that the loop calls, Close does not wait.
//
// On a stream that allows goroutines, a goroutine may call it. Then it does not wait for
// a peer that takes nothing: when the socket's buffer is full it returns, and the loop
// goes on sending for as long as Linger. An error after that is lost, as with package
// net; Flush before Close reports it.
func (s *Stream) Close() error {
	switch {
	case s.loop.onLoop():
		return s.close(false)
	case s.owner == nil:
		return s.offLoop("close")
	case cannotWait():
		return s.loop.post(func() { _ = s.close(true) })
	}
	// Not with the owner's context: a kill of the owner must not kill this task before it
	// starts.
	return s.loop.call(context.Background(), "close", func(context.Context) error { return s.close(true) })
}

// close is Close on the loop. With haste it does not wait for a peer that takes nothing.
func (s *Stream) close(haste bool) error {
	first := !s.closing
	if first {
		s.beginClose()
	}
	if t := s.loop.current(); t != nil && (!haste || !s.stuck(t)) {
		w := &t.nodes[0]
		w.task = t
		for !s.closed {
			s.closers.add(w)
			t.park()
			s.closers.remove(w)
		}
	}
	if !first {
		return &runtime.OpError{Op: "close", Handle: s.h, Err: runtime.ErrClosed}
	}
	return s.closeErr
}

// stuck waits while the kernel takes bytes in each turn of the loop. It reports whether
// bytes are left.
func (s *Stream) stuck(t *Task) bool {
	for !s.closed && s.closeOp.Code == 0 {
		before := s.out.bytes
		s.loop.makeReady(t)
		t.park()
		if s.out.bytes == before {
			return s.closeOp.Code == 0
		}
	}
	return false
}

func (s *Stream) beginClose() {
	s.closing = true
	s.loop.closings++
	s.in.readers.wakeAll()
	s.out.writers.wakeAll()
	s.loop.timers.stop(&s.in.deadline.timer)
	s.loop.timers.stop(&s.out.deadline.timer)
	s.loop.timers.stop(&s.idle)
	if s.opts.Linger >= 0 {
		s.send() // a layer adds its goodbye
	}
	if s.out.idle() || s.opts.Linger < 0 {
		s.closeNow()
		return
	}
	s.linger.fire = func() {
		s.closeErr = &runtime.OpError{Op: "close", Handle: s.h, Err: fmt.Errorf("%d bytes were not sent within %v: %w",
			s.out.bytes, s.opts.Linger, os.ErrDeadlineExceeded)}
		s.closeNow()
	}
	s.loop.timers.set(&s.linger, later(s.loop.rt.Now(), s.opts.Linger))
	if s.loop.stopBy != 0 {
		s.hurry()
	}
}

// hurry shortens the time that Close may take when the loop is stopping; otherwise the
// loop would abandon the task that waits in Close.
func (s *Stream) hurry() {
	if s.linger.at == 0 {
		return
	}
	now := s.loop.rt.Now()
	s.loop.timers.set(&s.linger, min(s.linger.when, now+max(s.loop.stopBy-now, 0)/2))
}

func (s *Stream) closeNow() {
	s.loop.timers.stop(&s.linger)
	if s.closeErr == nil {
		s.closeErr = s.out.err
	}
	s.closeOp = runtime.Op{Code: runtime.OpClose, Handle: s.h, Done: func(*runtime.Op) {
		s.closed = true
		s.loop.closings--
		s.discard()
		s.closers.wakeAll()
	}}
	s.loop.rt.Submit(&s.closeOp)
}

// discard releases the stream's buffers and calls the functions that wait for its end.
func (s *Stream) discard() {
	delete(s.loop.live, s)
	s.in.drop()
	s.dropQueued()
	if s.layer != nil {
		s.layer.Drop()
	}
	s.tellSent()
	if end := s.onEnd; end != nil {
		s.onEnd = nil
		s.loop.runPost(end)
	}
}
