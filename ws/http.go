package ws

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/loop"
)

// HTTPHandler returns an http.Handler that upgrades requests of a net/http server and
// serves the connections on g's loops:
//
//	mux.Handle("/ws", ws.HTTPHandler(group, echo))
//
// Server.HTTPHandler is the same with options.
func HTTPHandler(g *loop.Group, f HandlerFunc) http.Handler {
	return (&Server{Handler: f}).HTTPHandler(g)
}

// HTTPHandler returns an http.Handler that upgrades requests of a net/http server, moves
// their connections to g's loops in turn, and serves them there with s.Handler. A
// connection that a compat.Listener of g has accepted stays on its loop.
//
// net/http's own settings apply in place of s.TLS, s.DrainTime, s.DrainSpread,
// s.HandshakeTimeout and s.MaxHeaderBytes. The connections end when they are closed or the
// group ends. s.Stats counts them, and while s.MaxConns of them are open, further requests
// are answered with 503. A handler's context has the values of its request's context.
//
// Two goroutines carry the bytes of a TLS connection between net/http's connection and the
// loop, which costs two copies and two switches between threads.
func (s *Server) HTTPHandler(g *loop.Group) http.Handler { return &httpHandler{s, g} }

type httpHandler struct {
	s *Server
	g *loop.Group
}

func (h *httpHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := h.s
	s.once.Do(s.prepare)
	if s.err != nil {
		s.Options.logger().Error("noria: a handshake was refused", "error", s.err)
		http.Error(w, "the server is not set up", http.StatusInternalServerError)
		return
	}
	l := h.g.Loop()
	select {
	case <-l.Friend(key).Stopped():
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
		replay(w, r, answer) // the response says what is wrong
		return
	}
	if !s.tcp.Admit() {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "the server has no room for more connections", http.StatusServiceUnavailable)
		return
	}
	if err := h.takeOver(l, w, r, answer, func(t *loop.Stream) *Conn { return s.open(t, acc) }); err != nil {
		s.tcp.Dismiss()
		s.refused.Add(1)
		s.opts.Logger.Error("noria: a connection could not be taken over from net/http", "peer", r.RemoteAddr, "error", err)
	}
}

// replay writes answer, a complete HTTP response, to w.
func replay(w http.ResponseWriter, r *http.Request, answer []byte) {
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer resp.Body.Close()
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body) // this fails if the client is gone
}

func (h *httpHandler) takeOver(l *loop.Loop, w http.ResponseWriter, r *http.Request, answer []byte, open func(*loop.Stream) *Conn) error {
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "this connection cannot be upgraded", http.StatusInternalServerError)
		return err
	}
	unread, _ := rw.Reader.Peek(rw.Reader.Buffered()) // does not read, so does not fail
	unread = bytes.Clone(unread)
	if err = nc.SetDeadline(time.Time{}); err == nil {
		_, err = nc.Write(answer)
	}
	if err != nil {
		return errors.Join(err, nc.Close())
	}
	if c, ok := nc.(*compat.Conn); ok && slices.Contains(h.g.Loops(), c.Loop()) {
		l = c.Loop() // the group accepted it, and moving it would cost a pump
	}
	stream, _, err := compat.TakeOver(l, nc, compat.TakeOverOptions{Unread: unread})
	if err != nil {
		return errors.Join(err, nc.Close())
	}
	return h.serve(l, r, stream, open)
}

// serve starts the task of a connection that was taken over. It fails if the loop has
// ended, and the connection is closed then.
func (h *httpHandler) serve(l *loop.Loop, r *http.Request, stream *loop.Stream, open func(*loop.Stream) *Conn) error {
	taken := false
	return l.Friend(key).Go("connection "+r.RemoteAddr, func(ctx context.Context) error {
		taken = true
		loop.TaskOf(ctx).Friend(key).SetValues(r.Context()) // the values alone: net/http ends that context
		h.s.tcp.ServeConn(ctx, stream, func(ctx context.Context, _ *loop.Stream) error {
			return open(stream).run(ctx, h.s.Handler, h.s.OnGoroutine)
		})
		return nil
	}, func(error) {
		if !taken { // the loop ends
			h.s.tcp.Dismiss()
			stream.Friend(key).SetLinger(-1)
			_ = stream.Close()
		}
	})
}
