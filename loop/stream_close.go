package loop

import (
	"context"
	"fmt"
	"os"

	"github.com/noria-go/noria/runtime"
)

// Close ends the stream: waiting reads fail with ErrClosed, what was written
// is sent for as long as Linger allows, operations in flight are joined, and
// the socket is closed. It returns what went wrong with sending. A killed
// task may call it too: it always ends. From a function given to Post it only
// begins to close.
//
// From a goroutine it is net.Conn's, and does not wait for a peer that takes
// nothing: once the kernel's buffer is full it returns, and the loop goes on to
// send for as long as Linger. What then goes wrong nobody is told, as with
// package net; Flush waits, and says so.
func (s *Stream) Close() error {
	switch {
	case s.loop.onThread():
		return s.close(false)
	case s.owner == nil:
		return s.offLoop("close")
	}
	// Not a child of the owner: what closes must not be killed before it starts.
	return s.loop.call(context.Background(), "close", func(context.Context) error { return s.close(true) })
}

// close does that. haste says not to wait for the peer.
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
	return s.closeEr
}

// stuck reports whether Close still has bytes to send and the kernel has taken
// none of them in a whole turn of the loop.
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
		s.send() // with a layer also its goodbye
	}
	if s.out.idle() || s.opts.Linger < 0 {
		s.closeNow()
		return
	}
	s.linger.fire = func() {
		s.closeEr = &runtime.OpError{Op: "close", Handle: s.h, Err: fmt.Errorf("%d bytes were not sent within %v: %w",
			s.out.bytes, s.opts.Linger, os.ErrDeadlineExceeded)}
		s.closeNow()
	}
	s.loop.timers.set(&s.linger, later(s.loop.rt.Now(), s.opts.Linger))
	if s.loop.stopBy != 0 {
		s.hurry()
	}
}

// hurry cuts the time that Close may take once the loop is stopping, or the
// task that closes would be abandoned.
func (s *Stream) hurry() {
	if s.linger.at == 0 {
		return
	}
	now := s.loop.rt.Now()
	s.loop.timers.set(&s.linger, min(s.linger.when, now+max(s.loop.stopBy-now, 0)/2))
}

func (s *Stream) closeNow() {
	s.loop.timers.stop(&s.linger)
	if s.closeEr == nil {
		s.closeEr = s.out.err
	}
	s.closeOp = runtime.Op{Code: runtime.OpClose, Handle: s.h, Done: func(*runtime.Op) {
		s.closed = true
		s.loop.closings--
		s.discard()
		s.closers.wakeAll()
	}}
	s.loop.rt.Submit(&s.closeOp)
}

// discard releases every buffer that the stream has.
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
