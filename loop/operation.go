package loop

import (
	"context"
	"os"

	"github.com/noria-go/noria/internal/list"
	"github.com/noria-go/noria/runtime"
)

// A call is one operation that a task waits for. The loop keeps its calls for reuse:
// an operation must lie on the heap, and costs no allocation all the same.
type call struct {
	runtime.Op
	task  *Task
	timer timer
	free  list.Link[call]
}

func (l *Loop) newCall(t *Task, code runtime.OpCode, h runtime.Handle) *call {
	c := l.calls.Pop()
	if c == nil {
		c = &call{}
		c.timer.fire = func() { l.makeReady(c.task) }
		c.Done = func(op *runtime.Op) {
			switch {
			case c.task != nil:
				l.makeReady(c.task)
			case op.Got != 0: // no task waits for it any more: see freeCall
				l.closeHandle(op.Got)
			}
		}
	}
	c.task, c.Code, c.Handle = t, code, h
	return c
}

// freeCall clears c and keeps it for reuse. If the task has panicked while it waited
// (a context's Err method may panic), the kernel still has the operation: then
// freeCall cancels it.
func (l *Loop) freeCall(c *call) {
	c.task = nil
	if c.InFlight() {
		l.rt.Cancel(&c.Op)
		return
	}
	c.Buf, c.Path, c.Addr, c.Err = nil, "", runtime.Addr{}, nil
	c.N = 0 // Submit clears it too, but do may fail before
	c.Skip, c.Off, c.Len, c.Flags, c.Mode = 0, 0, 0, 0, 0
	l.calls.Push(&c.free, c)
}

// do submits c and waits for its end. If ctx ends, the task is killed or deadline
// passes, do cancels the operation and waits for its end all the same: nothing is
// left in the kernel, and an operation that succeeded before the cancel has
// succeeded. With noContext and Forever, do waits for the operation alone.
func (c *call) do(ctx context.Context, deadline int64) error {
	t := c.task
	l := t.loop
	if ctx != noContext {
		// This also registers ctx, so that its end wakes the task.
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

// closeHandle closes h. No task waits for it.
func (l *Loop) closeHandle(h runtime.Handle) {
	op := &runtime.Op{Code: runtime.OpClose, Handle: h, Done: func(*runtime.Op) {}}
	l.rt.Submit(op)
}
