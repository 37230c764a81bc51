package ws

import (
	"context"
	"errors"
	"fmt"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
)

// CloseRead receives for a caller that only sends: pings are answered, and the
// peer's Close frame is seen. The context that it returns ends with the connection,
// and context.Cause says why, as an error of Receive. A message from the peer is an
// error, of which it is told with StatusPolicyViolation.
//
// Nobody else may receive until that context has ended, which it does with ctx too. It
// may be called by a task of the loop, with its own ctx, or from any goroutine.
func (c *Conn) CloseRead(ctx context.Context) context.Context {
	// It ends when receiving has, and that is when ctx does, or soon after.
	read, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	receive := func(own context.Context) error {
		for {
			m, err := c.Receive(own)
			switch {
			case m == nil:
				if cerr := ctxErr(ctx); cerr != nil && own.Err() != nil {
					err = cerr // it was stopped because of that
				}
				cancel(err)
				return nil
			case c.sentClose == 0:
				_ = c.fail(StatusPolicyViolation, "a message where none is taken")
			}
			m.Release()
		}
	}
	if !c.loop.Friend(friend.Key{}).OnLoop() {
		go func() { cancel(c.elsewhere(ctx, "receive", receive)) }()
		return read
	}
	_, err := loop.Go(ctx, "ws: close read", func(own context.Context) error {
		defer cancel(errors.New("ws: close read: a hook panicked"))
		if ctx != loop.TaskOf(ctx).Friend(friend.Key{}).Context() { // otherwise it is told without that
			defer context.AfterFunc(ctx, func() { loop.TaskOf(own).Cancel(false) })()
		}
		return receive(own)
	})
	if err != nil {
		cancel(fmt.Errorf("ws: close read: %w", err))
	}
	return read
}
