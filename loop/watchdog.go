package loop

import (
	"bytes"
	"fmt"
	goruntime "runtime"
	"time"
)

// A Stall reports that a task, or a function that the loop calls, has held the loop
// for too long. It computes, or it waits for something that suspends a goroutine and
// not a task, such as a channel or a mutex. The Done functions of operations are not
// watched.
type Stall struct {
	Loop  string        // its name
	Task  string        // its name, or empty: a function given to Post, or a Timer's
	Held  time.Duration // at least this long
	Stack string        // of the task, or of the loop
}

// A progress is the state of a loop that the watchdog compares. While it is the
// same, the loop has not moved on.
type progress struct {
	phase  uint64  // changes each turn, in which a task is resumed once at most
	called uint64  // changes with each function that Poll calls
	w      *worker // the one that runs, if one does
	name   *string // of its task: a worker may run several in a turn
}

func (l *Loop) progress() progress {
	p := progress{phase: l.phase.Load(), called: l.called.Load(), w: l.curRef.Load()}
	if p.w != nil {
		p.name = p.w.name.Load()
	}
	return p
}

// waits reports whether the loop waits in Poll, where it may stay.
func (p progress) waits() bool { return p.w == nil && p.phase&1 != 0 && p.called&1 == 0 }

// watch starts the watchdog and returns a function that stops it. The watchdog is a
// goroutine that looks, twice in StallAfter, at numbers that the loop changes in any
// case, so being watched costs a task nothing.
func (l *Loop) watch() (stop func()) {
	quit, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(l.opts.StallAfter / 2)
		defer tick.Stop()
		var (
			last     progress
			since    time.Time
			reported bool
		)
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			now := l.progress()
			if now.waits() || now != last || since.IsZero() {
				last, since, reported = now, time.Now(), false
				continue
			}
			if held := time.Since(since); held >= l.opts.StallAfter && !reported {
				reported = true
				l.reportStall(now, held)
			}
		}
	}()
	return func() {
		close(quit)
		<-gone
	}
}

func (l *Loop) reportStall(at progress, held time.Duration) {
	s := Stall{Loop: l.opts.Name, Held: held}
	goid := l.goid
	if at.name != nil {
		s.Task, goid = *at.name, at.w.id.Load()
	}
	s.Stack = stackOf(goid)
	if l.progress() != at {
		return // it has moved on meanwhile: the stack may be another task's
	}
	if l.opts.OnStall != nil {
		l.opts.OnStall(s)
		return
	}
	l.opts.Logger.Warn("noria: a task, or a function outside any task, holds its loop: use loop.Offload for code that blocks or computes",
		"loop", s.Loop, "task", s.Task, "held", s.Held, "stack", s.Stack)
}

// maxDump bounds a dump of all goroutines, which stops them all meanwhile. It is
// enough for some ten thousand.
const maxDump = 16 << 20

// stackOf finds one goroutine in a dump of all of them: Go offers no other way to
// see another goroutine's stack.
func stackOf(goid uint64) string {
	var buf []byte
	for size := 1 << 20; ; size *= 4 {
		buf = make([]byte, size)
		if buf = buf[:goruntime.Stack(buf, true)]; len(buf) < size || size >= maxDump {
			break
		}
	}
	head := fmt.Appendf(nil, "goroutine %d ", goid)
	for part := range bytes.SplitSeq(buf, []byte("\n\n")) {
		if bytes.HasPrefix(part, head) {
			return string(part)
		}
	}
	return fmt.Sprintf("(not in the first %d bytes of a dump of all goroutines)", len(buf))
}
