package loop

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync/atomic"
)

// Offload runs fn on an ordinary goroutine and suspends the calling task until
// fn has returned: fn may block, take mutexes and use channels. It must not
// use the loop's streams. Being cancelled does not cut it short, because fn
// may use what the task owns; give fn the context, and let it listen. Beyond
// 512 at once on a loop, further ones wait. On an ordinary goroutine fn is
// simply called.
//
// The error says that fn was not run, because ctx had ended before, or that it
// ended by runtime.Goexit (ErrGoexit). If fn panics, so does Offload.
func Offload(ctx context.Context, fn func()) error {
	t, onLoop := caller(ctx)
	switch {
	case t == nil && onLoop:
		return opErr("offload", 0, errNoTask)
	case t == nil:
		if err := ctx.Err(); err != nil {
			return opErr("offload", 0, err)
		}
		fn()
		return nil
	}
	l := t.loop
	for l.busy >= maxOffloads {
		if err := t.waitOn(&l.offloads, ctx); err != nil {
			l.offloads.wakeOne() // it may have been woken to go on
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

// elsewhere runs fn on a goroutine and parks t until it has ended. The error
// is ErrGoexit or nil.
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

// offloadPanic carries a panic over to the task, with the stack it had.
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
