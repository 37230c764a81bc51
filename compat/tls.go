package compat

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// DefaultHandshakeTimeout is how long a TLS handshake may take.
const DefaultHandshakeTimeout = 10 * time.Second

// TLSOptions say how a TLS connection is made. The zero value is good.
type TLSOptions struct {
	// HandshakeTimeout is for all of the handshake, however slowly the peer
	// sends it; 0 means DefaultHandshakeTimeout.
	HandshakeTimeout time.Duration
}

// A TLSStream is TLS over a loop.Stream, by crypto/tls, on the loop's
// thread. It has the same methods, so that code for one can have the other: see
// Stream. One task may read while others write.
//
// A *tls.Conn over the stream itself would not do. It holds a mutex while it
// writes, and takes the same one from inside a read, to answer a key update or
// a bad record; if the writer is a suspended task then, its thread waits for
// itself, and a peer can bring that about. So here crypto/tls reads and writes
// memory that never waits, and no task is ever suspended inside it:
//
//   - A read gives it what has arrived, and waits outside until there is more.
//   - A write waits for room in the stream's queue first, then encrypts a record
//     or so into that queue, whose limit may be passed by that much.
//   - Answers that reads produce go into the queue whether there is room or not.
//     A peer that provokes them and takes none is cut off after maxAnswers.
//   - The handshake does wait inside; TLSServer and TLSClient return when it is
//     over, so no second task sees the connection before.
//
// crypto/tls calls back into the configuration (GetCertificate, for one) on the
// loop's thread: these functions must not block.
type TLSStream struct {
	s    *loop.Stream
	wire *wire
	conn *tls.Conn

	plain  []*runtime.Buffer // given to Unread: read first
	bytes  int               // in plain
	more   bool              // crypto/tls may have bytes left, decrypted or not
	err    error             // why no more will be read
	tryErr error             // why the last TryReadBuf found nothing, such as a lack of memory
	readBy time.Time         // the read deadline

	writing bool          // a Write is at work, or waits for room
	midway  bool          // and some of it is queued
	turns   []*loop.Event // of those that wait for it to end, in order
	free    loop.Event    // no Write is half-way
	shut    bool
	closed  bool
	owner   context.Context
}

// TLSServer makes the server's side of TLS over s and returns when the
// handshake is complete. It is called from a task of s's loop, from elsewhere it
// fails with ErrOffLoop; ctx, its end and the task's being killed end it. When it
// succeeds, s is the TLSStream's own and has no deadlines; when it fails, s is
// still the caller's, for closing.
//
// A goroutine that has a *Conn gives that to tls.Server, as it would any
// net.Conn.
func TLSServer(ctx context.Context, s *loop.Stream, config *tls.Config, opts TLSOptions) (*TLSStream, error) {
	if config == nil {
		return nil, errors.New("compat: a TLS server needs a configuration with a certificate")
	}
	return newTLS(ctx, s, opts, func(w *wire) *tls.Conn { return tls.Server(w, config) })
}

// TLSClient is TLSServer for the client's side. config needs a ServerName, or
// InsecureSkipVerify. A renegotiation that the server asks for is refused: it
// would be a handshake in the middle of a read.
func TLSClient(ctx context.Context, s *loop.Stream, config *tls.Config, opts TLSOptions) (*TLSStream, error) {
	if config == nil {
		return nil, errors.New("compat: a TLS client needs a configuration with a ServerName")
	}
	if config.Renegotiation != tls.RenegotiateNever {
		config = config.Clone()
		config.Renegotiation = tls.RenegotiateNever
	}
	return newTLS(ctx, s, opts, func(w *wire) *tls.Conn { return tls.Client(w, config) })
}

func newTLS(ctx context.Context, s *loop.Stream, opts TLSOptions, side func(*wire) *tls.Conn) (*TLSStream, error) {
	if !s.Loop().Friend(friend.Key{}).OnLoop() {
		return nil, &runtime.OpError{Op: "tls handshake", Handle: s.Handle(), Err: loop.ErrOffLoop}
	}
	if opts.HandshakeTimeout <= 0 {
		opts.HandshakeTimeout = DefaultHandshakeTimeout
	}
	w := &wire{s: s, shaking: true}
	c := &TLSStream{s: s, wire: w, conn: side(w), more: true} // it may have read beyond the handshake
	if err := c.handshake(ctx, opts.HandshakeTimeout); err != nil {
		return nil, &runtime.OpError{Op: "tls handshake", Handle: s.Handle(), Detail: s.RemoteAddr().String(), Err: err}
	}
	c.free.Set()
	return c, nil
}

