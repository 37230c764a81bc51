package compat

import (
	"context"
	"errors"
	"net"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// A Conn is a net.Conn over a loop, for ordinary goroutines: any of them may
// read, write, set deadlines and close, at the same time. Each call is carried
// out by a task of the loop, which costs two switches between threads; code
// that can run as a task has the same methods on a loop.Stream without them.
//
// There is no SyscallConn: the loop receives ahead of whoever reads, so nobody
// else could use the descriptor without tearing the bytes apart. Options of the
// socket are set with SetOption.
//
// Write returns when the bytes are queued, as everywhere on a loop. Close sends
// what is queued, but waits no longer than the kernel takes it at once: if the
// peer does not read, the loop goes on for as long as StreamOptions.Linger, and
// Group.Stop waits for that. Flush before it says whether all was sent.
type Conn struct{ *loop.Stream }

var _ net.Conn = (*Conn)(nil)

// conn marks what goroutines may use although it belongs to a loop: see
// TakeOver.
func (c *Conn) conn() *Conn { return c }

// NewConn makes s, which is the Conn's own from now on, usable from
// goroutines. It is called on s's loop.
func NewConn(s *loop.Stream) *Conn {
	s.AllowGoroutines(context.Background())
	return &Conn{s}
}

// Dial connects to address ("host:port", "unix:/path") over l, from any
// goroutine. The end of ctx ends it.
func Dial(ctx context.Context, l *loop.Loop, address string, opts loop.DialOptions) (*Conn, error) {
	var c *Conn
	err := l.Friend(friend.Key{}).Call(ctx, "dial "+address, func(tctx context.Context) error {
		s, err := l.Dial(tctx, address, opts)
		if err == nil {
			c = NewConn(s)
		}
		return err
	})
	if err != nil {
		if cerr := ctx.Err(); cerr != nil && errors.Is(err, runtime.ErrCanceled) {
			err = &runtime.OpError{Op: "dial", Detail: address, Err: cerr}
		}
		return nil, err
	}
	return c, nil
}
