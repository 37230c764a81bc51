package loop

import (
	"errors"
	"fmt"
	"strings"

	"github.com/noria-go/noria/runtime"
)

// exitedBy does what Run would have done, had a function on the loop not ended
// the loop's goroutine by runtime.Goexit. Nothing stops that; but what others
// wait for, and what the kernel has, must not be lost with it.
func (l *Loop) exitedBy() {
	if !l.goexit {
		return
	}
	l.goexit = false
	defer l.exitedBy() // the functions that are left to run may do it again
	l.cur = nil
	l.curRef.Store(nil)
	l.opts.Logger.Error("noria: a function on the loop, outside any task, called runtime.Goexit (testing.T.FailNow does): the loop has ended",
		"loop", l.opts.Name, "error", l.end())
}

// Stop asks the loop to end; Run returns when it has. It may be called from
// anywhere, also before Run and more than once.
func (l *Loop) stop() {
	if l.state.CompareAndSwap(loopNew, loopDone) {
		l.refuse()
		_ = errors.Join(l.rt.Close(), l.pool.Close()) // never started: nothing to lose
		close(l.stopped)
		return
	}
	if l.state.CompareAndSwap(loopRunning, loopStopping) {
		l.rt.Wake()
	}
}

// end cancels the tasks, waits for them, and closes everything.
func (l *Loop) end() error {
	l.state.Store(loopStopping)
	deadline := later(l.rt.Now(), l.opts.StopTimeout)
	l.stopBy = deadline
	l.root.cancel(true)
	l.takePosts() // what came before Stop is done like everything else
	for s := range l.live {
		s.hurry()
	}
	var errs []error
	for !l.ended() && l.rt.Now() < deadline {
		if err := l.step(deadline); err != nil {
			errs = append(errs, err)
			break
		}
	}
	if l.tasks > 0 {
		errs = append(errs, fmt.Errorf("%d tasks did not end within %v of being cancelled and were abandoned: %s",
			l.tasks, l.opts.StopTimeout, l.leftovers()))
	}
	l.refuse()
	for _, w := range l.idle {
		w.stop()
	}
	l.idle = nil
	if err := l.rt.Close(); err != nil {
		errs = append(errs, err)
	}
	for s := range l.live {
		s.discard()
	}
	l.pool.Friend(key).Collect()
	if err := l.pool.Close(); err != nil {
		errs = append(errs, err)
	}
	l.state.Store(loopDone)
	if len(errs) > 0 {
		return fmt.Errorf("stop %s: %w", l.opts.Name, errors.Join(errs...))
	}
	return nil
}

// ended reports whether a loop that stops has nothing left to wait for.
func (l *Loop) ended() bool { return l.tasks == 0 && l.closings == 0 }

// refuse ends Post. What was accepted still runs, and what waits for a task
// that will not go on is told so, lest it wait in vain.
func (l *Loop) refuse() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.refused = true
	l.takePosts()
	for n := l.nextTurn.len(); n > 0; n-- {
		l.runPost(l.nextTurn.pop())
	}
	l.root.eachKid(func(t *Task) {
		if t.onEnd != nil {
			tell := t.onEnd
			t.onEnd = nil
			l.runPost(func() {
				tell(&runtime.OpError{Op: "task", Detail: t.name, Err: fmt.Errorf("abandoned: %w", runtime.ErrCanceled)})
			})
		}
	})
}

func (l *Loop) leftovers() string {
	var names []string
	l.root.eachKid(func(t *Task) {
		if len(names) < 10 {
			names = append(names, t.name)
		}
	})
	return strings.Join(names, ", ")
}
