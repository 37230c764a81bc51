package loop

import (
	"context"

	"github.com/noria-go/noria/internal/list"
)

// A waiter is a task, or an ordinary goroutine, that waits in a list.
type waiter struct {
	task *Task
	ch   chan struct{} // of a goroutine
	fn   func()        // of neither: see Notify
	loop *Loop         // where fn runs
	node list.Node[waiter]
}

func (w *waiter) wake() {
	if w.task != nil {
		w.task.wake()
		return
	}
	if w.fn != nil {
		if w.loop.onThread() {
			w.loop.nextTurn.push(w.fn)
		} else {
			_ = w.loop.post(w.fn) // else the loop has ended
		}
		return
	}
	select {
	case w.ch <- struct{}{}:
	default:
	}
}

// wake makes t look again at what it waits for. Any goroutine may call it.
func (t *Task) wake() {
	if t.loop.onThread() {
		t.loop.makeReady(t)
	} else {
		t.loop.postTask(t)
	}
}

// A waitList is first in, first out. It belongs to one loop, or to whoever
// holds the mutex that stands beside it.
type waitList struct{ list.List[waiter] }

func (l *waitList) add(w *waiter) { l.PushBack(&w.node, w) }

// remove takes w out and reports whether it was still in: if not, somebody
// has woken it.
func (l *waitList) remove(w *waiter) bool {
	if w.node.List() != &l.List {
		return false
	}
	l.Remove(&w.node)
	return true
}

func (l *waitList) wakeOne() {
	if w := l.PopFront(); w != nil {
		w.wake()
	}
}

func (l *waitList) wakeAll() {
	for l.Len() > 0 {
		l.wakeOne()
	}
}

// A Source is something that WaitAny can wait for: an *Event, a *Queue, what
// Stream.Readable returns.
type Source interface {
	// poll reports whether there is something; if not, and w is not nil, w is
	// woken when there may be.
	poll(w *waiter) bool
	// unpoll takes w back.
	unpoll(w *waiter)
}

// A bound is a Source that belongs to a loop.
type bound interface{ home() *Loop }

// checkHome fails if a source is another loop's, or the caller is on none.
func checkHome(sources []Source) error {
	for _, s := range sources {
		if l := homeOf(s); l != nil && !l.onThread() {
			return ErrOffLoop
		}
	}
	return nil
}

// homeOf returns the loop that s belongs to, or nil: it may be used anywhere.
func homeOf(s Source) *Loop {
	switch s := s.(type) {
	case *when:
		return homeOf(s.src)
	case bound:
		return s.home()
	}
	return nil
}

// waitSources waits for the first of several sources.
func waitSources(ctx context.Context, sources []Source) (int, error) {
	t, onLoop := caller(ctx)
	switch {
	case t == nil && onLoop:
		return -1, errNoTask
	case t == nil:
		return waitSourcesGoroutine(ctx, sources)
	}
	ws := t.nodes[:]
	if len(sources) > len(ws) {
		ws = make([]waiter, len(sources))
	}
	for {
		if err := t.interrupted(ctx); err != nil {
			return -1, err
		}
		if i := pollAll(sources, ws, t, nil); i >= 0 {
			return i, nil
		}
		t.park()
		for i, s := range sources {
			s.unpoll(&ws[i])
		}
	}
}

func waitSourcesGoroutine(ctx context.Context, sources []Source) (int, error) {
	ws := make([]waiter, len(sources))
	ch := make(chan struct{}, 1)
	var done <-chan struct{}
	if ctx != nil {
		done = ctx.Done()
	}
	for {
		if ctx != nil && ctx.Err() != nil {
			return -1, ctx.Err()
		}
		if i := pollAll(sources, ws, nil, ch); i >= 0 {
			return i, nil
		}
		select {
		case <-ch:
		case <-done:
		}
		for i, s := range sources {
			s.unpoll(&ws[i])
		}
	}
}

// pollAll registers with each source and returns the first that has something
// already, or -1.
func pollAll(sources []Source, ws []waiter, t *Task, ch chan struct{}) (found int) {
	asked := 0
	found = len(sources) // until it is known: What When is given may panic
	defer func() {
		if found >= 0 {
			for i := range asked {
				sources[i].unpoll(&ws[i])
			}
		}
	}()
	for ; asked < len(sources); asked++ {
		w := &ws[asked]
		w.task, w.ch = t, ch
		if sources[asked].poll(w) {
			return asked
		}
	}
	return -1
}

// WaitAny suspends the calling task until one of the sources has something,
// and returns the index of the first that has. It takes nothing: whoever
// calls it takes with TryGet or a Read that will not wait. A source that always
// has something hides those behind it: look at them too from time to time. An
// ordinary goroutine may call it for events and queues; a stream is for the
// tasks of its own loop.
func WaitAny(ctx context.Context, sources ...Source) (int, error) {
	if err := checkHome(sources); err != nil {
		return -1, opErr("wait", 0, err)
	}
	i, err := waitSources(ctx, sources)
	return i, opErr("wait", 0, err)
}

// A when is ready when ready reports true or src is ready.
type when struct {
	ready func() bool
	src   Source
}

func (c *when) poll(w *waiter) bool { return c.ready() || c.src.poll(w) }
func (c *when) unpoll(w *waiter)    { c.src.unpoll(w) }

// Notify has fn called once, on the loop, when src may have something: it is
// what WaitAny is for code that is no task. It is called on the loop's thread. If
// src belongs to a loop, it must be this one.
func (l *Loop) notify(src Source, fn func()) {
	l.mustBeOn("Notify")
	if home := homeOf(src); home != nil && home != l {
		panic("loop: Notify of what belongs to another loop")
	}
	w := &waiter{loop: l}
	w.fn = func() {
		src.unpoll(w)
		fn()
	}
	if src.poll(w) {
		l.onNextTurn(fn)
	}
}
