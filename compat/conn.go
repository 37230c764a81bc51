package compat

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/noria-go/noria/internal/dialer"
	"github.com/noria-go/noria/loop"
)

// A Conn is a net.Conn over a loop for goroutines. Any number of goroutines and tasks may
// call its methods at the same time. A task of the loop carries out the calls of
// goroutines, which costs two switches between threads for each. Code that runs as a task
// can use a loop.Stream, which costs none.
//
// A Conn has no SyscallConn: the loop receives bytes before they are read, so other code
// that used the descriptor would get a part of them.
type Conn struct{ s *loop.Stream }

var (
	_ net.Conn    = (*Conn)(nil)
	_ io.WriterTo = (*Conn)(nil)
)

// NewConn returns a Conn over s, and owns s from now on. It is called on s's loop.
func NewConn(s *loop.Stream) *Conn {
	s.Friend(key).AllowGoroutines(context.Background())
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
		s, err := loop.TaskOf(ctx).Loop().Friend(key).Dial(ctx, address, opts)
		if err == nil {
			c = NewConn(s)
		}
		return err
	})
	return c, err
}

// Read waits for at least one byte and copies what has arrived and fits into p.
func (c *Conn) Read(p []byte) (int, error) { return c.s.Read(p) }

// WriteTo is io.WriterTo, and makes io.Copy from a Conn fast: it writes each buffer that the
// loop has received to w, with one thread switch to the loop and back for each. A type that
// embeds a Conn and has its own Read needs its own WriteTo, or io.Copy bypasses that Read.
func (c *Conn) WriteTo(w io.Writer) (int64, error) { return c.s.WriteTo(w) }

// Write copies p into the queue, and waits while the queue is full. It returns before the
// peer has the bytes: an error of sending is returned by a later call.
func (c *Conn) Write(p []byte) (int, error) { return c.s.Write(p) }

// Flush waits until the kernel has taken everything that was written, or returns why it
// will not.
func (c *Conn) Flush() error { return c.s.Flush() }

// CloseWrite sends what is queued and then ends this side: the peer reads io.EOF. Reading
// continues.
func (c *Conn) CloseWrite() error { return c.s.CloseWrite() }

// Close ends the connection. Calls that are waiting fail with ErrClosed. A goroutine does
// not wait for a peer that does not read: Close returns once the kernel takes no more, and
// the loop sends what is left for as long as StreamOptions.Linger. Group.Stop waits for
// that. To know whether everything was sent, call Flush first. A task of the loop waits
// until the connection has ended.
func (c *Conn) Close() error { return c.s.Close() }

// LocalAddr returns the address of this end.
func (c *Conn) LocalAddr() net.Addr { return c.s.LocalAddr() }

// RemoteAddr returns the address of the other end.
func (c *Conn) RemoteAddr() net.Addr { return c.s.RemoteAddr() }

// SetDeadline sets both deadlines: see SetReadDeadline and SetWriteDeadline.
func (c *Conn) SetDeadline(t time.Time) error { return c.s.SetDeadline(t) }

// SetReadDeadline sets when Read fails with os.ErrDeadlineExceeded, for calls that are
// waiting and for later ones. The zero time means never. What arrives is kept.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.s.SetReadDeadline(t) }

// SetWriteDeadline sets when Write, Flush and CloseWrite fail with os.ErrDeadlineExceeded.
// Queued bytes are still sent.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.s.SetWriteDeadline(t) }

// Loop returns the loop that the connection belongs to.
func (c *Conn) Loop() *loop.Loop { return c.s.Loop() }
