package runtime

import (
	"bytes"
	"fmt"
	goruntime "runtime"
	"time"
)

// A Stall says that a task has held its loop for too long: it computes, or it
// waits for something that Go's scheduler knows and the loop does not, such as
// a channel or a mutex.
type Stall struct {
	Loop  string
	Task  string
	Held  time.Duration // at least
	Stack string        // of the task
}

func (s Stall) String() string {
	return fmt.Sprintf("task %q has held loop %s for more than %v\n%s", s.Task, s.Loop, s.Held.Round(time.Millisecond), s.Stack)
}

// watch starts the watchdog and returns what stops it. It looks from outside,
// twice in StallAfter, at one number that every resumption changes, so that a
// task pays nothing for being watched.
func (l *Loop) watch() (stop func()) {
	quit, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(l.opts.StallAfter / 2)
		defer tick.Stop()
		var (
			turn     uint64
			since    time.Time
			reported bool
		)
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			now := l.turns.Load()
			w := l.curRef.Load()
			if w == nil || now != turn {
				turn, since, reported = now, time.Now(), false
				continue
			}
			if held := time.Since(since); held >= l.opts.StallAfter && !reported {
				reported = true
				l.reportStall(w, now, held)
			}
		}
	}()
	return func() {
		close(quit)
		<-gone
	}
}

func (l *Loop) reportStall(w *worker, turn uint64, held time.Duration) {
	stack := stackOf(w.id.Load())
	name := w.name.Load()
	if l.turns.Load() != turn || name == nil {
		return // it has gone on meanwhile: the stack may be somebody else's
	}
	s := Stall{Loop: l.opts.Name, Task: *name, Held: held, Stack: stack}
	if l.opts.OnStall != nil {
		l.opts.OnStall(s)
		return
	}
	l.opts.Logger.Warn("noria: a task holds its loop; use Offload for what blocks or computes",
		"loop", s.Loop, "task", s.Task, "held", s.Held, "stack", s.Stack)
}

// stackOf finds one goroutine in a dump of all of them: Go offers no other
// way to look at somebody else's stack.
func stackOf(goid uint64) string {
	buf := make([]byte, 1<<20)
	buf = buf[:goruntime.Stack(buf, true)]
	head := fmt.Appendf(nil, "goroutine %d ", goid)
	for part := range bytes.SplitSeq(buf, []byte("\n\n")) {
		if bytes.HasPrefix(part, head) {
			return string(part)
		}
	}
	return "(not among the first goroutines of the dump)"
}
