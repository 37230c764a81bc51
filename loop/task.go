package loop

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/noria-go/noria/internal/list"
	"github.com/noria-go/noria/runtime"
)

// A Task is straight-line code that runs on a loop's thread as a coroutine. A call that
// has to wait (reading from a Stream, Sleep, taking from a Queue) suspends the task, and
// the loop resumes other tasks until the wait is over. Between two such calls no other
// task of the loop runs.
//
// A task must not block its thread: no channel operation, no time.Sleep, no I/O other
// than this package's, no mutex that its holder keeps while it is suspended. Offload is
// for that. A task that has called runtime.LockOSThread must undo it before its next
// call that waits; otherwise Go's runtime ends the program.
//
// The context that the task's function gets is the task itself. It ends when the task
// or its parent is cancelled, and when the function has returned.
//
// A task is cancelled in two steps. A drain ends the context: calls that take the
// context fail from then on. But reading and writing go on, a deferred Offload runs its
// function, and so does every call with context.WithoutCancel of the context: so a handler
// can end its conversation and clean up. A server gives its handlers DrainTime for that,
// and then kills them. A kill makes every call fail with ErrCanceled that has to wait, and
// Offload does not run its function; a function that is running is waited for.
type Task struct {
	// The fields that waiting touches come first: they share cache lines.
	loop     *Loop
	worker   *worker
	queued   bool // in the loop's run queue
	apart    bool // a drain of the parent does not reach it
	killed   bool
	late     bool // killed by the deadline of the context that Call was given
	called   bool // values is the context that Call was given
	returned bool // fn has returned
	over     bool // fn has returned and the children have ended
	nodes    [4]waiter

	name  string
	fn    func(ctx context.Context) error
	onEnd func(error)
	err   error

	values  context.Context // for Value; nil: there are none
	parent  *Task
	kids    list.List[Task]
	sibling list.Node[Task]
	sleep   timer
	foreign foreignContext
	joiners waitList // tasks in Wait

	waking atomic.Bool // in Loop.wakes
	woken  list.Link[Task]
	wanted atomic.Int32 // what another thread has asked for: see Cancel

	// The part of the context that other goroutines may look at.
	ctxEnded atomic.Bool
	mu       sync.Mutex
	done     chan struct{}
	afters   []*afterFunc
}

// ErrGoexit is the error of a task that called runtime.Goexit, as testing.T.FailNow
// does. Its coroutine stays suspended for good: if it ended, it would end the loop.
var ErrGoexit = errors.New("task called runtime.Goexit")

// Go starts a task that runs fn, as a child of the task that ctx comes from, and does
// not wait. It is called on the loop of that task, and the child runs there. The child
// is cancelled with its parent, and killed when the parent's function returns. The parent
// has ended only when the child has. The error of fn goes to Task.Wait and nowhere else.
func Go(ctx context.Context, name string, fn func(ctx context.Context) error) (*Task, error) {
	return goChild(TaskOf(ctx), name, fn, false)
}

func goChild(parent *Task, name string, fn func(ctx context.Context) error, apart bool) (*Task, error) {
	if parent == nil || !parent.loop.onLoop() {
		return nil, &runtime.OpError{Op: "go", Detail: name, Err: ErrOffLoop}
	}
	if parent.over {
		return nil, &runtime.OpError{Op: "go", Detail: name, Err: fmt.Errorf("task %s, whose child it would be, has ended: %w", parent.name, runtime.ErrClosed)}
	}
	return parent.loop.spawnChild(parent, name, fn, nil, apart), nil
}

// Go starts a task that runs fn on the loop. It may be called from anywhere and does not
// wait. Off the loop it is a Post, and fails as Post does. If ended is not nil, it is
// called on the loop when the task has ended, with the error of fn: a *PanicError if fn
// panicked, ErrGoexit if it called runtime.Goexit.
func (l *Loop) Go(name string, fn func(ctx context.Context) error, ended func(error)) error {
	return l.goTask(name, fn, ended, l.Post)
}

// goTask is Go with the function to post with: Post, or post for the library.
func (l *Loop) goTask(name string, fn func(ctx context.Context) error, ended func(error), post func(func()) error) error {
	if l.onLoop() {
		l.spawn(&l.root, name, fn, ended)
		return nil
	}
	return post(func() { l.spawn(&l.root, name, fn, ended) })
}

