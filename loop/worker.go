package loop

import (
	"fmt"
	"iter"
	goruntime "runtime"
	"runtime/debug"
	"sync/atomic"
)

// A worker is a coroutine on the loop's thread that runs one task after
// another.
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
	if t.over || t.body {
		return
	}
	w := t.worker
	if w == nil {
		w = l.newWorker()
		w.task, t.worker = t, w
		w.name.Store(&t.name)
	}
	l.cur = t
	l.turns++
	l.curRef.Store(w)
	w.resume()
	l.cur = nil
	if w.task == nil && !w.lost {
		if len(l.idle) < maxIdleWorkers {
			l.idle = append(l.idle, w)
		} else {
			l.curRef.Store(nil) // its goroutine's address will be another one's
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

// run runs t to its end, whichever way that comes.
func (w *worker) run(t *Task) {
	returned := false
	defer func() {
		if returned {
			return
		}
		if v := recover(); v != nil {
			p := newPanicError(t.name, v)
			w.loop.reportPanic(p)
			t.bodyEnded(p)
			return
		}
		// runtime.Goexit. It would go on through resume into the loop's own
		// goroutine (iter.Pull passes it on), so this coroutine stops here, in
		// the deferred call, for ever: its stack is the price.
		t.bodyEnded(ErrGoexit)
		w.lost, w.task = true, nil
		w.loop.lost++
		w.loop.opts.Logger.Error("noria: task called runtime.Goexit (testing.T.FailNow does)", "loop", w.loop.opts.Name, "task", t.name)
		for {
			w.suspend(struct{}{})
		}
	}()
	err := t.fn(t.context())
	returned = true
	t.bodyEnded(err)
}

func newPanicError(task string, v any) *PanicError {
	return &PanicError{Task: task, Value: v, Stack: debug.Stack()}
}

// goroutineID reads the number of the running goroutine from the one place
// where Go shows it. It is only used to find a task's stack in a dump.
func goroutineID() uint64 {
	var buf [64]byte
	s := buf[:goruntime.Stack(buf[:], false)]
	var id uint64
	if _, err := fmt.Sscanf(string(s), "goroutine %d ", &id); err != nil {
		return 0
	}
	return id
}
