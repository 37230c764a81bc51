package ws

import (
	"context"
	"errors"

	"github.com/noria-go/noria/runtime"
)

// A connection ends in three ways. fail is for a peer that breaks the protocol, giveUp
// for one that does not read or does not answer, and sendFailed for a transport that is
// gone. Each leaves its error in Conn.readErr, Conn.failed or both: the error of all
// later calls that receive, or send. shut (in close.go) closes the transport.

// end records err as the reason why nothing more is received, unless there is one, and
// returns the reason.
func (c *Conn) end(err error) error {
	if c.readErr == nil {
		c.readErr = err
		if c.code == 0 {
			c.code = StatusAbnormalClosure
		}
		c.over.Set()
		if c.cross.Load() != nil {
			c.endCross()
		}
		c.frames.drop()
		c.dropPartial()
	}
	return c.readErr
}

// fail sends the peer a Close frame with code, and ends receiving with a *ProtocolError.
func (c *Conn) fail(code StatusCode, detail string) error {
	err := &ProtocolError{Code: code, Detail: detail}
	_ = c.sendClose(code, "") // if this fails, the caller still gets the error
	return c.end(err)
}

// sendErr returns why nothing can be sent any more, or nil.
func (c *Conn) sendErr() error {
	switch {
	case c.failed != nil:
		return c.failed
	case c.gotClose != nil:
		return c.gotClose
	case c.sentClose != 0 || c.closed:
		return errClosed
	}
	return nil
}

// sendFailed records that the transport is gone, or that only part of a frame could be
// queued, so that nothing may follow it.
func (c *Conn) sendFailed(err error) error {
	if c.failed == nil {
		if errors.Is(err, runtime.ErrNoBuffers) { // the transport works still, and has to be ended here
			return c.giveUp(abnormal(err))
		}
		c.failed = abnormal(err)
		c.stream.Friend(key).SetLinger(-1)
	}
	return c.failed
}

// giveUp ends a connection without waiting for the peer, which does not read or is gone.
func (c *Conn) giveUp(err error) error {
	if c.failed == nil {
		c.failed = err
	}
	c.stream.Friend(key).SetLinger(-1)
	_ = c.end(err)
	_ = c.stream.SetReadDeadline(past) // wakes the call that receives
	return err
}

// transportEnded is called when the stream has ended: after shut, or because the loop
// ended while the connection was open. It wakes every thread that waits.
func (c *Conn) transportEnded() {
	if c.failed == nil {
		c.failed = errClosed
	}
	_ = c.end(errClosed)
	if c.cross.Load() != nil {
		c.failCross(c.failed)
	}
	if c.closed {
		return
	}
	c.closed = true
	c.gone.Store(true)
	c.alive.Stop()
	if c.client {
		c.letGo()
		c.reportClosed(errClosed)
	}
}

// reportClosed calls Hooks.Closed for a connection whose handler returned err.
func (c *Conn) reportClosed(err error) {
	hook := c.opts.Hooks.Closed
	if hook == nil {
		return
	}
	if err == nil {
		err = c.readErr
	}
	here := c.answered && errors.Is(err, c.gotClose) || c.sentClose != 0 && errors.Is(err, errClosed)
	if here { // err only says that this end has sent a Close frame
		err = nil
	}
	hook(c, c.code, err)
}

// orderly returns err, a handler's, or nil if err only says that the peer closed the
// connection in an orderly way or that the server stops.
func orderly(ctx context.Context, err error) error {
	var closed *CloseError
	if errors.As(err, &closed) {
		switch closed.Code {
		case StatusNormalClosure, StatusGoingAway, StatusNoStatus:
			return nil
		}
	}
	if cerr := ctx.Err(); cerr != nil && (errors.Is(err, cerr) || errors.Is(err, runtime.ErrClosed)) {
		return nil
	}
	return err
}
