package loop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/noria-go/noria/runtime"
)

// Listeners listen on one address for all loops of a group.
type Listeners struct {
	group *Group
	per   []*Listener
}

// ListenOptions are the options of Group.Listen. The zero value is ready to use.
type ListenOptions struct {
	// Spread makes one loop accept all connections and deal them to the loops in turn,
	// so that even a few connections are spread evenly. Without it each loop has a
	// listening socket of its own, and the kernel chooses by a hash: that costs less,
	// and is even if there are many. Connections of unix sockets are always dealt.
	Spread bool

	// Share lets other programs of the same user that set it too listen on the same
	// address. The kernel divides the connections among them.
	Share bool

	// Backlog is how many connections may wait in the kernel for each loop. 0 means
	// the system's maximum.
	Backlog int

	// Stream are the options of the connections.
	Stream StreamOptions
}

// Listen listens on address for all loops: "host:port", ":port" or "unix:/path" (see
// runtime.ParseListenAddr), and waits for a turn of each loop. Tasks and goroutines may
// call it; a function that a loop calls may not. An address in use is an error, also if
// another group listens on it. If the kernel still holds it for a program that was killed,
// Listen logs that and tries again for up to two seconds. The caller must close the
// listeners, or give them to Serve.
func (g *Group) Listen(address string, opts ListenOptions) (*Listeners, error) {
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
			ln, err := l.listenPatiently(addr, lo, opts.Stream)
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

// AdoptListener takes over the socket of ln, which comes from package net, for example
// from net.FileListener if the process has inherited it. It closes ln, and the socket
// stays open. One loop accepts the connections and deals them out. AdoptListener waits for
// a turn of each loop. Tasks and goroutines may call it; a function that a loop calls may
// not.
func (g *Group) AdoptListener(ln net.Listener, opts ListenOptions) (*Listeners, error) {
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

// deal makes the first listener accept for all. It is called before any of them accepts.
func (ls *Listeners) deal() {
	ls.per[0].dealTo = ls.per
	for _, ln := range ls.per {
		ln.dealer = ls.per[0]
	}
}

// Addr returns the address, with the port that the system chose for port 0. It may be
// called from anywhere.
func (ls *Listeners) Addr() net.Addr { return ls.per[0].Addr() }

// Close stops listening and waits for all loops. Tasks and goroutines may call it; a
// function that a loop calls may not. Serve calls it when it ends.
func (ls *Listeners) Close() error {
	var errs []error
	for _, ln := range ls.per {
		if err := ln.Close(); err != nil && !errors.Is(err, runtime.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
