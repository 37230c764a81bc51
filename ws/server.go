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

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/internal/tlslayer"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/tcp"
	"github.com/noria-go/noria/ws/internal/handshake"
)

// A HandlerFunc serves one connection. ctx ends with the connection and with the
// server's drain. When the handler returns, the connection is closed: with
// StatusNormalClosure if it returned nil, with StatusGoingAway if ctx had ended,
// and with StatusInternalError if it returned an error of its own. What it still
// holds is reclaimed.
type HandlerFunc func(ctx context.Context, c *Conn) error

// A Server serves WebSocket connections with a Handler. It is a
// loop.Service. Its fields must not change while it serves. One Server may
// serve several addresses.
type Server struct {
	Handler HandlerFunc

	// OnGoroutine runs each handler on a goroutine of its own in place of the
	// loop's thread. It may block as it likes; each call on the connection then
	// costs two switches between threads.
	OnGoroutine bool

	// Options are what every connection is told.
	Options

	// TLS makes it a wss server. Its functions are called on the loop and must
	// not block. nil: no TLS.
	TLS *tls.Config

	// Subprotocols are those that the handler speaks. The first of the client's
	// that is among them is agreed on.
	Subprotocols []string

	// Origins are patterns of the origins that may connect besides the server's
	// own, which is one whose host and port are those of the request's Host
	// header: "example.com", "*.example.com", "https://*.example.com",
	// "localhost:*", "null"; "*" stands for all. A browser sends the origin of the
	// page that connects; other programs mostly send none, and may connect.
	Origins []string

	// Authorize is asked last in the handshake, on the loop, where it must not block
	// (for an HTTPHandler: on net/http's goroutine, where it may). The
	// headers that it returns are sent in the response. An error refuses: with
	// its status and text if it is a *Refusal, otherwise with 403.
	Authorize func(*Request) (http.Header, error)

	// HandleHTTP answers requests that ask for no upgrade, on the loop; it returns nil
	// for what it does not know, which is refused, as all are without it.
	HandleHTTP func(*Request) *Response

	// HandshakeTimeout is for all of the opening handshake. 0 and less mean
	// DefaultHandshakeTimeout: without a limit anybody could hold on for ever.
	HandshakeTimeout time.Duration

	// MaxHeaderBytes is how many bytes a request may have. 0 and less mean DefaultMaxHeaderBytes.
	MaxHeaderBytes int

	// MaxConns is how many connections are served at once, over all loops; see
	// tcp.Server.
	MaxConns int

	// DrainTime is how long handlers may go on after the context of Serve has
	// ended; see tcp.Server. Each connection is sent a Close frame with
	// StatusGoingAway, and its handler's context ends, one after another over
	// DrainSpread, so that not all come back somewhere else at once. 0 means
	// half of DrainTime, negative means all at once. A message that a Writer has
	// begun goes ahead of the frame, if it is ended within DrainTime. Who has not
	// finished the opening handshake is refused with 503.
	DrainTime   time.Duration
	DrainSpread time.Duration

	once  sync.Once
	err   error // what is wrong with the fields
	opts  Options
	shake handshake.Server
	tcp   tcp.Server

	refused atomic.Int64 // requests of net/http's that became no connection: tcp has not seen them
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

// Serve is loop.Service's: it serves the connections of ln until ctx ends,
// and then drains.
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
		s.err = fmt.Errorf("ws: the Server cannot be used as it is: %w", s.err)
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

// handshakeFailed logs why a handshake came to nothing. Anybody can make it do so, as
// often as they like: it is for those who look for it.
func (s *Server) handshakeFailed(peer string, err error) {
	s.opts.Logger.Debug("noria: a handshake failed", "peer", peer, "error", err)
}

// open makes the connection of a handshake.
func (s *Server) open(stream *loop.Stream, acc *handshake.Accepted) *Conn {
	c := newConn(stream, &s.opts, false)
	c.request, c.subprotocol = (*Request)(acc.Request), acc.Subprotocol
	c.agree(acc.Deflate)
	return c
}

// run runs a handler on c, and closes c whatever the handler does.
func (c *Conn) run(ctx context.Context, handler HandlerFunc, onGoroutine bool) (err error) {
	returned := false
	defer func() { // also when a hook panics in what comes before
		c.reclaim()
		c.reportClosed(err)
	}()
	defer func() {
		if returned {
			c.finish(ctx, err)
		} else { // it panicked, which goes on: nobody is waited for
			err = errors.New("ws: the handler did not return")
			_ = c.sendClose(StatusInternalError, "")
			_ = c.shut()
		}
	}()
	// The end of ctx tells the peer, whatever the handler does about it.
	if task := loop.TaskOf(ctx); ctx.Err() != nil {
		c.goAway()
	} else {
		defer task.Friend(friend.Key{}).AfterFunc(c.goAway)()
	}
	if hook := c.opts.Hooks.Opened; hook != nil {
		hook(c)
	}
	if onGoroutine {
		// Its calls end with the connection, whatever context they were given.
		if gerr := loop.TaskOf(ctx).Friend(friend.Key{}).OnGoroutine(func() { err = handler(ctx, c) }, func() { _ = c.giveUp(errClosed) }); gerr != nil {
			err = gerr
		}
	} else {
		err = handler(ctx, c)
	}
	returned = true
	return orderly(ctx, err)
}
