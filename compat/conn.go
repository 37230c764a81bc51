package compat

import (
	"context"
	"net"

	"github.com/noria-go/noria/internal/dialer"
	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
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
	s.Friend(friend.Key{}).AllowGoroutines(context.Background())
	return &Conn{s}
}

// Dial connects to address ("host:port", "unix:/path") and waits until the connection
// is open. It may be called from anywhere. A task gives its own context, and the
// connection belongs to its loop; a goroutine's belongs to a loop of opts.Group, or of a
// group that is started when it is first needed. The end of ctx ends Dial. The caller
// must close the connection.
func Dial(ctx context.Context, address string, opts loop.DialOptions) (*Conn, error) {
	var c *Conn
	err := dialer.On(ctx, opts.Group, address, func(ctx context.Context, _ bool) error {
		s, err := loop.TaskOf(ctx).Loop().Friend(friend.Key{}).Dial(ctx, address, opts)
		if err == nil {
			c = NewConn(s)
		}
		return err
	})
	return c, err
}
