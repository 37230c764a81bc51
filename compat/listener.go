package compat

import (
	"context"
	"errors"
	"net"
	"sync/atomic"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// maxWaiting is how many connections may wait for Accept. Beyond it the loops leave
// further ones in the kernel's queue.
const maxWaiting = 64

// A Listener is a net.Listener over the loops of a group, for servers that are written
// for package net, such as net/http. The loops accept connections and put them into a
// queue, from which Accept takes them. Any goroutine may call its methods.
type Listener struct {
	g       *loop.Group
	ls      *loop.Listeners
	conns   *loop.Queue[*Conn]
	stop    context.CancelFunc
	done    chan struct{}
	err     error // of serving; valid after done
	closing atomic.Bool
}

var _ net.Listener = (*Listener)(nil)

// Listen listens on address ("host:port", "unix:/path") for all loops of g.
func Listen(g *loop.Group, address string, opts loop.ListenOptions) (*Listener, error) {
	ls, err := g.Listen(address, opts)
	if err != nil {
		return nil, err
	}
	return NewListener(g, ls), nil
}

// NewListener returns a Listener over ls, which g.Listen or g.AdoptListener returned, and
// owns ls from now on.
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

// An acceptor is the service that puts connections into the queue.
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

// ignoreEnd returns err, or nil if ctx has ended and err says no more than that.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Accept waits for a connection and returns it as a *Conn. After Close it fails with
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

// Addr returns the address that the Listener listens on.
func (l *Listener) Addr() net.Addr { return l.ls.Addr() }

// Close stops listening, makes Accept fail, and closes the connections that wait for
// Accept. Accepted connections stay open. It may be called from anywhere, and waits until
// the loops have stopped accepting: a task is suspended meanwhile, and in a function that
// a loop calls Close only begins to close.
func (l *Listener) Close() error {
	if l.closing.Swap(true) {
		return &net.OpError{Op: "close", Net: l.Addr().Network(), Addr: l.Addr(), Err: runtime.ErrClosed}
	}
	l.stop()
	// end waits for tasks of the loops, so it must not block a loop's thread.
	var err error
	if oerr := loop.Offload(context.Background(), func() { err = l.end() }); oerr != nil {
		go func() { _ = l.end() }() // the caller cannot wait: it is no task, or was killed
		return nil
	}
	return err
}

// end waits until the loops have stopped accepting, and closes the connections that are
// left in the queue.
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
