package loop

import (
	"time"

	"github.com/noria-go/noria/runtime"
)

// A timer calls fire at a time of its loop's clock. It is a field of the task or
// stream that it times, so arming it allocates nothing.
type timer struct {
	when int64
	at   int // its place in the heap, plus 1; 0 if it is not armed
	fire func()
}

// A Timer calls a function on its loop, outside any task, after a time. Its methods
// may only be called on the loop, and panic elsewhere. Make it a field of the value
// that it times, and setting it allocates nothing.
type Timer struct {
	loop *Loop
	t    timer
}

// Init ties the timer to a loop and sets the function, which must not block. It is called
// once, before the other methods, and may be called from anywhere.
func (t *Timer) Init(l *Loop, fire func()) {
	t.loop = l
	t.t.fire = func() { l.contain("timer's function", fire) }
}

// Set has the function called once, after d. A timer that was set is moved.
func (t *Timer) Set(d time.Duration) {
	t.loop.mustBeOn("Timer.Set")
	t.loop.timers.set(&t.t, later(t.loop.rt.Now(), d))
}

// Stop undoes Set. It does nothing if the timer is not set.
func (t *Timer) Stop() {
	if t.loop != nil {
		t.loop.mustBeOn("Timer.Stop")
		t.loop.timers.stop(&t.t)
	}
}

// later returns now + d, or Forever if that is beyond the clock. d may be negative.
func later(now int64, d time.Duration) int64 {
	if int64(d) > runtime.Forever-now {
		return runtime.Forever
	}
	return now + int64(d)
}

// timers is a heap with four children to a node. It is half as deep as a binary
// heap, and four children lie in a cache line or two.
type timers struct{ heap []*timer }

// next returns when the first timer is due.
func (ts *timers) next() int64 {
	if len(ts.heap) == 0 {
		return runtime.Forever
	}
	return ts.heap[0].when
}

// set arms t, or moves it.
func (ts *timers) set(t *timer, when int64) {
	t.when = when
	if t.at == 0 {
		ts.heap = append(ts.heap, t)
		t.at = len(ts.heap)
	}
	ts.down(ts.up(t.at - 1))
}

// stop disarms t. It does nothing if t is not armed.
func (ts *timers) stop(t *timer) {
	if t.at == 0 {
		return
	}
	i, last := t.at-1, len(ts.heap)-1
	t.at = 0
	moved := ts.heap[last]
	ts.heap[last] = nil
	ts.heap = ts.heap[:last]
	if i < last {
		ts.put(i, moved)
		ts.down(ts.up(i))
	}
}

// expire fires the timers that are due at now: at most as many as there were, so
// that timers which arm themselves for the past do not keep the loop here.
func (ts *timers) expire(now int64) (fired int) {
	for budget := len(ts.heap); budget > 0 && len(ts.heap) > 0 && ts.heap[0].when <= now; budget-- {
		t := ts.heap[0]
		ts.stop(t)
		t.fire()
		fired++
	}
	return fired
}

func (ts *timers) put(i int, t *timer) {
	ts.heap[i] = t
	t.at = i + 1
}

func (ts *timers) up(i int) int {
	t := ts.heap[i]
	for i > 0 {
		parent := (i - 1) / 4
		if ts.heap[parent].when <= t.when {
			break
		}
		ts.put(i, ts.heap[parent])
		i = parent
	}
	ts.put(i, t)
	return i
}

func (ts *timers) down(i int) {
	t := ts.heap[i]
	for {
		least := -1
		for c := 4*i + 1; c <= 4*i+4 && c < len(ts.heap); c++ {
			if least < 0 || ts.heap[c].when < ts.heap[least].when {
				least = c
			}
		}
		if least < 0 || t.when <= ts.heap[least].when {
			break
		}
		ts.put(i, ts.heap[least])
		i = least
	}
	ts.put(i, t)
}
