package loop

import (
	"fmt"

	"github.com/noria-go/noria/internal/list"
	"github.com/noria-go/noria/runtime"
)

// Post runs fn on the loop, outside any task: fn must not block, and what
// blocks refuses to. A panic of it is contained; runtime.Goexit is not, and
// ends the loop. It fails with ErrBusy if MaxPosts functions wait already,
// and with ErrClosed if the loop has ended or will not get to fn any more.
func (l *Loop) Post(fn func()) error { return l.addPost(fn, 1) }

// post is Post for the library itself: MaxPosts does not bind it, and so it fails
// only if the loop has ended. What it posts is bounded by what there is: the
// connections, the listeners and the callers that wait.
func (l *Loop) post(fn func()) error { return l.addPost(fn, 0) }

// addPost appends fn to the posts, of which users more are the user's.
func (l *Loop) addPost(fn func(), users int) error {
	l.mu.Lock()
	switch {
	case l.closed:
		l.mu.Unlock()
		return &runtime.OpError{Op: "post", Detail: l.opts.Name, Err: runtime.ErrClosed}
	case users > 0 && l.users >= l.opts.MaxPosts:
		l.mu.Unlock()
		return &runtime.OpError{Op: "post", Detail: l.opts.Name, Err: fmt.Errorf("%w: %d functions wait already", runtime.ErrBusy, l.opts.MaxPosts)}
	}
	l.posts = append(l.posts, fn)
	l.users += users
	l.mu.Unlock()
	l.wake()
	return nil
}

// postTask makes t ready from another thread. It cannot fail: the list goes
// through the tasks themselves.
func (l *Loop) postTask(t *Task) {
	if t.waking.Swap(true) {
		return
	}
	l.mu.Lock()
	l.wakes.Push(&t.woken, t)
	l.mu.Unlock()
	l.wake()
}

func (l *Loop) hasPosts() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.posts) > 0 || !l.wakes.Empty()
}

func (l *Loop) takePosts() {
	l.runBatch() // the rest of one that runtime.Goexit has cut short
	l.mu.Lock()
	if len(l.posts) == 0 && l.wakes.Empty() {
		l.mu.Unlock()
		return
	}
	posts, wakes := l.posts, l.wakes
	l.posts, l.users, l.spare, l.wakes = l.spare[:0], 0, nil, list.Stack[Task]{}
	l.mu.Unlock()
	for t := wakes.Pop(); t != nil; t = wakes.Pop() {
		t.waking.Store(false) // before it looks at what it waits for
		if want := t.wanted.Swap(0); want != 0 {
			t.cancel(want == wantKill)
		}
		l.makeReady(t)
	}
	l.batch = posts
	l.runBatch()
	if cap(posts) <= 1024 {
		l.mu.Lock()
		l.spare = posts[:0]
		l.mu.Unlock()
	}
}

func (l *Loop) runBatch() {
	for len(l.batch) > 0 {
		fn := l.batch[0]
		l.batch[0] = nil
		l.batch = l.batch[1:]
		l.runPost(fn)
	}
}

// runPost contains a panic of fn, as a task's is.
func (l *Loop) runPost(fn func()) {
	if l.phase.Load()&1 == 0 { // not in Poll: the watchdog is to see that it is another one
		l.turn += 2
		l.phase.Store(l.turn)
	}
	l.contain("posted function", fn)
}

// contain runs fn, which what describes. It returns how it panicked, which has
// been reported, or nil.
func (l *Loop) contain(what string, fn func()) (failed *PanicError) {
	polls := l.phase.Load()&1 != 0 && l.called.Load()&1 == 0 // and not inside another one
	if polls {
		l.called.Add(1)
	}
	returned := false
	defer func() {
		if polls {
			l.called.Add(1)
		}
		if returned {
			return
		}
		if v := recover(); v != nil {
			failed = newPanicError(what, v)
			l.reportPanic(failed)
		} else {
			l.goexit = true
		}
	}()
	fn()
	returned = true
	return nil
}

func (l *Loop) reportPanic(p *PanicError) {
	if l.opts.OnPanic != nil {
		l.opts.OnPanic(p)
		return
	}
	l.opts.Logger.Error("noria: task panicked", "loop", l.opts.Name, "task", p.Task, "panic", p.Value, "stack", string(p.Stack))
}

// NextTurn has fn called on the loop in its next turn, or, if there is none, when the
// loop ends. It is called on the loop's thread, and unlike Post it cannot fail; what
// is given to it when the loop has ended, or by a function that its end calls, is not
// called any more.
func (l *Loop) onNextTurn(fn func()) {
	l.mustBeOn("NextTurn (use Post)")
	l.nextTurn.push(fn)
}
