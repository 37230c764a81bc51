package loop

import (
	"context"
	"os"

	"github.com/noria-go/noria/runtime"
)

// A call is one operation that a task waits for. Calls are pooled, so that
// their operations lie on the heap and yet cost no allocation.
type call struct {
	runtime.Op
	task  *Task
	timer timer
	next  *call
}

func (l *Loop) newCall(t *Task, code runtime.OpCode, h runtime.Handle) *call {
	c := l.calls
	if c == nil {
		c = &call{}
		c.timer.fire = func() { l.makeReady(c.task) }
		c.Done = func(op *runtime.Op) {
			switch {
			case c.task != nil:
				l.makeReady(c.task)
			case op.Got != 0: // nobody waits for it any more: see freeCall
				l.closeHandle(op.Got)
			}
		}
	} else {
		l.calls, c.next = c.next, nil
	}
	c.task, c.Code, c.Handle = t, code, h
	return c
}

// freeCall keeps c for the next call, without what it carried; unless a panic came
// between, such as one of a context's Err, and the kernel has it still.
func (l *Loop) freeCall(c *call) {
	c.task = nil
	if c.InFlight() {
		l.rt.Cancel(&c.Op)
		return
	}
	c.Buf, c.Path, c.Addr, c.Err = nil, "", runtime.Addr{}, nil
	c.Skip, c.Off, c.Len, c.Flags, c.Mode = 0, 0, 0, 0, 0
	c.next, l.calls = l.calls, c
}

// do submits c and waits until it has ended. If ctx ends, the task is killed
// or deadline passes, the operation is cancelled and then waited for: nothing
// is left behind in the kernel, and if it had succeeded by then, it has.
// With noContext and no deadline it simply waits.
func (c *call) do(ctx context.Context, deadline int64) error {
	t := c.task
	l := t.loop
	if ctx != noContext {
		// This also registers ctx: without it, its end would wake nobody.
		if err := t.interrupted(ctx); err != nil {
			return &runtime.OpError{Op: c.Code.String(), Handle: c.Handle, Err: err}
		}
	}
	if deadline != runtime.Forever {
		l.timers.set(&c.timer, deadline)
		defer l.timers.stop(&c.timer)
	}
	var why error
	l.rt.Submit(&c.Op)
	for c.InFlight() {
		t.park()
		if why != nil || !c.InFlight() {
			continue
		}
		switch {
		case t.killed && ctx != noContext:
			why = runtime.ErrCanceled
		case t.contextErr(ctx) != nil:
			why = t.contextErr(ctx)
		case deadline != runtime.Forever && l.rt.Now() >= deadline:
			why = os.ErrDeadlineExceeded
		}
		if why != nil {
			l.rt.Cancel(&c.Op)
		}
	}
	if c.Err != nil && why != nil {
		return &runtime.OpError{Op: c.Code.String(), Handle: c.Handle, Err: why}
	}
	return c.Err
}

// closeHandle closes h without anybody waiting for it.
func (l *Loop) closeHandle(h runtime.Handle) {
	op := &runtime.Op{Code: runtime.OpClose, Handle: h, Done: func(*runtime.Op) {}}
	l.rt.Submit(op)
}