// Call runs fn as a task on the loop, waits until the task has ended, and returns the
// error of fn. Goroutines and tasks may call it; a task is suspended meanwhile. Off the
// loop Call begins with a Post, and fails as Post does.
//
// If ctx comes from a task of this loop, the new task is a child of that task; otherwise it
// is a child of the caller if that is a task of this loop. The end of ctx kills the new
// task, unless a drain of that parent has ended ctx. The new task's context has the values
// and the deadline of ctx; if that deadline passes, the context and the calls that it cuts
// short fail with context.DeadlineExceeded.
//
// A task of this loop runs fn itself, and no new task is made, if ctx is its own or never
// ends. In the second case fn gets the caller's own context, and ctx is not used.
func (l *Loop) Call(ctx context.Context, name string, fn func(ctx context.Context) error) error {
	return l.callBy(ctx, name, fn, l.Post)
}

// call is Call for the library itself: MaxPosts does not bind it.
func (l *Loop) call(ctx context.Context, name string, fn func(ctx context.Context) error) error {
	return l.callBy(ctx, name, fn, l.post)
}

// callBy is Call with the function to post with.
func (l *Loop) callBy(ctx context.Context, name string, fn func(ctx context.Context) error, post func(func()) error) error {
	t := l.current()
	if t == nil {
		// A function given to Post, of whichever loop, would hold its thread.
		if cur, onLoop := caller(ctx); cur == nil && onLoop {
			return &runtime.OpError{Op: "call", Detail: name, Err: errNoTask}
		}
	}
	switch {
	case t != nil && TaskOf(ctx) == t:
		return fn(ctx)
	case t != nil && ctx.Done() == nil: // it never ends
		return fn(t.context())
	}
	var (
		done   Event
		result error
		child  atomic.Pointer[Task]
	)
	parent := TaskOf(ctx)
	within := parent != nil && parent.loop == l
	switch {
	case within:
	case t != nil:
		parent, post = t, l.post
	default:
		parent = &l.root
	}
	// A drain of the parent must not kill the child: its calls go on.
	cutShort := func() bool { return ctx.Err() != nil && !(within && parent.ctxEnded.Load()) }
	if ctx != parent.context() {
		stop := context.AfterFunc(ctx, func() {
			if t := child.Load(); t != nil && cutShort() {
				t.ask(wantEnd(ctx))
			}
		})
		defer stop()
	}
	err := post(func() {
		if ctx.Err() != nil && !within {
			result = ctx.Err()
			done.Set()
			return
		}
		t := l.spawn(parent, name, fn, func(err error) {
			result = err
			done.Set()
		})
		t.values, t.called = ctx, true
		child.Store(t)
		if cutShort() {
			t.obey(wantEnd(ctx)) // ctx ended before the AfterFunc could see child
		}
	})
	if err != nil {
		return err
	}
	done.join(ctx) // the child always ends: the end of ctx kills it
	return result
}

// spawn makes a task that runs in the next turn.
func (l *Loop) spawn(parent *Task, name string, fn func(context.Context) error, ended func(error)) *Task {
	return l.spawnChild(parent, name, fn, ended, false)
}

func (l *Loop) spawnChild(parent *Task, name string, fn func(context.Context) error, ended func(error), apart bool) *Task {
	t := &Task{loop: l, name: name, fn: fn, onEnd: ended, values: parent.values, apart: apart}
	t.sleep.fire = func() { l.makeReady(t) }
	l.tasks++
	if parent.over {
		// No cancel would reach it: a task that is over is in no list of children.
		l.root.addChild(t)
		t.refuse()
		return t
	}
	parent.addChild(t)
	if l.state.Load() == loopDone || l.refused {
		t.refuse()
		return t
	}
	if parent.ctxEnded.Load() && (parent.killed || parent.returned || !apart) {
		t.late = parent.late
		t.cancel(parent.killed || parent.returned)
	}
	l.makeReady(t)
	return t
}

// refuse ends t, which has not started.
func (t *Task) refuse() {
	t.returned = true
	t.finish(&runtime.OpError{Op: "go", Detail: t.name, Err: runtime.ErrClosed})
}

// functionReturned is called when fn has returned. It kills the children; when they have ended,
// the task has ended.
func (t *Task) functionReturned(err error) {
	t.returned = true
	t.err = err
	t.fn, t.worker = nil, nil
	t.foreign.drop(t.loop)
	t.loop.timers.stop(&t.sleep)
	t.endContext()
	for kid := range t.kids.All() {
		kid.cancel(true)
	}
	if t.kids.Len() == 0 {
		t.finish(err)
	}
}

