package loop

import (
	"context"
	"fmt"
	"sync"

	"github.com/noria-go/noria/runtime"
)

// A Queue is a bounded first-in-first-out queue of values. The tasks of any loop and
// goroutines may put and get: all methods may be called from anywhere.
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

// TryPut puts v, and never waits. It fails with ErrBusy if the queue is full and
// with ErrClosed if it is closed.
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

// Put puts v, and waits while the queue is full. The values of one caller come out
// in the order in which they went in.
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
		return false, nil // another putter took the room
	}
	q.items.push(v)
	q.getters.wakeOne()
	if q.items.len() < q.limit {
		q.putters.wakeOne()
	}
	return true, nil
}

// TryGet takes the oldest value, if there is one. It never waits.
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

// Get takes the oldest value, and waits while there is none. When the queue is
// closed and empty it fails with ErrClosed.
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

// Close refuses further values. Get still returns those that are in the queue.
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

// poll makes a Queue a Source, which is ready when Get would not wait.
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

// unpoll passes on a wake-up that w got and will not use.
func (q *Queue[T]) unpoll(w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.getters.remove(w) && q.items.len() > 0 {
		q.getters.wakeOne()
	}
}

// A putSide is a Queue as a Source that is ready when Put would not wait.
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
