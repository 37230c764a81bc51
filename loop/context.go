package loop

import (
	"context"
	"slices"
	"time"
)

// A taskContext is a Task as the context that the task's function gets. It has no
// goroutine and no timer. Its channel and its list are made when they are first used.
type taskContext Task

func (t *Task) context() context.Context { return (*taskContext)(t) }

type taskKey struct{}

// TaskOf returns the task that ctx comes from, or nil. Any goroutine may call it.
func TaskOf(ctx context.Context) *Task {
	if c, ok := ctx.(*taskContext); ok {
		return (*Task)(c)
	}
	t, _ := ctx.Value(taskKey{}).(*Task)
	return t
}

var closedChan = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// Deadline returns the deadline of the context that Loop.Call was given, if Call started
// the task or one of its ancestors. Other tasks have none.
func (c *taskContext) Deadline() (time.Time, bool) {
	for t := (*Task)(c); t != nil; t = t.parent {
		if t.called {
			return t.values.Deadline()
		}
	}
	return time.Time{}, false
}

// Done returns a channel that is closed when the task's context ends. It is made at the
// first call. A task must not wait for it; functions given to Offload may.
func (c *taskContext) Done() <-chan struct{} {
	t := (*Task)(c)
	if t.ctxEnded.Load() {
		return closedChan
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctxEnded.Load() {
		return closedChan
	}
	if t.done == nil {
		t.done = make(chan struct{})
	}
	return t.done
}

func (c *taskContext) Err() error {
	switch {
	case !c.ctxEnded.Load():
		return nil
	case c.late: // fixed before ctxEnded was set
		return context.DeadlineExceeded
	}
	return context.Canceled
}

// Value returns the value of the context that Call was given, that the task's service
// was started with, or that SetValues was given.
func (c *taskContext) Value(key any) any {
	t := (*Task)(c)
	if _, ok := key.(taskKey); ok {
		return t
	}
	if t.values != nil {
		return t.values.Value(key)
	}
	return nil
}

func (c *taskContext) String() string { return "task " + c.name }

// noContext in place of a context means that no context ends the wait.
var noContext context.Context

type afterFunc struct{ f func() }

// AfterFunc lets the standard library derive contexts from a task's without a goroutine:
// see the documentation of context.AfterFunc. f must not block. The loop calls f on its
// thread when the task's context ends; if it has ended already, a goroutine calls f.
func (c *taskContext) AfterFunc(f func()) (stop func() bool) {
	t := (*Task)(c)
	a := &afterFunc{f}
	t.mu.Lock()
	if t.ctxEnded.Load() {
		t.mu.Unlock()
		// On a goroutine, because the context package holds a lock here that f takes.
		go f()
		return func() bool { return false }
	}
	t.afters = append(t.afters, a)
	t.mu.Unlock()
	return func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		i := slices.Index(t.afters, a)
		if i < 0 {
			return false
		}
		t.afters = slices.Delete(t.afters, i, i+1)
		return true
	}
}

func (t *Task) endContext() {
	if t.ctxEnded.Load() {
		return
	}
	t.mu.Lock()
	t.ctxEnded.Store(true)
	if t.done != nil {
		close(t.done)
	}
	afters := t.afters
	t.afters = nil
	t.mu.Unlock()
	for _, a := range afters {
		t.loop.contain("AfterFunc's function", a.f)
	}
}

// A foreignContext is a context of a call that is not the task's own. The task registers
// with it at the first such call, not at each.
type foreignContext struct {
	ctx   context.Context
	stop  func() bool
	timer timer
}

func (f *foreignContext) drop(l *Loop) {
	if f.ctx == nil {
		return
	}
	l.timers.stop(&f.timer)
	if f.stop != nil {
		f.stop()
	}
	f.ctx, f.stop = nil, nil
}

// contextErr returns the error of ctx if ctx has ended. Otherwise it registers t, to be
// woken when ctx ends.
func (t *Task) contextErr(ctx context.Context) error {
	if ctx == noContext {
		return nil
	}
	if own, ok := ctx.(*taskContext); ok && t.within((*Task)(own)) {
		return own.Err()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	f := &t.foreign
	if f.ctx == ctx {
		return f.late(t)
	}
	f.drop(t.loop)
	f.ctx = ctx
	if ctx.Done() != nil {
		f.stop = context.AfterFunc(ctx, func() { t.wake() })
	}
	if d, ok := ctx.Deadline(); ok {
		if f.timer.fire == nil {
			f.timer.fire = func() { t.loop.makeReady(t) }
		}
		t.loop.timers.set(&f.timer, t.loop.clockTime(d))
	}
	return nil
}

// within reports whether a cancel of other cancels t too, and so wakes t without
// registering.
func (t *Task) within(other *Task) bool {
	for ; t != nil; t = t.parent {
		if t == other {
			return true
		}
		if t.apart {
			return false
		}
	}
	return false
}

// late returns DeadlineExceeded if the deadline has passed by the loop's clock, even
// if the context's own timer has not fired yet.
func (f *foreignContext) late(t *Task) error {
	if f.timer.fire != nil && f.timer.at == 0 {
		if d, ok := f.ctx.Deadline(); ok && time.Until(d) <= 0 {
			return context.DeadlineExceeded
		}
	}
	return nil
}

// clockTime returns the time d on the loop's clock.
func (l *Loop) clockTime(d time.Time) int64 {
	return later(l.rt.Now(), time.Until(d))
}
