// Package echo is a WebSocket echo, server and client, on github.com/gobwas/ws: a
// synchronous library that knows nothing of completions, brought over by
// compat.GrowableSyncStream.
//
// The library wants an io.Reader and an io.Writer. The sync stream is both, and
// never waits: Read answers compat.ErrWouldBlock when nothing is buffered, and Write
// when the buffer is full. Porting comes down to three places (conn.go):
//
//   - ws.ReadHeader loses what it has read when it is interrupted. The connection
//     sets a checkpoint before, rolls back, fills the buffer and calls it again.
//   - Reading a payload can be interrupted anywhere: the connection takes what is
//     there, and fills the buffer for the rest.
//   - Writing may wait in the middle: the writer flushes when the buffer is full, which
//     suspends the task, and goes on.
//
// Where the library is lenient and RFC 6455 is not, this package checks (frames.go):
// reserved bits, lengths that are not in their shortest form, close codes, UTF-8 at
// the first wrong byte. There is no compression, no TLS, and no ping of its own: for
// those, and for speed, there is package ws.
package echo

import (
	"cmp"
	"context"
	"time"

	"github.com/gobwas/ws"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/tcp"
)

// Options are what a connection can be told. The zero value is good.
type Options struct {
	// MaxMessage is how many bytes a message that is received may have; a longer one
	// closes the connection with code 1009. 0 means 32 MiB.
	MaxMessage int

	// HandshakeTimeout is for all of the opening handshake. 0 means 10 seconds.
	HandshakeTimeout time.Duration

	// CloseTimeout is how long the end of a connection waits for the peer's. 0 means
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

// serve is one connection of a server.
func (c *conn) serve() error {
	if err := c.accept(); err != nil {
		return err
	}
	return c.end(c.echo())
}

// Client connects to a ws URL and sends every message back until the server closes
// the connection. It is called from a task.
func Client(ctx context.Context, url string, o Options) error {
	c, err := dial(ctx, url, o)
	if err != nil {
		return err
	}
	defer func() { _ = c.sync.Close() }()
	return c.end(c.echo())
}

// Say connects to a ws URL, sends text, and returns what comes back. It is called
// from a task.
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
