package loop

import (
	"context"
	"os"

	"github.com/noria-go/noria/internal/list"
	"github.com/noria-go/noria/runtime"
)

// An operation is a runtime.Op that a task waits for. It must be on the heap, so the loop
// keeps operations for reuse: then a call allocates nothing.
type operation struct {
	runtime.Op
	task  *Task
	timer timer
	free  list.Link[operation]
}

func (l *Loop) newOperation(t *Task, code runtime.OpCode, h runtime.Handle) *operation {
	o := l.operations.Pop()
	if o == nil {
		o = &operation{}
		o.timer.fire = func() { l.makeReady(o.task) }
		o.Done = func(op *runtime.Op) {
			switch {
			case o.task != nil:
				l.makeReady(o.task)
			case op.Got != 0: // the task has given up: see freeOperation
				l.closeHandle(op.Got)
			}
		}
	}
	o.task, o.Code, o.Handle = t, code, h
	return o
}

// freeOperation clears o and keeps it for reuse. If the task has panicked while it waited
// (a context's Err method may panic), o is still in flight: then freeOperation cancels
// it.
func (l *Loop) freeOperation(o *operation) {
	o.task = nil
	if o.InFlight() {
		l.rt.Cancel(&o.Op)
		return
	}
	o.Buf, o.Path, o.Addr, o.Err = nil, "", runtime.Addr{}, nil
	o.N = 0 // Submit clears it too, but do may fail before that
	o.Skip, o.Off, o.Len, o.Flags, o.Mode = 0, 0, 0, 0, 0
	l.operations.Push(&o.free, o)
}

// do submits o and waits until it has completed. If ctx ends, the task is killed or
// deadline passes, do cancels the operation, but still waits: nothing is left in the
// kernel, and an operation that succeeded before the cancel took effect has succeeded.
// With noContext and Forever, nothing cancels the operation.
func (o *operation) do(ctx context.Context, deadline int64) error {
	t := o.task
	l := t.loop
	if ctx != noContext {
		// This also registers ctx, so that its end wakes the task.
		if err := t.interrupted(ctx); err != nil {
			return &runtime.OpError{Op: o.Code.String(), Handle: o.Handle, Err: err}
		}
	}
	if deadline != runtime.Forever {
		l.timers.set(&o.timer, deadline)
		defer l.timers.stop(&o.timer)
	}
	var why error
	l.rt.Submit(&o.Op)
	for o.InFlight() {
		t.park()
		if why != nil || !o.InFlight() {
			continue
		}
		switch {
		case t.killed && ctx != noContext:
			why = t.killErr()
		case t.contextErr(ctx) != nil:
			why = t.contextErr(ctx)
		case deadline != runtime.Forever && l.rt.Now() >= deadline:
			why = os.ErrDeadlineExceeded
		}
		if why != nil {
			l.rt.Cancel(&o.Op)
		}
	}
	if o.Err != nil && why != nil {
		return &runtime.OpError{Op: o.Code.String(), Handle: o.Handle, Err: why}
	}
	return o.Err
}

// closeHandle closes h and does not wait.
func (l *Loop) closeHandle(h runtime.Handle) {
	op := &runtime.Op{Code: runtime.OpClose, Handle: h, Done: func(*runtime.Op) {}}
	l.rt.Submit(op)
}
