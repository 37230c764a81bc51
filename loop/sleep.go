package loop

import (
	"context"
	goruntime "runtime"
	"time"
)

// Sleep suspends the calling task for d. It returns early, with an error,
// when ctx ends or the task is killed. On an ordinary goroutine it does the
// same with a timer of Go's.
func Sleep(ctx context.Context, d time.Duration) error {
	t, onLoop := caller(ctx)
	if t == nil && onLoop {
		return opErr("sleep", 0, errNoTask)
	}
	if t == nil {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return opErr("sleep", 0, ctx.Err())
		}
	}
	until := later(t.loop.rt.Now(), d)
	t.loop.timers.set(&t.sleep, until)
	defer t.loop.timers.stop(&t.sleep)
	for {
		if err := t.interrupted(ctx); err != nil {
			return opErr("sleep", 0, err)
		}
		if t.loop.rt.Now() >= until {
			return nil
		}
		t.park()
	}
}

// Yield lets the other tasks of the loop, and its I/O, have a turn.
func Yield(ctx context.Context) error {
	t := currentTask(ctx)
	if t == nil {
		goruntime.Gosched()
		return ctx.Err()
	}
	t.loop.makeReady(t)
	t.park()
	return opErr("yield", 0, t.interrupted(ctx))
}
