package ws

import (
	"context"
	"errors"
	"fmt"

	"github.com/noria-go/noria/loop"
)

// CloseRead starts to receive in the background, for a caller that only sends; a task of
// the connection's loop may call it with its own context, and so may any goroutine, and
// it does not wait. Pings are answered and the peer's Close frame is seen. The returned
// context ends when ctx ends or the connection does; context.Cause returns the error that
// Receive would have returned. If the peer sends a message, the connection is closed with
// StatusPolicyViolation.
//
// No other call may receive until the returned context has ended.
func (c *Conn) CloseRead(ctx context.Context) context.Context {
	// read ends when receiving does, so after ctx has ended and not because of it.
	read, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	receive := func(own context.Context) error {
		for {
			m, err := c.Receive(own)
			switch {
			case m == nil:
				if cerr := ctxErr(ctx); cerr != nil && own.Err() != nil {
					err = cerr // receiving was stopped because ctx has ended
				}
				cancel(err)
				return nil
			case c.sentClose == 0:
				_ = c.fail(StatusPolicyViolation, "a message where none is taken")
			}
			m.Release()
		}
	}
	if !c.onLoop() {
		go func() { cancel(c.callLoop(ctx, "receive", receive)) }()
		return read
	}
	_, err := loop.Go(ctx, "ws: close read", func(own context.Context) error {
		defer cancel(errors.New("ws: close read: a hook panicked"))
		if ctx != loop.TaskOf(ctx).Friend(key).Context() { // the end of the task's own context reaches own by itself
			defer context.AfterFunc(ctx, func() { loop.TaskOf(own).Cancel(false) })()
		}
		return receive(own)
	})
	if err != nil {
		cancel(fmt.Errorf("ws: close read: %w", err))
	}
	return read
}
