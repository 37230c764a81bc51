package compat

import (
	"context"
	"errors"
	"net"
	"sync/atomic"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// maxWaiting is how many connections wait for Accept before the loops stop
// taking more out of the kernel.
const maxWaiting = 64

// A Listener is a net.Listener over the loops of a group, for servers that
// are written against the net package: net/http, for one. Accept may be called
// from any goroutine and returns *Conn.
type Listener struct {
	g       *loop.Group
	ls      *loop.Listeners
	conns   *loop.Queue[*Conn]
	stop    context.CancelFunc
	done    chan struct{}
	err     error // of serving; good after done
	closing atomic.Bool
}

var _ net.Listener = (*Listener)(nil)

// Listen listens on address for all loops of g.
func Listen(g *loop.Group, address string, opts loop.ServeOptions) (*Listener, error) {
	ls, err := g.Listen(address, opts)
	if err != nil {
		return nil, err
	}
	return NewListener(g, ls), nil
}

// NewListener makes a net.Listener of ls, which is its own from now on: what
// g.Listen or g.AdoptListener returned.
func NewListener(g *loop.Group, ls *loop.Listeners) *Listener {
	ctx, stop := context.WithCancel(context.Background())
	l := &Listener{g: g, ls: ls, conns: loop.NewQueue[*Conn](maxWaiting), stop: stop, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		l.err = g.Serve(ctx, ls, acceptor{l.conns})
		l.conns.Close()
	}()
	return l
}

// acceptor is the service that puts connections into the queue.
type acceptor struct{ conns *loop.Queue[*Conn] }

func (a acceptor) Serve(ctx context.Context, ln *loop.Listener) error {
	for {
		s, err := ln.Accept(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		c := NewConn(s)
		if err := a.conns.Put(ctx, c); err != nil {
			return errors.Join(ignoreEnd(ctx, err), s.Close())
		}
	}
}

// ignoreEnd drops an error that only says that ctx has ended.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Accept waits for a connection. After Close it fails with an error that is
// net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.conns.Get(context.Background())
	if err == nil {
		return c, nil
	}
	<-l.done
	if l.err != nil {
		err = l.err
	}
	return nil, &net.OpError{Op: "accept", Net: l.Addr().Network(), Addr: l.Addr(), Err: err}
}

// Addr returns the address that is listened on.
func (l *Listener) Addr() net.Addr { return l.ls.Addr() }

// Close stops listening, makes Accept fail, and closes the connections that
// nobody has accepted. Those that were accepted go on. A task that calls it is
// suspended meanwhile; from a function given to Post it only begins to close.
func (l *Listener) Close() error {
	if l.closing.Swap(true) {
		return &net.OpError{Op: "close", Net: l.Addr().Network(), Addr: l.Addr(), Err: runtime.ErrClosed}
	}
	l.stop()
	// end waits for tasks, so it must not hold up their loops.
	var err error
	if oerr := loop.Offload(context.Background(), func() { err = l.end() }); oerr != nil {
		go func() { _ = l.end() }() // the caller may not wait: it is killed, or no task
		return nil
	}
	return err
}

// end waits until nothing is accepted any more, and closes what is left.
func (l *Listener) end() error {
	<-l.done
	err := l.err
	for {
		c, ok := l.conns.TryGet()
		if !ok {
			return err
		}
		err = errors.Join(err, c.Close())
	}
}
