package loop

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/noria-go/noria/runtime"
)

// MaxLoops is the largest number of loops of a group. Each is a thread, and Go ends a
// program that has 10,000 threads: see debug.SetMaxThreads.
const MaxLoops = 1024

// GroupOptions are the options of a group of loops. Loops and New are required.
type GroupOptions struct {
	// Loops is the number of loops, 1 to MaxLoops.
	Loops int

	// New makes the backend of each loop.
	New func(loop int) (runtime.Runtime, error)

	// Pin ties loop i to the i-th CPU that the process may use.
	Pin []int

	// Loop are the options of each loop. The loop's number is added to its Name.
	Loop LoopOptions
}

// A Group is a number of loops that share nothing and serve together. Its methods may be
// called from anywhere, unless their comments say otherwise.
type Group struct {
	opts  GroupOptions
	loops []*Loop
	errs  []error // of each loop's run
	done  sync.WaitGroup
	next  atomic.Uint32
	stop  sync.Once
	err   error
}

// StartGroup starts the loops of a group and waits until they run. Goroutines call it. The
// caller must stop the group.
func StartGroup(opts GroupOptions) (*Group, error) {
	if opts.Loops < 1 || opts.Loops > MaxLoops || opts.New == nil {
		return nil, fmt.Errorf("start group: %d loops, want 1 to %d, and a New", opts.Loops, MaxLoops)
	}
	if opts.Loop.Name == "" {
		opts.Loop.Name = "loop"
	}
	g := &Group{opts: opts, errs: make([]error, opts.Loops)}
	for i := range opts.Loops {
		rt, err := opts.New(i)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("start group: loop %d: %w", i, err), g.Stop())
		}
		lo := opts.Loop
		lo.Name += " " + strconv.Itoa(i)
		if len(opts.Pin) > 0 {
			lo.CPUs = opts.Pin[i%len(opts.Pin) : i%len(opts.Pin)+1]
		}
		l := newLoop(rt, lo)
		g.loops = append(g.loops, l)
		g.done.Go(func() { g.errs[i] = l.run(context.Background()) })
	}
	for _, l := range g.loops {
		select {
		case <-l.ready:
		case <-l.stopped:
			return nil, g.Stop() // with the error of this loop's run
		}
	}
	return g, nil
}

// Loops returns the group's loops. The caller must not change the slice.
func (g *Group) Loops() []*Loop { return g.loops }

// Loop returns one of the loops, at each call the next.
func (g *Group) Loop() *Loop { return g.loops[int(g.next.Add(1)-1)%len(g.loops)] }

// Info describes the backend of the loops.
func (g *Group) Info() runtime.Info { return g.loops[0].info() }

// Stats returns the counts of each loop, and waits for a turn of each. Tasks and
// goroutines may call it; a function that a loop calls may not.
func (g *Group) Stats() ([]LoopStats, error) {
	all := make([]LoopStats, len(g.loops))
	for i, l := range g.loops {
		st, err := l.snapshot()
		if err != nil {
			return nil, err
		}
		all[i] = st
	}
	return all, nil
}

// Stop stops the loops and waits for them. Goroutines call it; on a loop of the group it
// fails. The loops kill their tasks, wait for their operations, and give back buffers and
// descriptors. Stop returns the errors of the loops, such as the names of tasks that did
// not end within LoopOptions.StopTimeout. A task that holds its loop cannot be stopped:
// then Stop names it and returns.
func (g *Group) Stop() error {
	if err := g.refuseOnLoop("stop group"); err != nil {
		return err
	}
	g.stop.Do(func() {
		for _, l := range g.loops {
			l.stop()
		}
		timeout := g.opts.Loop.StopTimeout
		if timeout <= 0 {
			timeout = defaultStopTimeout
		}
		timer := time.NewTimer(2*timeout + time.Second)
		defer timer.Stop()
		ended := make(chan struct{})
		go func() {
			g.done.Wait()
			close(ended)
		}()
		select {
		case <-ended:
			g.err = errors.Join(g.errs...)
		case <-timer.C:
			g.err = g.stuck()
		}
	})
	return g.err
}

// refuseOnLoop returns an error if the caller is on a loop of the group: it would wait for
// itself.
func (g *Group) refuseOnLoop(op string) error {
	for _, l := range g.loops {
		if l.onLoop() {
			return &runtime.OpError{Op: op, Err: fmt.Errorf("called on %s, which it would wait for: call it from a goroutine: %w", l.opts.Name, runtime.ErrBusy)}
		}
	}
	return nil
}

// stuck returns an error that names what holds the loops that have not ended.
func (g *Group) stuck() error {
	var errs []error
	for _, l := range g.loops {
		select {
		case <-l.stopped:
			continue
		default:
		}
		what := "something"
		if w := l.curRef.Load(); w != nil {
			what = fmt.Sprintf("task %q", *w.name.Load())
		}
		errs = append(errs, fmt.Errorf("stop %s: %s holds its thread: %w", l.opts.Name, what, runtime.ErrBusy))
	}
	return errors.Join(errs...)
}
