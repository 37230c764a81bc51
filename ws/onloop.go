package ws

import (
	"context"
	"errors"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/runtime"
)

// How a call gets onto the connection's loop. A method that may be called from anywhere
// asks onLoop first. On another thread (a goroutine, or a task of another loop) it has a
// task of the loop do the work, with callLoop or valueFromLoop. Only messages to send take
// another way: see crossthread.go.

var key friend.Key // opens what only this module may call: see internal/friend

// onLoop reports whether the caller runs on the connection's loop.
func (c *Conn) onLoop() bool { return c.loop.Friend(key).OnLoop() }

// callLoop runs f as a task of the connection's loop, for a call from another thread, and
// waits for it.
func (c *Conn) callLoop(ctx context.Context, what string, f func(ctx context.Context) error) error {
	err := c.loop.Friend(key).Call(ctx, "ws: "+what, f)
	if errors.Is(err, runtime.ErrCanceled) || errors.Is(err, context.Canceled) {
		if cerr := ctxErr(ctx); cerr != nil { // ctx cancelled the call, perhaps by its deadline
			return cerr
		}
	}
	return err
}

// valueFromLoop is callLoop for a call that returns a value. A caller must not assign to
// variables that f captures: they would move to the heap, and calls on the loop, which
// need no f, would pay for that too.
func valueFromLoop[T any](ctx context.Context, c *Conn, what string, f func(ctx context.Context) (T, error)) (v T, err error) {
	err = c.callLoop(ctx, what, func(ctx context.Context) (err error) {
		v, err = f(ctx)
		return err
	})
	return v, err
}

// post makes the loop call f, outside any task. It may be called from anywhere, and fails
// only if the loop has ended.
func (c *Conn) post(f func()) error { return c.loop.Friend(key).Post(f) }

// nextTurn makes the loop call f in its next turn, outside any task. It must be called on
// the loop.
func (c *Conn) nextTurn(f func()) { c.loop.Friend(key).NextTurn(f) }

// onLoop reports whether the caller runs on the loop.
func (l *local) onLoop() bool { return l.loop.Friend(key).OnLoop() }
