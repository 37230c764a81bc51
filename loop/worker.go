package loop

import (
	"fmt"
	"iter"
	goruntime "runtime"
	"runtime/debug"
	"sync/atomic"
)

// A worker is a coroutine on the loop's thread. It runs one task after another, so the
// tasks share a few warm stacks.
type worker struct {
	loop *Loop
	task *Task
	g    atomic.Uintptr // the address of its goroutine
	// resume switches to the coroutine, suspend back to the loop.
	resume  func() (struct{}, bool)
	suspend func(struct{}) bool
	stop    func()
	lost    bool
	id      atomic.Uint64          // of the goroutine, for the watchdog
	name    atomic.Pointer[string] // of the task, for the watchdog
}

// is reports whether g, if it is known, is w's goroutine.
func (w *worker) is(g uintptr) bool { return w != nil && g != 0 && w.g.Load() == g }

// resume runs t until it waits or ends.
func (l *Loop) resume(t *Task) {
	if t.over || t.returned {
		return
	}
	w := t.worker
	if w == nil {
		w = l.newWorker()
		w.task, t.worker = t, w
		w.name.Store(&t.name)
	}
	l.cur = t
	l.resumes++
	l.curRef.Store(w)
	w.resume()
	l.cur = nil
	if w.task == nil && !w.lost {
		if len(l.idle) < maxIdleWorkers {
			l.idle = append(l.idle, w)
		} else {
			l.curRef.Store(nil) // Go reuses the address of its goroutine
			w.stop()
		}
	}
}

func (l *Loop) newWorker() *worker {
	if n := len(l.idle); n > 0 {
		w := l.idle[n-1]
		l.idle[n-1] = nil
		l.idle = l.idle[:n-1]
		return w
	}
	w := &worker{loop: l}
	w.resume, w.stop = iter.Pull(w.main)
	return w
}

func (w *worker) main(suspend func(struct{}) bool) {
	w.suspend = suspend
	w.g.Store(self())
	w.id.Store(goroutineID())
	for {
		w.run(w.task)
		w.task = nil
		if !suspend(struct{}{}) {
			return
		}
	}
}

// run runs t's function until it returns, panics or calls runtime.Goexit.
func (w *worker) run(t *Task) {
	returned := false
	defer func() {
		if returned {
			return
		}
		if v := recover(); v != nil {
			p := newPanicError(t.name, v)
			w.loop.reportPanic(p)
			t.functionReturned(p)
			return
		}
		// runtime.Goexit. iter.Pull would pass it on through resume to the loop's own
		// goroutine. So this coroutine stays suspended here for good, in the deferred
		// call, and its stack is lost.
		t.functionReturned(ErrGoexit)
		w.lost, w.task = true, nil
		w.loop.lost++
		w.loop.opts.Logger.Error("noria: task called runtime.Goexit (testing.T.FailNow does)", "loop", w.loop.opts.Name, "task", t.name)
		for {
			w.suspend(struct{}{})
		}
	}()
	err := t.fn(t.context())
	returned = true
	t.functionReturned(err)
}

func newPanicError(task string, v any) *PanicError {
	return &PanicError{Task: task, Value: v, Stack: debug.Stack()}
}

// goroutineID returns the number of the running goroutine. Go shows it only in a stack
// trace. The watchdog needs it, to find a task's stack in a dump.
func goroutineID() uint64 {
	var buf [64]byte
	s := buf[:goruntime.Stack(buf[:], false)]
	var id uint64
	if _, err := fmt.Sscanf(string(s), "goroutine %d ", &id); err != nil {
		return 0
	}
	return id
}
