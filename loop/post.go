package loop

import (
	"fmt"

	"github.com/noria-go/noria/internal/list"
	"github.com/noria-go/noria/runtime"
)

// Post has the loop call fn in its next turn, outside any task. It may be called from
// anywhere and does not wait. fn must not block; calls that would have to wait fail with
// ErrOffLoop. The loop survives a panic of fn, but runtime.Goexit ends it. Post fails
// with ErrBusy if MaxPosts functions wait already, and with ErrClosed if the loop has
// ended or will end without calling fn.
func (l *Loop) Post(fn func()) error { return l.addPost(fn, true) }

// post is Post for the library itself. MaxPosts does not bind it, so it fails only if
// the loop has ended. The number of its posts is bounded by the number of connections,
// listeners and waiting callers.
func (l *Loop) post(fn func()) error { return l.addPost(fn, false) }

// addPost appends fn to the posts. bound says that fn counts against MaxPosts.
func (l *Loop) addPost(fn func(), bound bool) error {
	l.mu.Lock()
	switch {
	case l.closed:
		l.mu.Unlock()
		return &runtime.OpError{Op: "post", Detail: l.opts.Name, Err: runtime.ErrClosed}
	case bound && l.userPosts >= l.opts.MaxPosts:
		l.mu.Unlock()
		return &runtime.OpError{Op: "post", Detail: l.opts.Name, Err: fmt.Errorf("%w: %d functions wait already", runtime.ErrBusy, l.opts.MaxPosts)}
	}
	l.posts = append(l.posts, fn)
	if bound {
		l.userPosts++
	}
	l.mu.Unlock()
	l.wake()
	return nil
}

// postTask makes t ready from another thread. It cannot fail: the list's links are in
// the tasks.
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
	l.runBatch() // the rest of a batch that runtime.Goexit has cut short
	l.mu.Lock()
	if len(l.posts) == 0 && l.wakes.Empty() {
		l.mu.Unlock()
		return
	}
	posts, wakes := l.posts, l.wakes
	l.posts, l.userPosts, l.spare, l.wakes = l.spare[:0], 0, nil, list.Stack[Task]{}
	l.mu.Unlock()
	for t := wakes.Pop(); t != nil; t = wakes.Pop() {
		t.waking.Store(false) // before the task looks at what it waits for
		if want := t.wanted.Swap(0); want != 0 {
			t.obey(want)
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

// runPost calls fn and contains its panic.
func (l *Loop) runPost(fn func()) {
	if l.phase.Load()&1 == 0 { // not in Poll: shows the watchdog that another function runs
		l.begun += 2
		l.phase.Store(l.begun)
	}
	l.contain("posted function", fn)
}

// contain calls fn. If fn panics, contain reports the panic and returns it. what
// describes fn in the report.
func (l *Loop) contain(what string, fn func()) (failed *PanicError) {
	polls := l.phase.Load()&1 != 0 && l.called.Load()&1 == 0 // in Poll, and not nested
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

// onNextTurn has fn called on the loop in its next turn or, if there is none, when the
// loop ends. It is called on the loop, and panics elsewhere. Unlike Post it cannot fail,
// but once the loop has begun its last calls it does not call fn any more.
func (l *Loop) onNextTurn(fn func()) {
	l.mustBeOn("NextTurn (use Post)")
	l.nextTurn.push(fn)
}
