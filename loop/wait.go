package loop

import (
	"context"

	"github.com/noria-go/noria/internal/list"
)

// A waiter is a task, or an ordinary goroutine, that waits in a list.
type waiter struct {
	task *Task
	ch   chan struct{} // what wakes a goroutine
	fn   func()        // what notify has called, in place of a task or goroutine
	loop *Loop         // where fn runs
	node list.Node[waiter]
}

func (w *waiter) wake() {
	if w.task != nil {
		w.task.wake()
		return
	}
	if w.fn != nil {
		if w.loop.onLoop() {
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

// wake makes t look again at what it waits for. It may be called from anywhere.
func (t *Task) wake() {
	if t.loop.onLoop() {
		t.loop.makeReady(t)
	} else {
		t.loop.postTask(t)
	}
}

// A waitList is a first-in-first-out list of waiters. It is used on one loop only, or is
// guarded by the mutex of the struct that it is in.
type waitList struct{ list.List[waiter] }

func (l *waitList) add(w *waiter) { l.PushBack(&w.node, w) }

// remove removes w and reports whether w was in the list: if not, w was woken.
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

// A Source is something that WaitAny can wait for: an *Event, a *Queue, or what
// Stream.Readable and Stream.Writable return.
type Source interface {
	// poll reports whether the source is ready. If it is not and w is not nil, poll
	// registers w, to be woken when the source may be ready.
	poll(w *waiter) bool
	// unpoll unregisters w. If w was woken, it passes the wake-up on to another waiter.
	unpoll(w *waiter)
}

// A bound is a Source that belongs to a loop.
type bound interface{ home() *Loop }

// checkHome fails if a source belongs to a loop that the caller is not on.
func checkHome(sources []Source) error {
	for _, s := range sources {
		if l := homeOf(s); l != nil && !l.onLoop() {
			return ErrOffLoop
		}
	}
	return nil
}

// homeOf returns the loop that s belongs to, or nil if s may be used anywhere.
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

// pollAll registers with each source until one is ready. It returns the index of that
// one, and has unregistered from the others; or -1.
func pollAll(sources []Source, ws []waiter, t *Task, ch chan struct{}) (found int) {
	asked := 0
	found = len(sources) // so that a panic of ReadableWhen's function unregisters too
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

// WaitAny waits until one of the sources is ready, and returns the index of the first
// that is. It suspends the calling task. A goroutine may call it too, for events and
// queues; a stream's source is for the tasks of its own loop. WaitAny takes nothing from
// the source: the caller does that, with TryGet or a read, which then does not wait.
// Sources are tried in order; one that is always ready starves the rest.
func WaitAny(ctx context.Context, sources ...Source) (int, error) {
	if err := checkHome(sources); err != nil {
		return -1, opErr("wait", 0, err)
	}
	i, err := waitSources(ctx, sources)
	return i, opErr("wait", 0, err)
}

// A when is a Source that is ready when ready returns true or src is ready.
type when struct {
	ready func() bool
	src   Source
}

func (c *when) poll(w *waiter) bool { return c.ready() || c.src.poll(w) }
func (c *when) unpoll(w *waiter)    { c.src.unpoll(w) }

// notify has fn called once, on the loop and outside any task, when src may be ready. It
// is WaitAny for code that is no task. It is called on the loop, and panics elsewhere; a
// source that belongs to a loop must belong to this one.
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