func (t *Task) finish(err error) {
	t.over = true
	t.err = err
	t.endContext()
	t.loop.tasks--
	p := t.parent
	p.kids.Remove(&t.sibling)
	if t.onEnd != nil {
		// onEnd runs outside any task: if it could wait, it would suspend the coroutine
		// of t, which is over and is not resumed.
		cur := t.loop.cur
		t.loop.cur = nil
		t.loop.runPost(func() { t.onEnd(err) })
		t.loop.cur = cur
		t.onEnd = nil
	}
	t.joiners.wakeAll()
	if p.returned && p.kids.Len() == 0 && !p.over {
		p.finish(p.err)
	}
}

func (t *Task) addChild(k *Task) {
	k.parent = t
	t.kids.PushFront(&k.sibling, k)
}

func (t *Task) eachDescendant(f func(*Task)) {
	for k := range t.kids.All() {
		f(k)
		k.eachDescendant(f)
	}
}

// Loop returns the loop that the task runs on. It may be called from anywhere.
func (t *Task) Loop() *Loop { return t.loop }

// Cancel drains the task and its children: it ends their contexts. With kill, all their
// calls that have to wait also fail with ErrCanceled. It may be called from anywhere and
// does not wait. From another thread it takes effect in the loop's next turn.
func (t *Task) Cancel(kill bool) {
	want := int32(wantDrain)
	if kill {
		want = wantKill
	}
	t.ask(want)
}

// Values of Task.wanted.
const (
	wantDrain = iota + 1
	wantKill
	wantLate // to kill, because a deadline has passed
)

// wantEnd returns what the end of ctx wants of the task that Call started for it.
func wantEnd(ctx context.Context) int32 {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return wantLate
	}
	return wantKill
}

// ask has the loop's thread obey want.
func (t *Task) ask(want int32) {
	if t.loop.onLoop() {
		t.obey(want)
		return
	}
	// Not by a post, which allocates: the links are in the task.
	if want == wantDrain {
		t.wanted.CompareAndSwap(0, want)
	} else {
		t.wanted.Store(want)
	}
	t.loop.postTask(t)
}

// obey does what another thread has asked for.
func (t *Task) obey(want int32) {
	if want == wantLate {
		t.expire()
	}
	t.cancel(want != wantDrain)
}

// expire makes a deadline the error of the contexts of t and its children, except those
// that have ended already: a context's error never changes.
func (t *Task) expire() {
	if t.ctxEnded.Load() {
		return
	}
	t.late = true
	for k := range t.kids.All() {
		k.expire()
	}
}

func (t *Task) cancel(kill bool) {
	if t.over {
		return
	}
	t.endContext()
	if kill {
		t.killed = true
	}
	for k := range t.kids.All() {
		if kill || !k.apart {
			k.cancel(kill)
		}
	}
	if t.parent != nil {
		t.loop.makeReady(t) // if it waits, it looks at its context again
	}
}

// Wait suspends the calling task until t has ended, and returns the error of t's
// function. Only a task of the same loop may call it.
func (t *Task) Wait(ctx context.Context) error {
	me := t.loop.current()
	if me == nil {
		return &runtime.OpError{Op: "wait for task " + t.name, Err: ErrOffLoop}
	}
	for !t.over {
		if err := me.waitOn(&t.joiners, ctx); err != nil {
			return err
		}
	}
	return t.err
}

// park suspends the task until it is made ready, for whatever reason: the caller must
// look again at what it waits for.
func (t *Task) park() { t.worker.suspend(struct{}{}) }

// waitOn suspends t until list wakes it, ctx ends or t is killed. With noContext no
// context ends the wait.
func (t *Task) waitOn(list *waitList, ctx context.Context) error {
	if err := t.interrupted(ctx); err != nil {
		return err
	}
	w := &t.nodes[0]
	w.task = t
	list.add(w)
	t.park()
	list.remove(w)
	return t.interrupted(ctx)
}

// interrupted returns why t must not wait any more: it was killed, or ctx has ended. A
// killed task that ignores the error and calls again must not hold the loop, so each
// such call gives the other tasks a turn first.
func (t *Task) interrupted(ctx context.Context) error {
	if t.killed {
		t.loop.makeReady(t)
		t.park()
		return t.killErr()
	}
	return t.contextErr(ctx)
}

// killErr is the error of the calls that killing t cuts short.
func (t *Task) killErr() error {
	if t.late {
		return context.DeadlineExceeded
	}
	return runtime.ErrCanceled
}
