package loop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/noria-go/noria/runtime"
)

// A Service serves the connections of a listener. A group calls Serve as a task on
// each of its loops, with that loop's listener. When ctx ends, Serve stops accepting,
// drains, and returns: nil after an orderly end.
type Service interface {
	Serve(ctx context.Context, ln *Listener) error
}

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

// A Group is a number of loops that share nothing and serve together. Any goroutine
// may call its methods. Serve and Stop wait for the loops, so they fail when they
// are called on one of them.
type Group struct {
	opts  GroupOptions
	loops []*Loop
	errs  []error // of Run
	done  sync.WaitGroup
	next  atomic.Uint32
	stop  sync.Once
	err   error
}

// StartGroup starts loops and returns when they run. Any goroutine may call it.
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
			return nil, g.Stop() // with the error of this loop's Run
		}
	}
	return g, nil
}

// Loops returns the group's loops.
func (g *Group) Loops() []*Loop { return g.loops }

// Loop returns one of the loops, the next one at each call.
func (g *Group) Loop() *Loop { return g.loops[int(g.next.Add(1)-1)%len(g.loops)] }

// Info describes the backend of the loops.
func (g *Group) Info() runtime.Info { return g.loops[0].info() }

// Stats returns the counts of each loop. It waits for a turn of each.
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

// Listeners listen on one address for all loops of a group. Any goroutine may call
// the methods.
type Listeners struct {
	group *Group
	per   []*Listener
}

// ServeOptions say how a group listens. The zero value is good.
type ServeOptions struct {
	// Spread makes one loop accept all connections and deal them to the loops in
	// turn, so that even a few are spread evenly. Without it each loop has a
	// listening socket of its own and the kernel chooses by a hash, which costs less
	// and is even when there are many. Connections of unix sockets are always dealt.
	Spread bool

	// Share lets other programs of the same user that set it too listen on the same
	// address. The kernel divides the connections among them.
	Share bool

	// Backlog is how many connections may wait in the kernel for each loop. 0 means
	// the system's maximum.
	Backlog int

	// Stream are the limits of the connections.
	Stream StreamOptions
}

// Listen listens on address for all loops: "host:port", ":port" or "unix:/path" (see
// runtime.ParseListenAddr). An address in use is an error, even if its listener is a
// group that shares it among its own loops.
func (g *Group) Listen(address string, opts ServeOptions) (*Listeners, error) {
	addr, err := runtime.ParseListenAddr(address)
	if err != nil {
		return nil, err
	}
	ls := &Listeners{group: g}
	deal := opts.Spread || addr.Path != ""
	for i, l := range g.loops {
		lo := runtime.ListenOptions{Backlog: opts.Backlog}
		switch {
		case opts.Share && addr.Path == "", !deal && i > 0:
			lo.Join = true
		case !deal && len(g.loops) > 1:
			lo.Joinable = true
		}
		err := l.call(context.Background(), "listen", func(context.Context) error {
			if deal && i > 0 {
				ls.per = append(ls.per, l.newListener(0, ls.per[0].addr, opts.Stream))
				return nil
			}
			ln, err := l.listen(addr, lo, opts.Stream)
			if err == nil {
				ls.per = append(ls.per, ln)
				addr = ln.addr // with the port that the system chose
			}
			return err
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listen on %s: %w", address, err), ls.Close())
		}
	}
	if deal {
		ls.deal()
	}
	return ls, nil
}

// AdoptListener takes over the socket of ln, from package net or inherited
// (net.FileListener). It closes ln, and the socket goes on listening. One loop accepts
// the connections and deals them out.
func (g *Group) AdoptListener(ln net.Listener, opts ServeOptions) (*Listeners, error) {
	sc, ok := ln.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("adopt %T: it has no descriptor to take over: %w", ln, errors.ErrUnsupported)
	}
	fd, err := dupDescriptor(sc)
	if err != nil {
		return nil, fmt.Errorf("adopt %T: %w", ln, err)
	}
	ls := &Listeners{group: g}
	for i, l := range g.loops {
		err := l.call(context.Background(), "adopt listener", func(context.Context) error {
			if i > 0 {
				ls.per = append(ls.per, l.newListener(0, ls.per[0].addr, opts.Stream))
				return nil
			}
			own, err := l.adoptListener(fd, opts.Stream)
			if err == nil {
				ls.per = append(ls.per, own)
			}
			return err
		})
		if err != nil {
			if i == 0 {
				closeDescriptor(fd)
			}
			return nil, errors.Join(fmt.Errorf("adopt %T: %w", ln, err), ls.Close())
		}
	}
	ls.deal()
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // the path is still in use
	}
	return ls, ln.Close()
}

// deal makes the first listener accept for all. They do not accept yet.
func (ls *Listeners) deal() {
	ls.per[0].dealTo = ls.per
	for _, ln := range ls.per {
		ln.dealer = ls.per[0]
	}
}

// Addr returns the address, with the port that the system chose.
func (ls *Listeners) Addr() net.Addr { return ls.per[0].Addr() }

// Close stops listening and waits until all loops have. Serve does so at its end.
func (ls *Listeners) Close() error {
	var errs []error
	for _, ln := range ls.per {
		if err := ln.Close(); err != nil && !errors.Is(err, runtime.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Serve runs svc on every loop. It returns when ctx has ended and svc has drained, or
// when svc has failed on one of the loops; then it closes ls. The contexts of the
// handlers have the values of ctx.
func (g *Group) Serve(ctx context.Context, ls *Listeners, svc Service) error {
	if err := g.onLoop("serve"); err != nil {
		return err
	}
	sctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(ls.per))
	var wg sync.WaitGroup
	for i, ln := range ls.per {
		wg.Go(func() {
			errs[i] = serveOn(sctx, ln, svc)
			cancel()
		})
	}
	wg.Wait()
	err := errors.Join(errs...)
	if cerr := ls.Close(); err == nil {
		err = cerr
	}
	return err
}

// serveOn runs svc as a task of ln's loop. The end of ctx drains the task and does
// not kill it.
func serveOn(ctx context.Context, ln *Listener, svc Service) error {
	done := make(chan error, 1)
	l := ln.loop
	err := l.post(func() {
		t := l.spawn(&l.root, fmt.Sprintf("serve %s", ln.addr), func(tctx context.Context) error {
			defer ln.Close()
			return svc.Serve(tctx, ln)
		}, func(err error) { done <- err })
		t.values = ctx
		context.AfterFunc(ctx, func() { t.Cancel(false) })
	})
	if err != nil {
		return err
	}
	err = <-done
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // as ctx asked
	}
	return err
}

// Stop stops the loops and waits for them. Their tasks are killed, their operations
// drained, buffers and descriptors given back. Stop returns the errors of the loops:
// such as the names of tasks that did not end within LoopOptions.StopTimeout, or of a
// task that holds its loop, which then cannot be stopped at all.
func (g *Group) Stop() error {
	if err := g.onLoop("stop group"); err != nil {
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

// onLoop returns an error if the caller is on a loop of the group, which would wait
// for itself.
func (g *Group) onLoop(op string) error {
	for _, l := range g.loops {
		if l.onThread() {
			return &runtime.OpError{Op: op, Err: fmt.Errorf("called on %s, which it would wait for: call it from a goroutine: %w", l.Name(), runtime.ErrBusy)}
		}
	}
	return nil
}

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
		errs = append(errs, fmt.Errorf("stop %s: %s holds its thread: %w", l.Name(), what, runtime.ErrBusy))
	}
	return errors.Join(errs...)
}