// handshake runs crypto/tls's, with the connection to itself. A context that
// can end is kept from it: crypto/tls would close the connection from a
// goroutine of its own. Instead, the end of ctx makes the stream's deadlines
// pass.
func (c *TLSStream) handshake(ctx context.Context, timeout time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	lp := c.s.Loop()
	if err := c.s.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		// If this fails, the loop is ending or overwhelmed: then the task is
		// killed, or the timeout ends it.
		_ = lp.Post(func() {
			if c.wire.shaking {
				_ = c.s.SetDeadline(time.Unix(1, 0))
			}
		})
	})
	defer stop()
	err := c.conn.HandshakeContext(context.WithoutCancel(ctx))
	c.wire.shaking = false
	if err == nil {
		return c.s.SetDeadline(time.Time{})
	}
	switch {
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("not complete after %v: %w", timeout, err)
}

// Stream returns the stream beneath, which stays the TLSStream's own: it is
// for options of the socket.
func (c *TLSStream) Stream() *loop.Stream { return c.s }

// Loop returns the stream's loop.
func (c *TLSStream) Loop() *loop.Loop { return c.s.Loop() }

// ConnectionState returns what the handshake has agreed on. It may be called
// from any goroutine.
func (c *TLSStream) ConnectionState() tls.ConnectionState { return c.conn.ConnectionState() }

// LocalAddr returns the address of this end.
func (c *TLSStream) LocalAddr() net.Addr { return c.s.LocalAddr() }

// RemoteAddr returns the address of the other end.
func (c *TLSStream) RemoteAddr() net.Addr { return c.s.RemoteAddr() }

// AllowGoroutines is loop.Stream's: it lets ordinary goroutines use the
// stream.
func (c *TLSStream) AllowGoroutines(ctx context.Context) {
	c.s.AllowGoroutines(ctx)
	c.owner = ctx
}

// elsewhere carries out a call that came from outside the loop, as a task: the
// stream's methods would do it one by one, and crypto/tls would then run on a
// goroutine.
func (c *TLSStream) elsewhere(op string, f func() error) error {
	if c.owner == nil {
		return &runtime.OpError{Op: op, Handle: c.s.Handle(), Err: loop.ErrOffLoop}
	}
	return c.s.Loop().Call(c.owner, op, func(context.Context) error { return f() })
}

// SetDeadline sets both deadlines: see loop.Stream.
func (c *TLSStream) SetDeadline(d time.Time) error {
	return errors.Join(c.SetReadDeadline(d), c.SetWriteDeadline(d))
}

// SetReadDeadline sets when reading ends with os.ErrDeadlineExceeded. What
// arrives is kept all the same.
func (c *TLSStream) SetReadDeadline(d time.Time) error {
	if !c.Loop().Friend(friend.Key{}).OnLoop() {
		return c.elsewhere("set read deadline", func() error { return c.SetReadDeadline(d) })
	}
	if err := c.s.SetReadDeadline(d); err != nil {
		return err
	}
	c.readBy = d
	return nil
}

// SetWriteDeadline is SetReadDeadline for writing. A write that it cuts short
// has not broken the connection, as it would with a *tls.Conn: later ones go
// on.
func (c *TLSStream) SetWriteDeadline(d time.Time) error { return c.s.SetWriteDeadline(d) }

// Close says goodbye (a close_notify alert) and closes the stream as
// loop.Stream.Close does: what was written is sent first.
func (c *TLSStream) Close() error {
	if !c.Loop().Friend(friend.Key{}).OnLoop() {
		if c.owner == nil {
			return c.elsewhere("close", nil)
		}
		// Not a child of the owner: what closes must not be killed before it starts.
		return c.Loop().Call(context.Background(), "close", func(context.Context) error { return c.Close() })
	}
	if !c.closed {
		c.closed = true
		_ = c.conn.CloseWrite() // a stream that has failed cannot take it, and Close says so
		runtime.Drop(c.plain...)
		c.plain, c.bytes = nil, 0
	}
	return c.s.Close()
}
