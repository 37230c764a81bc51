package loop

import (
	"context"
	"slices"
	"sync/atomic"
)

// onLoop reports whether the caller runs on the loop's thread: as the loop itself, as
// the current task, or as a coroutine inside that task.
func (l *Loop) onLoop() bool {
	if g := self(); g != 0 && (l.curRef.Load().is(g) || g == l.g.Load()) {
		return true
	}
	tid := l.thread.Load()
	return tid != 0 && tid == int64(threadID())
}

// mustBeOn panics unless the caller runs on the loop's thread. It is for methods that
// return no error.
func (l *Loop) mustBeOn(what string) {
	if !l.onLoop() {
		panic("loop: " + what + " is called from outside the loop")
	}
}

// current returns the task of this loop that the caller runs in, or nil.
func (l *Loop) current() *Task {
	if l.curRef.Load().is(self()) {
		return l.cur
	}
	// The loop's own goroutine has no task, and a coroutine inside a task (a
	// nested iter.Pull) shares its thread.
	if tid := l.thread.Load(); tid == 0 || tid != int64(threadID()) {
		return nil
	}
	return l.cur
}

// forgetThread makes every later check report that the caller is elsewhere: the system
// reuses the thread's number, and Go the goroutine's address.
func (l *Loop) forgetThread() {
	l.thread.Store(0)
	l.g.Store(0)
}

// loops are the loops that run. With them a call finds the task that it is made from,
// also if its context is not a task's.
var loops loopSet

type loopSet struct{ p atomic.Pointer[[]*Loop] }

func (s *loopSet) all() []*Loop {
	if p := s.p.Load(); p != nil {
		return *p
	}
	return nil
}

func (s *loopSet) change(f func([]*Loop) []*Loop) {
	for {
		old := s.p.Load()
		var list []*Loop
		if old != nil {
			list = slices.Clone(*old)
		}
		list = f(list)
		if s.p.CompareAndSwap(old, &list) {
			return
		}
	}
}

func (s *loopSet) add(l *Loop) {
	s.change(func(list []*Loop) []*Loop { return append(list, l) })
}

func (s *loopSet) remove(l *Loop) {
	s.change(func(list []*Loop) []*Loop {
		return slices.DeleteFunc(list, func(o *Loop) bool { return o == l })
	})
}

// currentTask returns the task that the caller runs in, or nil on an ordinary goroutine.
// ctx is a hint that makes this fast.
func currentTask(ctx context.Context) *Task {
	t, _ := caller(ctx)
	return t
}

// caller returns the task that the caller runs in, or nil, and whether the caller is on
// a loop's thread. If it is, and there is no task, it is a function that the loop calls,
// which must not wait.
func caller(ctx context.Context) (t *Task, onLoop bool) {
	if ctx != nil {
		if t := TaskOf(ctx); t != nil {
			if cur := t.loop.current(); cur != nil {
				return cur, true
			}
		}
	}
	tid := int64(-1)
	for _, l := range loops.all() {
		if tid < 0 {
			tid = int64(threadID())
		}
		if l.thread.Load() == tid {
			return l.cur, true
		}
	}
	return nil, false
}

// cannotWait reports whether the caller is a function that a loop calls outside any task.
func cannotWait() bool {
	t, onLoop := caller(noContext)
	return t == nil && onLoop
}
