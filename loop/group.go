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

// A Service serves the connections of a listener. The group runs Serve as a
// task on each of its loops, with that loop's listener. When ctx ends it stops
// accepting, drains, and returns; nil after an orderly end.
type Service interface {
	Serve(ctx context.Context, ln *Listener) error
}

// MaxLoops is how many loops a group has at most. Each is a thread, and Go ends a
// program that has 10,000 of them: see debug.SetMaxThreads.
const MaxLoops = 1024

// GroupOptions are the options of a group of loops.
type GroupOptions struct {
	// Loops is how many there are, 1 to MaxLoops.
	Loops int

	// New makes the Runtime of each.
	New func(loop int) (runtime.Runtime, error)

	// Pin ties loop i to the i-th CPU that the process may use.
	Pin []int

	// Loop are the options of each; its Name gets the loop's number.
	Loop LoopOptions
}

// A Group is a number of loops that share nothing and serve together. Its
// methods may be called from any goroutine. Serve and Stop, which wait for
// loops, fail on one of them.
type Group struct {
	opts  GroupOptions
	loops []*Loop
	errs  []error // of Run
	done  sync.WaitGroup
	next  atomic.Uint32
	stop  sync.Once
	err   error
}

// StartGroup starts the loops.
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
		l := NewLoop(rt, lo)
		g.loops = append(g.loops, l)
		g.done.Go(func() { g.errs[i] = l.Run(context.Background()) })
	}
	for _, l := range g.loops {
		select {
		case <-l.Running():
		case <-l.Stopped():
			return nil, g.Stop() // with what this loop's Run returned
		}
	}
	return g, nil
}

// Loops returns the group's loops.
func (g *Group) Loops() []*Loop { return g.loops }

// Loop returns one of the loops, another one each time.
func (g *Group) Loop() *Loop { return g.loops[int(g.next.Add(1)-1)%len(g.loops)] }

// Info describes the backend that the loops run on.
func (g *Group) Info() runtime.Info { return g.loops[0].Info() }

// Stats returns every loop's counts.
func (g *Group) Stats() ([]LoopStats, error) {
	all := make([]LoopStats, len(g.loops))
	for i, l := range g.loops {
		st, err := l.Stats()
		if err != nil {
			return nil, err
		}
		all[i] = st
	}
	return all, nil
}

// Listeners listen on one address for all loops of a group.
type Listeners struct {
	group *Group
	per   []*Listener
}

// ServeOptions say how a group listens. The zero value is good.
type ServeOptions struct {
	// Spread makes one loop accept and deal the connections out in turn. It
	// spreads even a handful of them evenly. Otherwise each loop has a listening
	// socket of its own, and the kernel chooses by a hash, which is cheaper,
	// and even when there are many. Unix sockets are always dealt out.
	Spread bool

	// Share lets other programs of the same user listen on the same address,
	// if they ask for it too; the kernel divides the connections among all.
	Share bool

	// Backlog is how many connections may wait in the kernel, for each loop;
	// 0 means the system's maximum.
	Backlog int

	// Stream are the limits of the connections.
	Stream StreamOptions
}

// Listen listens on address (see ParseListenAddr) for all loops. An address
// that is in use is an error, also when the other one is a group that would
// share it with its own loops.
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
		err := l.Call(context.Background(), "listen", func(context.Context) error {
			if deal && i > 0 {
				ls.per = append(ls.per, l.newListener(0, ls.per[0].addr, opts.Stream))
				return nil
			}
			ln, err := l.Listen(addr, lo, opts.Stream)
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

// AdoptListener takes over ln, which was opened elsewhere: a socket from the
// net package, or one that was inherited (net.FileListener). ln itself is
// closed; its socket goes on listening. Connections are dealt out.
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
		err := l.Call(context.Background(), "adopt listener", func(context.Context) error {
			if i > 0 {
				ls.per = append(ls.per, l.newListener(0, ls.per[0].addr, opts.Stream))
				return nil
			}
			own, err := l.AdoptListener(fd, opts.Stream)
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

// deal has the first listener accept for all. Nobody uses them yet.
func (ls *Listeners) deal() {
	ls.per[0].dealTo = ls.per
	for _, ln := range ls.per {
		ln.dealer = ls.per[0]
	}
}

// Addr returns the address that is listened on.
func (ls *Listeners) Addr() net.Addr { return ls.per[0].Addr() }

// Close stops listening. Serve does it too.
func (ls *Listeners) Close() error {
	var errs []error
	for _, ln := range ls.per {
		if err := ln.Close(); err != nil && !errors.Is(err, runtime.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Serve runs svc on every loop until ctx ends and it has drained, or it fails
// on one of them. ls is closed then. The handlers' contexts have ctx's values.
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

// serveOn runs svc as a task of ln's loop. The end of ctx drains it, and does
// not kill it.
func serveOn(ctx context.Context, ln *Listener, svc Service) error {
	done := make(chan error, 1)
	l := ln.loop
	err := l.Post(func() {
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
		return nil // that is what it was told
	}
	return err
}

// Stop stops the loops and waits for them: see Loop.Run for what that does to
// tasks that still run. It returns what went wrong on each, and names the
// task that holds a loop if it cannot be stopped at all.
func (g *Group) Stop() error {
	if err := g.onLoop("stop group"); err != nil {
		return err
	}
	g.stop.Do(func() {
		for _, l := range g.loops {
			l.Stop()
		}
		timeout := g.opts.Loop.StopTimeout
		if timeout <= 0 {
			timeout = DefaultStopTimeout
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

// onLoop fails if the caller is on a loop of the group, which would wait for
// itself.
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
		case <-l.Stopped():
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
