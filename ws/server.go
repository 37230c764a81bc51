package ws

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/tcp"
)

// A HandlerFunc serves one connection. ctx ends with the connection and with the
// server's drain. When the handler returns, the connection is closed: with
// StatusNormalClosure if it returned nil, with StatusGoingAway if ctx had ended,
// and with StatusInternalError if it returned an error of its own. What it still
// holds is reclaimed.
type HandlerFunc func(ctx context.Context, c *Conn) error

// A Server serves WebSocket connections with a Handler. It is a
// runtime.Service. Its fields must not change while it serves. One Server may
// serve several addresses.
type Server struct {
	Handler HandlerFunc

	// OnGoroutine runs each handler on a goroutine of its own in place of the
	// loop's thread. It may block as it likes; each call on the connection then
	// costs two switches between threads.
	OnGoroutine bool

	// Options are what every connection is told.
	Options

	// Subprotocols are those that the handler speaks. The first of the client's
	// that is among them is agreed on.
	Subprotocols []string

	// HandshakeTimeout is for all of the opening handshake. 0 means
	// DefaultHandshakeTimeout.
	HandshakeTimeout time.Duration

	// MaxHead is how many bytes a request may have. 0 means DefaultMaxHead.
	MaxHead int

	// MaxConns is how many connections are served at once, over all loops; see
	// tcp.Server.
	MaxConns int

	// DrainTime is how long handlers may go on after the context of Serve has
	// ended; see tcp.Server.
	DrainTime time.Duration

	once sync.Once
	err  error // of Options.check
	opts Options
	tcp  tcp.Server
}

// Stats are a Server's counts since it was made: see tcp.Stats. A connection
// whose handshake failed, and one that ended with any other code than
// StatusNormalClosure, StatusGoingAway or none, counts as failed.
type Stats = tcp.Stats

// Stats returns the server's counts. It may be called from anywhere.
func (s *Server) Stats() Stats { return s.tcp.Stats() }

// Serve is runtime.Service's: it serves the connections of ln until ctx ends,
// and then drains.
func (s *Server) Serve(ctx context.Context, ln *runtime.Listener) error {
	s.once.Do(s.prepare)
	if s.err != nil {
		return s.err
	}
	return s.tcp.Serve(ctx, ln)
}

func (s *Server) prepare() {
	if s.Handler == nil {
		s.err = errors.New("ws: the Server has no Handler")
		return
	}
	s.err = s.Options.check()
	s.opts = s.Options.withDefaults()
	s.tcp.Handler = s.serve
	s.tcp.MaxConns, s.tcp.DrainTime, s.tcp.Logger = s.MaxConns, s.DrainTime, s.Logger
}

func (s *Server) handshakeTimeout() time.Duration {
	if s.HandshakeTimeout <= 0 {
		return DefaultHandshakeTimeout
	}
	return s.HandshakeTimeout
}

func (s *Server) maxHead() int {
	if s.MaxHead <= 0 {
		return DefaultMaxHead
	}
	return s.MaxHead
}

// serve is the task of one connection.
func (s *Server) serve(ctx context.Context, tc *tcp.Conn) error {
	req, protocol, err := s.accept(tc.Stream)
	if err != nil {
		return err
	}
	c := &Conn{request: req, subprotocol: protocol}
	c.init(tc.Stream, &s.opts, false)
	return c.run(ctx, s.Handler, s.OnGoroutine)
}

// run runs a handler on c, and closes c whatever the handler does.
func (c *Conn) run(ctx context.Context, handler HandlerFunc, onGoroutine bool) (err error) {
	returned := false
	defer func() {
		if !returned { // it panicked: that goes on, and this must not wait
			c.sendClose(StatusInternalError, "")
			err = errors.New("ws: the handler did not return")
		} else {
			c.finish(ctx, err)
		}
		c.reclaim()
		c.ended(err)
	}()
	if hook := c.opts.Hooks.Opened; hook != nil {
		hook(c)
	}
	if onGoroutine {
		c.stream.AllowGoroutines(ctx)
		if gerr := runtime.OnGoroutine(ctx, func() { err = handler(ctx, c) }); gerr != nil {
			err = gerr
		}
	} else {
		err = handler(ctx, c)
	}
	returned = true
	return orderly(ctx, err)
}

// orderly drops an error that only says that the connection was closed in
// order, or that the server stops.
func orderly(ctx context.Context, err error) error {
	var closed *CloseError
	if errors.As(err, &closed) {
		switch closed.Code {
		case StatusNormalClosure, StatusGoingAway, StatusNoStatus:
			return nil
		}
	}
	if cerr := ctx.Err(); cerr != nil && errors.Is(err, cerr) {
		return nil
	}
	return err
}

// ended reports the end of an opened connection.
func (c *Conn) ended(err error) {
	hook := c.opts.Hooks.Closed
	if hook == nil {
		return
	}
	code := c.sentClose
	switch {
	case c.gotClose != nil && (c.sentClose == 0 || c.sentClose == c.gotClose.Code):
		code = c.gotClose.Code
	case code == 0:
		code = StatusAbnormalClosure
	}
	hook(c, code, err)
}
