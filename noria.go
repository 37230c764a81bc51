// Package noria is completion-based I/O for Go: servers whose handlers are
// straight-line code, run as coroutines on the thread of an io_uring, or on
// epoll where the system has or allows no io_uring.
//
//	func echo(ctx context.Context, c *loop.Stream) error {
//		_, err := io.Copy(c, c)
//		return err
//	}
//
//	func main() {
//		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
//		defer stop()
//		if err := noria.ListenAndServe(ctx, ":7000", &tcp.Server{Handler: echo}, noria.Options{}); err != nil {
//			log.Fatal(err)
//		}
//	}
//
// ListenAndServe is for a program that runs one service. Start returns the group
// of loops, for a program that runs several services, dials out, or gives the
// loops other work. The services are in packages tcp and ws.
//
// # The backend
//
// Four things decide which backend the loops run on, in this order: the build
// tags noria_uring and noria_epoll, each of which compiles one backend in and
// leaves the other one out; the environment variable NORIA_BACKEND ("auto",
// "io_uring" or "epoll"); Options.Backend; and a probe, which takes the first
// backend that starts and says in Info.Reason why another one did not. The
// command "noria probe" shows what the probe finds on a machine.
package noria

import (
	"context"
	"fmt"

	"github.com/noria-go/noria/internal/backends"
	"github.com/noria-go/noria/internal/cpus"
	"github.com/noria-go/noria/internal/dialer"
	"github.com/noria-go/noria/loop"
)

func init() {
	dialer.Provide(func() (*loop.Group, error) { return Start(Options{Loops: 1}) })
}

// Options configure Start and ListenAndServe. The zero value is good.
type Options struct {
	// Backend is "auto" (or empty), "io_uring" or "epoll". The environment
	// variable NORIA_BACKEND overrides it.
	Backend string

	// Loops is how many loops there are, at most loop.MaxLoops. 0 means one
	// for each processor of Go's scheduler (GOMAXPROCS) less one, and at least
	// one: docs/adr/0006-number-of-loops.md says why.
	Loops int

	// Pin ties each loop's thread to a CPU of its own. Where the system does not
	// allow that, the loops log it and run unpinned.
	Pin bool

	// Loop configures each loop.
	Loop loop.LoopOptions

	// Listen configures the listeners of ListenAndServe.
	Listen loop.ListenOptions
}

// Start starts a group of loops. The caller stops it with Group.Stop.
func Start(opts Options) (*loop.Group, error) {
	if opts.Loops == 0 {
		opts.Loops = cpus.Loops()
	}
	if opts.Loops < 0 || opts.Loops > loop.MaxLoops {
		return nil, fmt.Errorf("noria: %d loops, want 1 to %d, or 0 for the default", opts.Loops, loop.MaxLoops)
	}
	g := loop.GroupOptions{Loops: opts.Loops, Loop: opts.Loop}
	if opts.Pin {
		g.Pin = cpus.Allowed()
	}
	return backends.Start(opts.Backend, g)
}

// ListenAndServe starts a group of loops, listens on address ("host:port",
// ":port" or "unix:/path") and runs svc on each loop. It returns nil when ctx has
// ended and svc has drained, and an error if it cannot start, listen or serve.
func ListenAndServe(ctx context.Context, address string, svc loop.Service, opts Options) error {
	g, err := Start(opts)
	if err != nil {
		return err
	}
	ls, err := g.Listen(address, opts.Listen)
	if err == nil {
		err = g.Serve(ctx, ls, svc)
	}
	if serr := g.Stop(); err == nil {
		err = serr
	}
	return err
}
