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

// A Task is a piece of straight-line code that runs on a loop's thread as a
// coroutine. A call that has to wait (reading from a Stream, Sleep, taking
// from a Queue) suspends the task, and the loop goes on with the others until
// what it waits for has happened. Between two such calls a task is alone: no
// other task of its loop runs.
//
// A task must not block its thread: no channels, no mutex that anyone holds
// while suspended, no time.Sleep, no other I/O. Offload is for that. Nor may
// it change how often runtime.LockOSThread was called and then wait: Go's
// runtime ends the program over it.
//
// The context that the task's function gets is the task itself, so it costs
// nothing more. It is done when the task is cancelled, when its parent is, and
// when it has ended.
//
// Cancelling has two steps. A drain ends the context: calls that take it fail
// from then on, those of a Stream go on, so that a handler can say goodbye. A
// kill makes every call that has to wait fail with ErrCanceled.
type Task struct {
	loop   *Loop // what waiting needs comes first: see Op
	worker *worker
	queued bool // in the loop's run queue
	apart  bool // a drain of the parent does not reach it
	killed bool
	body   bool // fn has returned
	over   bool // and the children have ended too
	nodes  [4]waiter

	name  string
	fn    func(ctx context.Context) error
	onEnd func(error)
	err   error

	values  context.Context // for Value; nil: none
	parent  *Task
	kids    list.List[Task]
	sibling list.Node[Task]
	sleep   timer
	foreign foreignContext
	joiners waitList // wait for it to end

	waking atomic.Bool // in Loop.wakes
	woken  list.Link[Task]
	wanted atomic.Int32 // what other threads asked for: see Cancel

	// What of a context other goroutines may look at.
	ended  atomic.Bool
	mu     sync.Mutex
	done   chan struct{}
	afters []*afterFunc
}

// ErrGoexit is what a task ended with that called runtime.Goexit, as
// testing.T.FailNow does. Its coroutine stays suspended for good, because to
// let it end would end the loop.
var ErrGoexit = errors.New("task called runtime.Goexit")

// Go starts a task that runs fn, as a child of the task that ctx belongs to:
// it is cancelled with it, and that task has ended only when fn has returned
// too. ctx must come from a task; the child runs on the same loop. An error
// that fn returns is the child's own business, see Task.Wait.
func Go(ctx context.Context, name string, fn func(ctx context.Context) error) (*Task, error) {
	return goKid(TaskOf(ctx), name, fn, false)
}

func goKid(parent *Task, name string, fn func(ctx context.Context) error, apart bool) (*Task, error) {
	if parent == nil || !parent.loop.onThread() {
		return nil, &runtime.OpError{Op: "go", Detail: name, Err: ErrOffLoop}
	}
	if parent.over {
		return nil, &runtime.OpError{Op: "go", Detail: name, Err: fmt.Errorf("task %s, whose child it would be, has ended: %w", parent.name, runtime.ErrClosed)}
	}
	return parent.loop.spawnKid(parent, name, fn, nil, apart), nil
}

// Go starts a task on the loop. From elsewhere than its thread it fails as
// Post does. ended, if not nil, is called on the loop with what fn returned:
// a *PanicError if it panicked, ErrGoexit if it went that way.
func (l *Loop) Go(name string, fn func(ctx context.Context) error, ended func(error)) error {
	return l.goTask(name, fn, ended, l.Post)
}

// goTask is Go by way of post, which is Post or what the library has in its place.
func (l *Loop) goTask(name string, fn func(ctx context.Context) error, ended func(error), post func(func()) error) error {
	if l.onThread() {
		l.spawn(&l.root, name, fn, ended)
		return nil
	}
	return post(func() { l.spawn(&l.root, name, fn, ended) })
}

// Call runs fn as a task on the loop and returns what it returned, when it
// has ended. The caller may be an ordinary goroutine, a task of another loop
// (which is suspended meanwhile), or on this loop already. If ctx belongs to a
// task of this loop, what runs fn is a child of that task. Otherwise the end
// of ctx kills it. From elsewhere than the loop's thread it fails as Post does.
func (l *Loop) Call(ctx context.Context, name string, fn func(ctx context.Context) error) error {
	return l.callBy(ctx, name, fn, l.Post)
}

// call is Call for the library itself: see post.
func (l *Loop) call(ctx context.Context, name string, fn func(ctx context.Context) error) error {
	return l.callBy(ctx, name, fn, l.post)
}

