// Package noria is completion-based I/O for Go: servers written as
// straight-line code, run as coroutines on the thread of an io_uring, and as
// well on epoll where io_uring is not to be had.
//
//	func echo(ctx context.Context, c *tcp.Conn) error {
//		_, err := io.Copy(c, c)
//		return err
//	}
//
//	func main() {
//		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
//		defer stop()
//		log.Fatal(noria.ListenAndServe(ctx, ":7000", &tcp.Server{Handler: echo}))
//	}
//
// ListenAndServe is for programs that do one thing. Start returns the group of
// loops for those that do more: several services, dialing out, Post,
// statistics. The services are in packages tcp and ws; what they are written
// against, and what this package has aliases for, is package runtime.
//
// # The backend
//
// Which backend the loops run on is decided by, in this order: the build tags
// noria_uring and noria_epoll, which compile one of them in and leave the
// other out; the environment variable NORIA_BACKEND; Options.Backend; and a
// probe, which takes the first that can really be started and says in
// Info.Reason why the others could not.
package noria

import (
	"context"
	"fmt"
	"os"
	goruntime "runtime"
	"strings"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// Types of package runtime that users meet.
type (
	Group        = loop.Group
	Loop         = loop.Loop
	LoopOptions  = loop.LoopOptions
	ServeOptions = loop.ServeOptions
	Service      = loop.Service
	Stream       = loop.Stream
	Buffer       = runtime.Buffer
	Info         = runtime.Info
)

// BackendVariable is the environment variable that chooses a backend: auto,
// io_uring or epoll.
const BackendVariable = "NORIA_BACKEND"

// Options are what Start can be told. The zero value is good.
type Options struct {
	// Backend is "auto" (or empty), "io_uring" or "epoll". The environment
	// variable NORIA_BACKEND goes before it.
	Backend string

	// Loops is their number, at most loop.MaxLoops; 0 means DefaultLoops().
	Loops int

	// Pin ties each loop's thread to a CPU of its own. Where that is not
	// allowed it is logged and left.
	Pin bool

	// Loop are the options of each loop.
	Loop LoopOptions

	// Serve says how ListenAndServe listens.
	Serve ServeOptions
}

// DefaultLoops returns how many loops Start makes unless told otherwise: one
// for each CPU that Go may use, less one for the garbage collector and the
// program's other goroutines, and at least one and at most loop.MaxLoops. A loop that has come back from
// waiting needs a processor of Go's scheduler again; with as many loops as
// processors a busy goroutine keeps it from one for up to 10 ms. See
// docs/adr/0006-number-of-loops.md for what was measured.
func DefaultLoops() int { return min(max(1, goruntime.GOMAXPROCS(0)-1), loop.MaxLoops) }

// Start starts a group of loops. At most one Options may be given.
func Start(opts ...Options) (*Group, error) {
	o, err := oneOf(opts)
	if err != nil {
		return nil, err
	}
	if o.Loops == 0 {
		o.Loops = DefaultLoops()
	}
	if o.Loops < 0 || o.Loops > loop.MaxLoops {
		return nil, fmt.Errorf("noria: %d loops, want 1 to %d, or 0 for the default", o.Loops, loop.MaxLoops)
	}
	candidates, asked, err := candidates(o.Backend, os.Getenv(BackendVariable))
	if err != nil {
		return nil, err
	}
	var refused []string
	for _, b := range candidates {
		reason := asked
		if reason == "" {
			reason = strings.Join(append(refused, "using "+b.name), "; ")
		}
		g, err := start(o, b, reason)
		if err == nil {
			return g, nil
		}
		refused = append(refused, err.Error())
	}
	return nil, fmt.Errorf("noria: no backend can be started: %s", strings.Join(refused, "; "))
}

func start(o Options, b backend, reason string) (*Group, error) {
	g := loop.GroupOptions{Loops: o.Loops, Loop: o.Loop, New: func(int) (runtime.Runtime, error) { return b.open() }}
	g.Loop.Reason = reason
	if o.Pin {
		g.Pin = allowedCPUs()
	}
	return loop.StartGroup(g)
}

// ListenAndServe starts loops, listens on address ("host:port", ":port",
// "unix:/path") and runs svc on each loop until ctx ends and svc has drained.
// It returns nil then, and otherwise what went wrong. At most one Options may
// be given.
func ListenAndServe(ctx context.Context, address string, svc Service, opts ...Options) error {
	o, err := oneOf(opts)
	if err != nil {
		return err
	}
	g, err := Start(o)
	if err != nil {
		return err
	}
	ls, err := g.Listen(address, o.Serve)
	if err == nil {
		err = g.Serve(ctx, ls, svc)
	}
	if serr := g.Stop(); err == nil {
		err = serr
	}
	return err
}

func oneOf(opts []Options) (Options, error) {
	switch len(opts) {
	case 0:
		return Options{}, nil
	case 1:
		return opts[0], nil
	}
	return Options{}, fmt.Errorf("noria: %d Options given, want at most one", len(opts))
}
