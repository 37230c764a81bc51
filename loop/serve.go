package loop

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// A Service serves the connections of a listener. Group.Serve calls Serve as a task on
// each of its loops, with that loop's listener. When ctx ends, Serve must stop accepting,
// drain, and return: nil after an orderly end.
type Service interface {
	Serve(ctx context.Context, ln *Listener) error
}

// Serve runs svc on every loop and waits until it has ended. Goroutines call it; on a loop
// of the group it fails. The end of ctx drains svc. If svc returns on one of the loops,
// the others drain too. At the end Serve closes ls. The contexts of the handlers have the
// values of ctx.
func (g *Group) Serve(ctx context.Context, ls *Listeners, svc Service) error {
	if err := g.refuseOnLoop("serve"); err != nil {
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

// serveOn runs svc as a task of ln's loop, and waits for it. The end of ctx drains the
// task and does not kill it.
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
