package loop

import (
	"context"
	"sync"
)

// An Event is a flag to wait for. The tasks of any loop and goroutines may use it:
// all methods may be called from anywhere. The zero value is not set.
type Event struct {
	mu      sync.Mutex // never held while anything waits
	set     bool
	waiters waitList
}

// Set sets the flag and wakes all waiters. The flag stays set until Clear.
func (e *Event) Set() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.set = true
	e.waiters.wakeAll()
}

// Clear unsets the flag.
func (e *Event) Clear() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.set = false
}

// IsSet reports whether the flag is set.
func (e *Event) IsSet() bool { return e.poll(nil) }

// Wait waits until the flag is set, or ctx ends.
func (e *Event) Wait(ctx context.Context) error {
	_, err := waitSources(ctx, []Source{e})
	return opErr("wait for event", 0, err)
}

// join waits for the flag alone: neither the end of ctx nor a kill cuts it short.
// The flag must be certain to be set.
func (e *Event) join(ctx context.Context) {
	t := currentTask(ctx)
	w := &waiter{task: t}
	if t == nil {
		w.ch = make(chan struct{}, 1)
	}
	for !e.poll(w) {
		if t != nil {
			t.park()
		} else {
			<-w.ch
		}
		e.unpoll(w)
	}
}

func (e *Event) poll(w *waiter) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.set && w != nil {
		e.waiters.add(w)
	}
	return e.set
}

func (e *Event) unpoll(w *waiter) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiters.remove(w)
}
