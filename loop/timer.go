package loop

import (
	"time"

	"github.com/noria-go/noria/runtime"
)

// A timer is a moment on its loop's clock and what to do then. It is part of
// what it times (a task, a direction of a stream), so arming one allocates
// nothing.
type timer struct {
	when int64
	at   int // place in the heap, plus 1; 0: not armed
	fire func()
}

// A Timer calls a function on a loop, outside any task, after a time. It is
// embedded in what it times; all of it is called on the loop, and panics if it is
// not.
type Timer struct {
	loop *Loop
	t    timer
}

// Init sets the function, which must not block, once.
func (t *Timer) Init(l *Loop, fire func()) {
	t.loop = l
	t.t.fire = func() { l.contain("timer's function", fire) }
}

// Set has the function called once, after d. It moves a timer that was set.
func (t *Timer) Set(d time.Duration) {
	t.loop.mustBeOn("Timer.Set")
	t.loop.timers.set(&t.t, later(t.loop.rt.Now(), d))
}

// Stop takes back Set. It does nothing if the timer is not set.
func (t *Timer) Stop() {
	if t.loop != nil {
		t.loop.mustBeOn("Timer.Stop")
		t.loop.timers.stop(&t.t)
	}
}

// later is d after now, which may be before it, or never, if that is further off than
// the clock goes.
func later(now int64, d time.Duration) int64 {
	if int64(d) > runtime.Forever-now {
		return runtime.Forever
	}
	return now + int64(d)
}

// timers is a heap with four children to a node: half as deep as a binary
// one, and the four lie in a cache line or two.
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

// expire fires what is due at now, but no more than there were timers, so that
// ones that arm themselves for the past do not keep it for ever.
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
