package loop

import (
	"context"
	"fmt"
	"sync"

	"github.com/noria-go/noria/runtime"
)

// A Queue carries values to tasks, in order, and holds a limited number of
// them. Anyone may put: tasks of any loop and goroutines. All methods may be
// called from anywhere.
type Queue[T any] struct {
	mu      sync.Mutex // never held while anything waits
	items   ring[T]
	limit   int
	closed  bool
	getters waitList
	putters waitList
}

// NewQueue returns a queue that holds up to limit values.
func NewQueue[T any](limit int) *Queue[T] {
	if limit < 1 {
		panic(fmt.Sprintf("loop: NewQueue(%d): the limit must be at least 1", limit))
	}
	return &Queue[T]{limit: limit}
}

// TryPut puts v unless the queue is full (ErrBusy) or closed (ErrClosed).
func (q *Queue[T]) TryPut(v T) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return &runtime.OpError{Op: "put", Err: runtime.ErrClosed}
	}
	if q.items.len() >= q.limit {
		return &runtime.OpError{Op: "put", Err: fmt.Errorf("%w: the queue holds %d values", runtime.ErrBusy, q.limit)}
	}
	q.items.push(v)
	q.getters.wakeOne()
	return nil
}

// Put puts v, and waits for room if there is none. The values of one caller
// come out in the order in which they went in.
func (q *Queue[T]) Put(ctx context.Context, v T) error {
	for {
		if _, err := waitSources(ctx, []Source{(*putSide[T])(q)}); err != nil {
			return opErr("put", 0, err)
		}
		if done, err := q.tryPut(v); done {
			return err
		}
	}
}

func (q *Queue[T]) tryPut(v T) (done bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return true, &runtime.OpError{Op: "put", Err: runtime.ErrClosed}
	case q.items.len() >= q.limit:
		return false, nil // somebody was faster
	}
	q.items.push(v)
	q.getters.wakeOne()
	if q.items.len() < q.limit {
		q.putters.wakeOne()
	}
	return true, nil
}

// TryGet takes the oldest value, if there is one.
func (q *Queue[T]) TryGet() (v T, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.items.len() == 0 {
		return v, false
	}
	v = q.items.pop()
	q.putters.wakeOne()
	if q.items.len() > 0 {
		q.getters.wakeOne()
	}
	return v, true
}

// Get takes the oldest value and waits for one if there is none. Once the
// queue was closed, and what it held was taken, it fails with ErrClosed.
func (q *Queue[T]) Get(ctx context.Context) (v T, err error) {
	for {
		if v, ok := q.TryGet(); ok {
			return v, nil
		}
		if q.drained() {
			return v, &runtime.OpError{Op: "get", Err: runtime.ErrClosed}
		}
		if _, err := waitSources(ctx, []Source{q}); err != nil {
			return v, opErr("get", 0, err)
		}
	}
}

func (q *Queue[T]) drained() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed && q.items.len() == 0
}

// Close refuses further values. Those that are in the queue can still be
// taken.
func (q *Queue[T]) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.getters.wakeAll()
	q.putters.wakeAll()
}

// Len returns how many values the queue holds.
func (q *Queue[T]) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.items.len()
}

// poll: see Source. A queue has something when Get would not wait.
func (q *Queue[T]) poll(w *waiter) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.items.len() > 0 || q.closed {
		return true
	}
	if w != nil {
		q.getters.add(w)
	}
	return false
}

// unpoll passes a wake-up on that w got and may not use.
func (q *Queue[T]) unpoll(w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.getters.remove(w) && q.items.len() > 0 {
		q.getters.wakeOne()
	}
}

// putSide is a Queue as a Source of room.
type putSide[T any] Queue[T]

func (p *putSide[T]) poll(w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.items.len() < p.limit || p.closed {
		return true
	}
	if w != nil {
		p.putters.add(w)
	}
	return false
}

func (p *putSide[T]) unpoll(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.putters.remove(w) && p.items.len() < p.limit {
		p.putters.wakeOne()
	}
}
