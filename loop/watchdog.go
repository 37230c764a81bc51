package loop

import (
	"bytes"
	"fmt"
	goruntime "runtime"
	"time"
)

// OutsideTasks is a Stall's Task where it was none: a function given to Post or
// NextTurn, a Timer's, or one that is told of an end.
const OutsideTasks = "(outside any task)"

// A Stall says that a task, or a function that the loop calls, has held the loop
// for too long: it computes, or it waits for something that Go's scheduler knows
// and the loop does not, such as a channel or a mutex. What an Op's own Done does is
// not watched.
type Stall struct {
	Loop  string
	Task  string
	Held  time.Duration // at least
	Stack string        // of the task, or of the loop
}

func (s Stall) String() string {
	who := fmt.Sprintf("task %q", s.Task)
	if s.Task == OutsideTasks {
		who = "a function outside any task"
	}
	return fmt.Sprintf("%s has held loop %s for more than %v\n%s", who, s.Loop, s.Held.Round(time.Millisecond), s.Stack)
}

// A progress is what the watchdog sees of a loop. While it is the same, the loop
// has not got any further.
type progress struct {
	phase  uint64  // of the turn, in which each task is resumed once at most
	called uint64  // of what is called while completions are taken in
	w      *worker // whose task runs, if one does
	name   *string // that task's: a worker may run several in a turn
}

func (l *Loop) progress() progress {
	p := progress{phase: l.phase.Load(), called: l.called.Load(), w: l.curRef.Load()}
	if p.w != nil {
		p.name = p.w.name.Load()
	}
	return p
}

// waits reports whether the loop is where it may stay: in Poll.
func (p progress) waits() bool { return p.w == nil && p.phase&1 != 0 && p.called&1 == 0 }

// watch starts the watchdog and returns what stops it. It looks from outside,
// twice in StallAfter, at numbers that change in any case, so that a task pays
// nothing for being watched.
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
	s := Stall{Loop: l.opts.Name, Task: OutsideTasks, Held: held}
	goid := l.goid
	if at.name != nil {
		s.Task, goid = *at.name, at.w.id.Load()
	}
	s.Stack = stackOf(goid)
	if l.progress() != at {
		return // it has gone on meanwhile: the stack may be somebody else's
	}
	if l.opts.OnStall != nil {
		l.opts.OnStall(s)
		return
	}
	l.opts.Logger.Warn("noria: a task holds its loop; use Offload for what blocks or computes",
		"loop", s.Loop, "task", s.Task, "held", s.Held, "stack", s.Stack)
}

// maxDump bounds a dump of all goroutines, during which they all stand still: it
// is enough for some ten thousand of them.
const maxDump = 16 << 20

// stackOf finds one goroutine in a dump of all of them: Go offers no other
// way to look at somebody else's stack.
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
