package loop

import (
	"fmt"
	"os"
	"time"

	"github.com/noria-go/noria/runtime"
)

// touch notes that bytes have moved. The loop's clock is from before it waited
// for them, so it will not do; only streams that need the time ask for it.
func (s *Stream) touch() {
	if s.opts.IdleTimeout > 0 {
		s.moved = s.loop.rt.Now()
	}
}

// checkIdle ends a stream on which nothing moves. The timer is moved only
// when it fires, so that traffic pays nothing for it.
func (s *Stream) checkIdle() {
	until := later(s.moved, s.opts.IdleTimeout)
	if s.loop.rt.Now() < until {
		s.loop.timers.set(&s.idle, until)
		return
	}
	s.idleEr = &runtime.OpError{Op: "recv", Handle: s.h, Err: fmt.Errorf("idle for %v: %w", s.opts.IdleTimeout, os.ErrDeadlineExceeded)}
	if s.in.err == nil { // else it has ended already
		s.in.err = s.idleEr
	}
	s.in.readers.wakeAll()
	s.out.writers.wakeAll()
}

// SetDeadline sets both deadlines: see SetReadDeadline and SetWriteDeadline.
func (s *Stream) SetDeadline(d time.Time) error {
	if !s.loop.onThread() {
		return s.elsewhere("set deadline", func() error { return s.SetDeadline(d) })
	}
	if err := s.SetReadDeadline(d); err != nil {
		return err
	}
	return s.SetWriteDeadline(d)
}

// SetReadDeadline sets when reading ends with os.ErrDeadlineExceeded, for
// calls that wait already and for later ones; the zero time means never. What
// arrives is kept all the same.
func (s *Stream) SetReadDeadline(d time.Time) error {
	if !s.loop.onThread() {
		return s.elsewhere("set read deadline", func() error { return s.SetReadDeadline(d) })
	}
	return s.setDeadline(&s.in.deadline, d, &s.in.readers)
}

// SetWriteDeadline is SetReadDeadline for writing. Bytes that are queued
// already are still sent.
func (s *Stream) SetWriteDeadline(d time.Time) error {
	if !s.loop.onThread() {
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

// A deadline is one that is moved often and passes seldom: moving it later
// costs nothing, the timer finds out when it fires.
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
