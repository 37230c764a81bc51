package ws

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/noria-go/noria/internal/tlslayer"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/tcp"
	"github.com/noria-go/noria/ws/internal/handshake"
)

// A HandlerFunc serves one connection. ctx ends when the server drains. The end of the
// connection does not end ctx; it makes the handler's calls on the connection fail, and
// ends the context that CloseRead returns.
//
// When the handler returns, the connection is closed: with StatusGoingAway if ctx has
// ended, otherwise with StatusNormalClosure if the handler returned nil or the peer's
// orderly close, and with StatusInternalError if it returned another error. Messages that
// it neither sent nor released are reclaimed, with a warning in the log.
type HandlerFunc func(ctx context.Context, c *Conn) error

// A Server serves WebSocket connections with a Handler. It is a loop.Service, which
// noria.ListenAndServe and a Group run. Its fields must not change while it serves. One
// Server may serve several addresses.
type Server struct {
	Handler HandlerFunc

	// OnGoroutine runs each handler on a goroutine of its own instead of the loop's
	// thread. The handler may then block, but each of its calls on the connection costs
	// two switches between threads.
	OnGoroutine bool

	// Options configure every connection.
	Options

	// TLS makes this a wss server; nil: no TLS. The configuration's functions are called
	// on the loop and must not block.
	TLS *tls.Config

	// Subprotocols are those that the handler speaks. The server chooses the first of
	// the client's that is among them.
	Subprotocols []string

	// Origins are patterns of the origins that may connect, beside the server's own
	// (the origin whose host and port equal the request's Host header): "example.com",
	// "*.example.com", "https://*.example.com", "localhost:*", "null", or "*" for all. A
	// browser sends the origin of the page that connects. Requests without an origin,
	// which most other programs send, are accepted.
	Origins []string

	// Authorize is called last in the opening handshake, on the loop, and must not block.
	// (An HTTPHandler calls it on net/http's goroutine, where it may block.) The response
	// has the headers that it returns. An error refuses the request: with its status and
	// text if it is a *Refusal, otherwise with 403.
	Authorize func(*Request) (http.Header, error)

	// HandleHTTP answers requests that do not ask for an upgrade. It is called where
	// Authorize is. Requests for which it returns nil are refused; without HandleHTTP all
	// of them are.
	HandleHTTP func(*Request) *Response

	// HandshakeTimeout bounds the whole opening handshake. 0 and less mean
	// DefaultHandshakeTimeout: without a limit, silent clients could hold connections
	// for ever.
	HandshakeTimeout time.Duration

	// MaxHeaderBytes is how many bytes a request may have, its first line included. 0
	// and less mean DefaultMaxHeaderBytes.
	MaxHeaderBytes int

	// MaxConns is how many connections all loops together serve at once; see tcp.Server.
	MaxConns int

	// DrainTime is how long handlers may run after the context of Serve has ended; see
	// tcp.Server and loop.Task. Each connection is sent a Close frame with StatusGoingAway, and its
	// handler's context ends. If a Writer has begun a message and ends it within
	// DrainTime, the Close frame follows that message. Clients that have not finished
	// the opening handshake are refused with 503.
	DrainTime time.Duration

	// DrainSpread is the time over which the connections are told to end, one after
	// another, so that their clients do not all reconnect elsewhere at once. 0 means
	// half of DrainTime, negative means all at once.
	DrainSpread time.Duration

	once  sync.Once
	err   error // why the fields cannot be used
	opts  Options
	shake handshake.Server
	tcp   tcp.Server

	refused atomic.Int64 // requests of net/http that became no connection, which tcp does not count
}

// Stats returns the server's counts. It may be called from anywhere and does not wait.
// A connection counts as failed if its opening handshake failed, that of TLS included,
// or if it ended with another code than StatusNormalClosure, StatusGoingAway or none.
// A request that an HTTPHandler refuses counts as failed too, unless it was refused
// because of MaxConns.
func (s *Server) Stats() tcp.Stats {
	st, n := s.tcp.Stats(), s.refused.Load()
	st.Accepted += n
	st.Failed += n
	return st
}

