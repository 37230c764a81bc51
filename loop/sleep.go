package loop

import (
	"context"
	goruntime "runtime"
	"time"
)

// Sleep waits for d. It suspends the calling task; a goroutine may call it too. It
// returns early, with an error, when ctx ends or the task is killed.
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

// Yield suspends the calling task until the loop's next turn, so that the other tasks and
// I/O have theirs. On a goroutine it is runtime.Gosched.
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
