package ws

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"time"

	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
)

// HTTPHandler returns an http.Handler that upgrades the requests of a net/http
// server and serves the connections on g's loops:
//
//	mux.Handle("/ws", ws.HTTPHandler(group, echo))
//
// See Server.HTTPHandler for one with options.
func HTTPHandler(g *loop.Group, f HandlerFunc) http.Handler {
	return (&Server{Handler: f}).HTTPHandler(g)
}

// HTTPHandler returns an http.Handler that does the opening handshake with the
// requests of a net/http server, takes their connections over onto g's loops,
// one loop after another, and serves them there as s does. What s says about
// listening, draining and the time and size of requests is net/http's business
// here; the connections end with the group, or when they are closed. They are in
// s.Stats, and when there are s.MaxConns of them others are answered with 503. A
// handler's context has the values of its request's.
//
// A connection over TLS stays with net/http's goroutines, which pump its bytes
// to the loop and back: that costs two copies and two switches between threads.
func (s *Server) HTTPHandler(g *loop.Group) http.Handler { return &httpHandler{s, g} }

type httpHandler struct {
	s *Server
	g *loop.Group
}

func (h *httpHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := h.s
	s.once.Do(s.prepare)
	if s.err != nil {
		s.Options.logger().Error("noria: a handshake is refused", "error", s.err)
		http.Error(w, "the server is not set up", http.StatusInternalServerError)
		return
	}
	l := h.g.Loop()
	select {
	case <-l.Friend(friend.Key{}).Stopped():
		http.Error(w, "the server has stopped", http.StatusServiceUnavailable)
		return
	default:
	}
	acc, answer, err := s.shake.AcceptHTTP(r)
	if acc == nil {
		if err != nil {
			s.handshakeFailed(r.RemoteAddr, err)
			s.refused.Add(1)
		}
		replay(w, r, answer) // it says what is wrong
		return
	}
	if !s.tcp.Admit() {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "there are as many connections as there may be", http.StatusServiceUnavailable)
		return
	}
	if err := h.takeOver(l, w, r, answer, func(t *loop.Stream) *Conn { return s.open(t, acc) }); err != nil {
		s.tcp.Dismiss()
		s.refused.Add(1)
		s.opts.Logger.Error("noria: a connection cannot be taken over from net/http", "peer", r.RemoteAddr, "error", err)
	}
}

// replay gives w a response that was made to be sent as it is.
func replay(w http.ResponseWriter, r *http.Request, answer []byte) {
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer resp.Body.Close()
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body) // a client that has gone does not read it
}

func (h *httpHandler) takeOver(l *loop.Loop, w http.ResponseWriter, r *http.Request, answer []byte, open func(*loop.Stream) *Conn) error {
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "this connection cannot be upgraded", http.StatusInternalServerError)
		return err
	}
	unread, _ := rw.Reader.Peek(rw.Reader.Buffered()) // no more than is there
	unread = bytes.Clone(unread)
	if err = nc.SetDeadline(time.Time{}); err == nil {
		_, err = nc.Write(answer)
	}
	if err != nil {
		return errors.Join(err, nc.Close())
	}
	stream, _, err := compat.TakeOver(l, nc, compat.TakeOverOptions{Unread: unread})
	if err != nil {
		return errors.Join(err, nc.Close())
	}
	return h.serve(l, r, stream, open)
}

// serve starts the task that serves a connection that was taken over. It fails if the
// loop has ended, which closes the connection.
func (h *httpHandler) serve(l *loop.Loop, r *http.Request, stream *loop.Stream, open func(*loop.Stream) *Conn) error {
	taken := false
	return l.Friend(friend.Key{}).Go("connection "+r.RemoteAddr, func(ctx context.Context) error {
		taken = true
		loop.TaskOf(ctx).Friend(friend.Key{}).SetValues(r.Context()) // its end means nothing any more
		h.s.tcp.ServeConn(ctx, stream, func(ctx context.Context, _ *loop.Stream) error {
			return open(stream).run(ctx, h.s.Handler, h.s.OnGoroutine)
		})
		return nil
	}, func(error) {
		if !taken { // the loop ends
			h.s.tcp.Dismiss()
			stream.Friend(friend.Key{}).SetLinger(-1)
			_ = stream.Close()
		}
	})
}
