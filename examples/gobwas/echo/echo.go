// Package echo is a WebSocket echo, server and client, on github.com/gobwas/ws, a
// synchronous library that knows nothing of completions, over
// compat.GrowableSyncStream.
//
// The library wants an io.Reader and an io.Writer. The sync stream is both, and never
// waits: Read returns compat.ErrWouldBlock when nothing is buffered, and Write when the
// buffer is full. The port has to deal with that in three places (conn.go):
//
//   - ws.ReadHeader loses what it has read when it is interrupted. The connection
//     sets a checkpoint before the call. When the call is interrupted, it rolls back,
//     fills the buffer and calls again.
//   - Reading a payload can be interrupted anywhere: the connection takes the bytes
//     that are buffered, and fills the buffer for the rest.
//   - Writing may have to wait in the middle: when the buffer is full, the writer
//     flushes it, which suspends the task.
//
// Where the library is more lenient than RFC 6455, this package checks (frames.go):
// reserved bits, lengths that are not in their shortest form, close codes, UTF-8 at the
// first wrong byte. It has no compression, no TLS, and sends no pings: for those, and
// for speed, use package ws.
package echo

import (
	"cmp"
	"context"
	"time"

	"github.com/gobwas/ws"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/tcp"
)

// Options configure a connection. The zero value has defaults.
type Options struct {
	// MaxMessage is the longest message that a connection receives, in bytes; a longer
	// one closes the connection with code 1009. 0 means 32 MiB.
	MaxMessage int

	// HandshakeTimeout limits the whole opening handshake. 0 means 10 seconds.
	HandshakeTimeout time.Duration

	// CloseTimeout is how long a connection that ends waits for the peer's end. 0 means
	// 5 seconds.
	CloseTimeout time.Duration
}

func (o Options) withDefaults() Options {
	o.MaxMessage = cmp.Or(o.MaxMessage, 32<<20)
	o.HandshakeTimeout = cmp.Or(o.HandshakeTimeout, 10*time.Second)
	o.CloseTimeout = cmp.Or(o.CloseTimeout, 5*time.Second)
	return o
}

// Server returns a server that sends every message back.
func Server(o Options) *tcp.Server {
	return &tcp.Server{Handler: func(_ context.Context, s *loop.Stream) error {
		c, err := newConn(s, o, false)
		if err != nil {
			return err
		}
		defer func() { _, _ = c.sync.Take() }() // the server closes the stream
		return c.serve()
	}}
}

// serve runs one connection of a server.
func (c *conn) serve() error {
	if err := c.accept(); err != nil {
		return err
	}
	return c.end(c.echo())
}

// Client connects to a ws URL and sends every message back until the server closes the
// connection. It must be called from a task, and waits.
func Client(ctx context.Context, url string, o Options) error {
	c, err := dial(ctx, url, o)
	if err != nil {
		return err
	}
	defer func() { _ = c.sync.Close() }()
	return c.end(c.echo())
}

// Say connects to a ws URL, sends text, and returns the answer. It must be called from
// a task, and waits.
func Say(ctx context.Context, url, text string, o Options) (answer string, err error) {
	c, err := dial(ctx, url, o)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.sync.Close() }()
	if err = c.send(ws.OpText, []byte(text)); err == nil {
		var m []byte
		_, m, err = c.receive()
		answer = string(m)
	}
	if err == nil {
		err = c.shut()
	}
	return answer, c.end(err)
}

// echo sends messages back until the connection ends.
func (c *conn) echo() error {
	for {
		op, m, err := c.receive()
		if err != nil {
			return err
		}
		if err := c.send(op, m); err != nil {
			return err
		}
	}
}
