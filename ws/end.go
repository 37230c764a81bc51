package ws

import (
	"context"
	"errors"
	"time"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/runtime"
)

// end notes what has ended receiving.
func (c *Conn) end(err error) error {
	if c.readErr == nil {
		c.readErr = err
		if c.code == 0 {
			c.code = StatusAbnormalClosure
		}
		c.over.Set()
		if c.remote.Load() != nil {
			c.endRemote()
		}
		c.frames.drop()
		c.dropPartial()
	}
	return c.readErr
}

// fail tells the peer what it did wrong, and ends receiving.
func (c *Conn) fail(code StatusCode, detail string) error {
	err := &ProtocolError{Code: code, Detail: detail}
	_ = c.sendClose(code, "") // what the peer cannot be told is in the error all the same
	return c.end(err)
}

// sendErr returns why nothing can be sent.
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

// sendFailed notes that the transport is gone, or that a frame could not be
// queued as a whole: nothing may follow it.
func (c *Conn) sendFailed(err error) error {
	if c.failed == nil {
		if errors.Is(err, runtime.ErrNoBuffers) { // the transport goes on: nobody else will end it
			return c.giveUp(abnormal(err))
		}
		c.failed = abnormal(err)
		c.stream.Friend(friend.Key{}).SetLinger(-1)
	}
	return c.failed
}

// tooSlow closes a connection whose peer does not keep up.
func (c *Conn) tooSlow() error {
	_ = c.sendClose(StatusPolicyViolation, "too slow")
	err := c.giveUp(ErrTooSlow)
	c.stream.Friend(friend.Key{}).SetLinger(time.Second) // it may be slow, and still get to the Close frame
	return err
}

// giveUp ends a connection whose peer does not read, or is not there: it is no
// use to wait for it.
func (c *Conn) giveUp(err error) error {
	if c.failed == nil {
		c.failed = err
	}
	c.stream.Friend(friend.Key{}).SetLinger(-1)
	_ = c.end(err)
	_ = c.stream.SetReadDeadline(past) // whoever receives is to look
	return err
}

// transportEnded is called when the transport is no more: after shut, or because the loop
// has ended with the connection open. Nobody on another thread may wait on.
func (c *Conn) transportEnded() {
	if c.failed == nil {
		c.failed = errClosed
	}
	_ = c.end(errClosed)
	if c.remote.Load() != nil {
		c.failRemote(c.failed)
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

// ended reports the end of an opened connection, whose handler returned err.
func (c *Conn) reportClosed(err error) {
	hook := c.opts.Hooks.Closed
	if hook == nil {
		return
	}
	if err == nil {
		err = c.readErr
	}
	here := c.answered && errors.Is(err, c.gotClose) || c.sentClose != 0 && errors.Is(err, errClosed)
	if here { // it only says that this end has sent a Close frame
		err = nil
	}
	hook(c, c.code, err)
}

// orderly drops an error that only says that the connection was closed in
// order, or that the server stops: then sending fails with ErrClosed.
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
