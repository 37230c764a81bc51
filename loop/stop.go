package loop

import (
	"errors"
	"fmt"
	"strings"

	"github.com/noria-go/noria/runtime"
)

// exitedBy ends the loop after a function on it has called runtime.Goexit. Nothing can
// stop the Goexit; but callers that wait for the loop, and operations in the kernel, must
// not be lost.
func (l *Loop) exitedBy() {
	if !l.goexit {
		return
	}
	l.goexit = false
	defer l.exitedBy() // the functions that are left may call Goexit too
	l.cur = nil
	l.curRef.Store(nil)
	l.opts.Logger.Error("noria: a function on the loop, outside any task, called runtime.Goexit (testing.T.FailNow does): the loop has ended",
		"loop", l.opts.Name, "error", l.end())
}

// stop asks the loop to end, and does not wait; run returns when it has ended. stop may
// be called from anywhere, also before run and more than once.
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

// end kills the tasks, waits for them, and closes everything.
func (l *Loop) end() error {
	l.state.Store(loopStopping)
	deadline := later(l.rt.Now(), l.opts.StopTimeout)
	l.stopBy = deadline
	l.root.cancel(true)
	l.takePosts() // functions that were posted before stop
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

// refuse ends Post. Functions that were posted before still run. A caller that waits for
// an abandoned task gets an error.
func (l *Loop) refuse() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.refused = true
	l.takePosts()
	for n := l.nextTurn.len(); n > 0; n-- {
		l.runPost(l.nextTurn.pop())
	}
	l.root.eachDescendant(func(t *Task) {
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
	l.root.eachDescendant(func(t *Task) {
		if len(names) < 10 {
			names = append(names, t.name)
		}
	})
	return strings.Join(names, ", ")
}
