package loop

import (
	"fmt"
	"os"
	"time"

	"github.com/noria-go/noria/runtime"
)

// touch notes that bytes have moved. It asks for the time: Loop.clock is older, from
// before the loop waited for the bytes.
func (s *Stream) touch() {
	if s.opts.IdleTimeout > 0 {
		s.moved = s.loop.rt.Now()
	}
}

// checkIdle ends a stream on which no byte has moved for IdleTimeout. Only this function
// moves the timer, so that traffic does not pay for it.
func (s *Stream) checkIdle() {
	until := later(s.moved, s.opts.IdleTimeout)
	if s.loop.rt.Now() < until {
		s.loop.timers.set(&s.idle, until)
		return
	}
	s.idleErr = &runtime.OpError{Op: "recv", Handle: s.h, Err: fmt.Errorf("idle for %v: %w", s.opts.IdleTimeout, os.ErrDeadlineExceeded)}
	if s.in.err == nil { // otherwise receiving has ended already
		s.in.err = s.idleErr
	}
	s.in.readers.wakeAll()
	s.out.writers.wakeAll()
}

// SetDeadline sets both deadlines, on the loop. See SetReadDeadline and
// SetWriteDeadline.
func (s *Stream) SetDeadline(d time.Time) error {
	if !s.loop.onLoop() {
		return s.elsewhere("set deadline", func() error { return s.SetDeadline(d) })
	}
	if err := s.SetReadDeadline(d); err != nil {
		return err
	}
	return s.SetWriteDeadline(d)
}

// SetReadDeadline sets the time after which reads fail with os.ErrDeadlineExceeded: those
// that wait already and later ones. The zero time means never. It is called on the loop
// and does not wait. Bytes that arrive after the deadline are kept.
func (s *Stream) SetReadDeadline(d time.Time) error {
	if !s.loop.onLoop() {
		return s.elsewhere("set read deadline", func() error { return s.SetReadDeadline(d) })
	}
	return s.setDeadline(&s.in.deadline, d, &s.in.readers)
}

// SetWriteDeadline is SetReadDeadline for writes. Bytes that are queued already are still
// sent.
func (s *Stream) SetWriteDeadline(d time.Time) error {
	if !s.loop.onLoop() {
		return s.elsewhere("set write deadline", func() error { return s.SetWriteDeadline(d) })
	}
	return s.setDeadline(&s.out.deadline, d, &s.out.writers)
}

func (s *Stream) setDeadline(dl *deadline, d time.Time, waiters *waitList) error {
	if s.closing {
		return &runtime.OpError{Op: "set deadline", Handle: s.h, Err: runtime.ErrClosed}
	}
	dl.set(s.loop, d, waiters)
	return nil
}

// A deadline is moved often and seldom passes. So moving it later does not move the
// timer: when the timer fires, it finds the new time.
type deadline struct {
	when    int64 // 0: none
	timer   timer
	waiters *waitList
}

func (d *deadline) set(l *Loop, t time.Time, waiters *waitList) {
	if t.IsZero() {
		d.when = 0
		l.timers.stop(&d.timer)
		return
	}
	d.when = max(l.clockTime(t), 1)
	if d.timer.fire == nil {
		d.waiters = waiters
		d.timer.fire = func() {
			if d.when == 0 {
				return
			}
			if l.rt.Now() < d.when {
				l.timers.set(&d.timer, d.when)
				return
			}
			d.waiters.wakeAll()
		}
	}
	if d.timer.at == 0 || d.when < d.timer.when {
		l.timers.set(&d.timer, d.when)
	}
}

func (d *deadline) passed(l *Loop) bool { return d.when != 0 && l.rt.Now() >= d.when }