// callBy is Call by way of post.
func (l *Loop) callBy(ctx context.Context, name string, fn func(ctx context.Context) error, post func(func()) error) error {
	if t := l.current(); t != nil {
		return fn(t.context())
	}
	if l.onThread() {
		return &runtime.OpError{Op: "call", Detail: name, Err: errNoTask}
	}
	var (
		done   Event
		result error
		child  atomic.Pointer[Task]
	)
	parent := TaskOf(ctx)
	if parent == nil || parent.loop != l {
		parent = &l.root
	}
	// A parent that drains is no reason to kill: its calls go on.
	cutShort := func() bool { return ctx.Err() != nil && !parent.ended.Load() }
	if ctx != parent.context() {
		stop := context.AfterFunc(ctx, func() {
			if t := child.Load(); t != nil && cutShort() {
				t.Cancel(true)
			}
		})
		defer stop()
	}
	err := post(func() {
		if ctx.Err() != nil && parent == &l.root {
			result = ctx.Err()
			done.Set()
			return
		}
		t := l.spawn(parent, name, fn, func(err error) {
			result = err
			done.Set()
		})
		if parent == &l.root {
			t.values = ctx
		}
		child.Store(t)
		if cutShort() {
			t.cancel(true) // it ended before child was there to be seen
		}
	})
	if err != nil {
		return err
	}
	done.join(ctx) // it always ends: cancelling sees to that
	return result
}

// spawn makes a task and lets it run in the next turn.
func (l *Loop) spawn(parent *Task, name string, fn func(context.Context) error, ended func(error)) *Task {
	return l.spawnKid(parent, name, fn, ended, false)
}

func (l *Loop) spawnKid(parent *Task, name string, fn func(context.Context) error, ended func(error), apart bool) *Task {
	t := &Task{loop: l, name: name, fn: fn, onEnd: ended, values: parent.values, apart: apart}
	t.sleep.fire = func() { l.makeReady(t) }
	l.tasks++
	if parent.over {
		// Nobody would cancel it: what is over is in no list of children.
		l.root.addKid(t)
		t.refuse()
		return t
	}
	parent.addKid(t)
	if l.state.Load() == loopDone || l.refused {
		t.refuse()
		return t
	}
	if parent.ended.Load() && (parent.killed || parent.body || !apart) {
		t.cancel(parent.killed || parent.body)
	}
	l.makeReady(t)
	return t
}

// refuse ends t, which has not begun.
func (t *Task) refuse() {
	t.body = true
	t.finish(&runtime.OpError{Op: "go", Detail: t.name, Err: runtime.ErrClosed})
}

// bodyEnded is called when fn has returned: the children are killed, and when
// they are gone the task has ended.
func (t *Task) bodyEnded(err error) {
	t.body = true
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
		// A panic of it is contained too. It is no task's: t, whose coroutine
		// this may be, is over and could not be resumed if it waited.
		cur := t.loop.cur
		t.loop.cur = nil
		t.loop.runPost(func() { t.onEnd(err) })
		t.loop.cur = cur
		t.onEnd = nil
	}
	t.joiners.wakeAll()
	if p.body && p.kids.Len() == 0 && !p.over {
		p.finish(p.err)
	}
}

func (t *Task) addKid(k *Task) {
	k.parent = t
	t.kids.PushFront(&k.sibling, k)
}

func (t *Task) eachKid(f func(*Task)) {
	for k := range t.kids.All() {
		f(k)
		k.eachKid(f)
	}
}

// Loop returns the loop that the task runs on.
func (t *Task) Loop() *Loop { return t.loop }

// Cancel ends the task's context and that of its children; with kill, every
// call of theirs that has to wait fails with ErrCanceled. It may be called
// from anywhere; from another thread it takes effect in the loop's next turn.
func (t *Task) Cancel(kill bool) {
	if t.loop.onThread() {
		t.cancel(kill)
		return
	}
	// Not by Post, which a busy loop refuses.
	if kill {
		t.wanted.Store(wantKill)
	} else {
		t.wanted.CompareAndSwap(0, wantDrain)
	}
	t.loop.postTask(t)
}

// Values of Task.wanted.
const (
	wantDrain = iota + 1
	wantKill
)

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
		t.loop.makeReady(t) // what waits looks at the context again
	}
}

// Wait suspends the calling task until t has ended and returns t's error.
// Both must be tasks of one loop.
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

// park suspends the task until something makes it ready. That may be anything:
// whoever parks looks again at what it waits for.
func (t *Task) park() { t.worker.suspend(struct{}{}) }

// waitOn waits until list is woken, or ctx ends, or the task is killed; with
// noContext only a kill counts.
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

// interrupted says whether t must not wait any more. A killed task that does
// not listen would hold the loop for ever, so it is told only after the others
// had their turn.
func (t *Task) interrupted(ctx context.Context) error {
	if t.killed {
		t.loop.makeReady(t)
		t.park()
		return runtime.ErrCanceled
	}
	return t.contextErr(ctx)
}
