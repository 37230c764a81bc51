package loop

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync/atomic"
)

// Offload runs fn on an ordinary goroutine and suspends the calling task until fn
// has returned. fn may block, lock mutexes and use channels; it must not use the
// loop's streams. A cancel does not cut Offload short, because fn may use what the
// task owns: give fn the context, and let it return when that ends. A loop runs 512
// of them at once; further ones wait. On an ordinary goroutine, Offload calls fn.
//
// A drain does not keep Offload from running fn, so that a deferred Offload can save
// what the task has: see Task.
//
// An error says that fn was not run, because the task was killed, ctx had ended for
// another reason than a drain, or the caller may not wait; or that fn called
// runtime.Goexit (ErrGoexit). If fn panics, so does Offload.
func Offload(ctx context.Context, fn func()) error {
	t, onLoop := caller(ctx)
	switch {
	case t == nil && onLoop:
		return opErr("offload", 0, errNoTask)
	case t == nil:
		if err := ctx.Err(); err != nil && !endsWithTask(ctx) {
			return opErr("offload", 0, err)
		}
		fn()
		return nil
	}
	l := t.loop
	if t.within(TaskOf(ctx)) && endsWithTask(ctx) {
		ctx = noContext // only a kill counts
	}
	for l.busy >= maxOffloads {
		if err := t.waitOn(&l.offloads, ctx); err != nil {
			l.offloads.wakeOne() // the task may have been woken to go on
			return opErr("offload", 0, err)
		}
	}
	if err := t.interrupted(ctx); err != nil {
		l.offloads.wakeOne()
		return opErr("offload", 0, err)
	}
	l.busy++
	defer func() {
		l.busy--
		l.offloads.wakeOne()
	}()
	return opErr("offload", 0, t.elsewhere(fn, nil))
}

// endsWithTask reports whether ctx is a task's own, perhaps with values added, so that
// nothing but the task ends it.
func endsWithTask(ctx context.Context) bool {
	t := TaskOf(ctx)
	return t != nil && (ctx == t.context() || ctx.Done() == t.context().Done())
}

// elsewhere runs fn on a goroutine and parks t until fn has returned. If t is killed
// meanwhile, it calls killed, once and if it is not nil. The error is ErrGoexit or
// nil.
func (t *Task) elsewhere(fn, killed func()) error {
	var (
		done   atomic.Bool
		failed *offloadPanic
		exited error
	)
	go func() {
		returned := false
		defer func() {
			if !returned {
				if v := recover(); v != nil {
					failed = &offloadPanic{v, debug.Stack()}
				} else {
					exited = ErrGoexit
				}
			}
			done.Store(true)
			t.wake()
		}()
		fn()
		returned = true
	}()
	for !done.Load() {
		if t.killed && killed != nil {
			killed()
			killed = nil
		}
		t.park()
	}
	if failed != nil {
		panic(failed)
	}
	return exited
}

// An offloadPanic carries a panic of fn to the task, with the stack of fn.
type offloadPanic struct {
	value any
	stack []byte
}

func (p *offloadPanic) Error() string {
	return fmt.Sprintf("%v (on an offloaded goroutine)\n%s", p.value, p.stack)
}

func (p *offloadPanic) Unwrap() error {
	err, _ := p.value.(error)
	return err
}
