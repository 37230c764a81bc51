package ws

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// NetConn returns c as a net.Conn, without waiting, for a protocol that needs a stream of
// bytes and tunnels it through a WebSocket. Any number of goroutines and of tasks of c's
// loop may use the net.Conn at once. No other call may receive on c from now on.
//
// Read returns the bytes of the messages of type t, one message after another, and io.EOF
// when the peer has closed with StatusNormalClosure or StatusGoingAway. A message of the
// other type closes the connection with StatusUnsupportedData. Each Write sends a message
// of type t. Close closes with StatusNormalClosure. When ctx ends, reads and writes fail.
func (c *Conn) NetConn(ctx context.Context, t Type) net.Conn {
	n := &netConn{c: c, ctx: ctx, typ: t}
	n.writes, n.cancel = context.WithCancel(ctx)
	return n
}

type netConn struct {
	c   *Conn
	ctx context.Context
	typ Type

	// On the loop:
	r       *Reader
	reading bool // a Read is in progress, and others wait for free
	free    loop.Event

	mu     sync.Mutex      // never held while anything waits
	writes context.Context // of Writes: cancelled when the write deadline passes
	cancel context.CancelFunc
	late   *time.Timer // calls cancel at the deadline
}

func (n *netConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if !n.c.onLoop() {
		return valueFromLoop(n.ctx, n.c, "receive", func(context.Context) (int, error) { return n.read(p) })
	}
	return n.read(p)
}

func (n *netConn) read(p []byte) (int, error) {
	for n.reading {
		if _, err := loop.WaitAny(n.ctx, &n.free); err != nil {
			return 0, err
		}
	}
	n.reading = true
	n.free.Clear()
	defer func() { n.reading = false; n.free.Set() }()
	for {
		if n.r == nil {
			t, r, err := n.c.NextReader(n.ctx)
			if err != nil {
				return 0, n.endOfStream(err)
			}
			if t != n.typ {
				return 0, n.c.fail(StatusUnsupportedData, "a message of type "+t.String()+", want "+n.typ.String())
			}
			n.r = r
		}
		k, err := n.r.read(n.ctx, p)
		if err != io.EOF {
			return k, err // in the middle of a message no error is an orderly end
		}
		n.r = nil
	}
}

// endOfStream turns the peer's orderly close into io.EOF.
func (n *netConn) endOfStream(err error) error {
	if n.c.answered { // this end has closed first
		return errClosed
	}
	var closed *CloseError
	if errors.As(err, &closed) && (closed.Code == StatusNormalClosure || closed.Code == StatusGoingAway) {
		return io.EOF
	}
	return err
}

func (n *netConn) Write(p []byte) (int, error) {
	n.mu.Lock()
	ctx := n.writes
	n.mu.Unlock()
	if n.c.gone.Load() {
		return 0, errClosed
	}
	err := ctx.Err()
	if err == nil {
		err = n.c.sendCopy(ctx, n.typ, p)
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil && n.ctx.Err() == nil {
		err = &runtime.OpError{Op: "send", Err: os.ErrDeadlineExceeded} // the write deadline's error
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (n *netConn) Close() error {
	err := n.c.Close(StatusNormalClosure, "") // ends all calls in progress
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.late != nil {
		n.late.Stop()
	}
	n.cancel()
	return err
}

func (n *netConn) LocalAddr() net.Addr { return n.c.LocalAddr() }

func (n *netConn) RemoteAddr() net.Addr { return n.c.RemoteAddr() }

func (n *netConn) SetDeadline(t time.Time) error {
	return errors.Join(n.SetReadDeadline(t), n.SetWriteDeadline(t))
}

func (n *netConn) SetReadDeadline(t time.Time) error { return n.c.SetReadDeadline(t) }

func (n *netConn) SetWriteDeadline(t time.Time) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.c.gone.Load() {
		return errClosed
	}
	if n.late != nil && !n.late.Stop() || n.writes.Err() != nil {
		n.writes, n.cancel = context.WithCancel(n.ctx)
	}
	n.late = nil
	switch d := time.Until(t); {
	case t.IsZero():
	case d <= 0:
		n.cancel()
	default:
		n.late = time.AfterFunc(d, n.cancel)
	}
	return nil
}