// Serve implements loop.Service: it serves the connections of ln in a task of ln's loop,
// and waits until ctx ends and the server has drained.
func (s *Server) Serve(ctx context.Context, ln *loop.Listener) error {
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
	s.shake = s.handshaker()
	if s.err = errors.Join(s.Options.check(), s.shake.Validate()); s.err != nil {
		s.err = fmt.Errorf("ws: the Server's fields are invalid: %w", s.err)
		return
	}
	s.opts = s.Options.withDefaults()
	s.tcp.Handler = s.serve
	s.tcp.MaxConns, s.tcp.Logger = s.MaxConns, s.Logger
	s.tcp.DrainTime, s.tcp.DrainSpread = s.DrainTime, s.DrainSpread
	if s.DrainSpread == 0 {
		s.tcp.DrainSpread = tcp.DefaultDrainTime / 2
		if s.DrainTime != 0 {
			s.tcp.DrainSpread = s.DrainTime / 2
		}
	}
}

func (s *Server) handshakeTimeout() time.Duration {
	if s.HandshakeTimeout <= 0 {
		return DefaultHandshakeTimeout
	}
	return s.HandshakeTimeout
}

func (s *Server) maxHeaderBytes() int {
	if s.MaxHeaderBytes <= 0 {
		return DefaultMaxHeaderBytes
	}
	return s.MaxHeaderBytes
}

// serve is the task of one connection.
func (s *Server) serve(ctx context.Context, stream *loop.Stream) error {
	deadline := time.Now().Add(s.handshakeTimeout())
	if s.TLS != nil {
		if err := tlslayer.Server(ctx, stream, s.TLS, s.handshakeTimeout()); err != nil {
			s.handshakeFailed(stream.RemoteAddr().String(), err)
			return fmt.Errorf("ws: %w", err)
		}
	}
	acc, err := s.accept(ctx, stream, deadline)
	if acc == nil {
		if err != nil {
			s.handshakeFailed(stream.RemoteAddr().String(), err)
		}
		return err
	}
	return s.open(stream, acc).run(ctx, s.Handler, s.OnGoroutine)
}

// handshakeFailed logs why a handshake failed. Any client can cause that, as often as it
// likes, so the level is Debug.
func (s *Server) handshakeFailed(peer string, err error) {
	s.opts.Logger.Debug("noria: a handshake failed", "peer", peer, "error", err)
}

// open makes the connection of a handshake that was accepted.
func (s *Server) open(stream *loop.Stream, acc *handshake.Accepted) *Conn {
	c := newConn(stream, &s.opts, false)
	c.request, c.subprotocol = (*Request)(acc.Request), acc.Subprotocol
	c.agree(acc.Deflate)
	return c
}

// run runs a handler on c, and closes c however the handler ends.
func (c *Conn) run(ctx context.Context, handler HandlerFunc, onGoroutine bool) (err error) {
	returned := false
	defer func() { // runs last, even if a hook panics in the other one
		c.reclaim()
		c.reportClosed(err)
	}()
	defer func() {
		if returned {
			c.finish(ctx, err)
		} else { // the handler panicked: do not wait for the peer
			err = errors.New("ws: the handler did not return")
			_ = c.sendClose(StatusInternalError, "")
			_ = c.shut()
		}
	}()
	// When ctx ends, the peer is sent a Close frame, whatever the handler does.
	if task := loop.TaskOf(ctx); ctx.Err() != nil {
		c.goAway()
	} else {
		defer task.Friend(key).AfterFunc(c.goAway)()
	}
	if hook := c.opts.Hooks.Opened; hook != nil {
		hook(c)
	}
	if onGoroutine {
		// If the task is killed, the handler's calls must fail, whatever their contexts.
		if gerr := loop.TaskOf(ctx).Friend(key).OnGoroutine(func() { err = handler(ctx, c) }, func() { _ = c.giveUp(errClosed) }); gerr != nil {
			err = gerr
		}
	} else {
		err = handler(ctx, c)
	}
	returned = true
	return orderly(ctx, err)
}
