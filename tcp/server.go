package tcp

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/internal/tlslayer"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

var key friend.Key // opens what only this module may call: see internal/friend

// DefaultDrainTime is how long a Server waits by default for its handlers, after the
// context of Serve has ended.
const DefaultDrainTime = 5 * time.Second

// A Handler serves one connection. It runs as a task of the connection's loop (see
// loop.Task), or on a goroutine if the Server has OnGoroutine. ctx is the task's, and ends
// when the server drains. When the handler returns, the server flushes and closes the
// connection, counts an error and reports it to OnEnd.
type Handler func(ctx context.Context, c *loop.Stream) error

// A Server serves connections with a Handler. Its fields must not change while
// it serves. One Server may serve several addresses.
type Server struct {
	Handler Handler

	// TLS makes the server a TLS server: the handler gets the connection when the
	// handshake is complete. The configuration's functions are called on the loop and
	// must not block. nil means no TLS.
	TLS *tls.Config

	// HandshakeTimeout bounds the whole TLS handshake. 0 and less mean
	// DefaultHandshakeTimeout: without a limit a client could hold a connection for
	// ever.
	HandshakeTimeout time.Duration

	// MaxConns is how many connections are served at once, over all loops. Further ones
	// wait, a few of them accepted and the rest in the kernel, until one ends. 0 means
	// no limit.
	MaxConns int

	// DrainTime is how long handlers may run after the context of Serve has ended.
	// Then they are killed: see loop.Task, which says what they may do until then. 0
	// means DefaultDrainTime; negative means that they are killed at once.
	DrainTime time.Duration

	// DrainSpread spreads the start of the drain: the handlers' contexts end one after
	// another over this time, so that the peers do not all reconnect at once. It is part
	// of DrainTime. 0 means that all end at once.
	DrainSpread time.Duration

	// OnGoroutine runs each handler on a goroutine of its own, where it may block. Each
	// call on the connection then costs two switches between threads.
	OnGoroutine bool

	// Logger takes the reports that no caller gets. nil means slog.Default().
	Logger *slog.Logger

	// OnStart and OnEnd are called on the connection's loop when its handler starts and
	// after it has ended. They must not block. nil means no call. A connection whose TLS
	// handshake fails has no handler.
	OnStart func(c *loop.Stream)
	OnEnd   func(c *loop.Stream, err error)

	mu   sync.Mutex // with MaxConns: guards changes of active and room
	room loop.Event // set while active < MaxConns; meaningless before active was MaxConns once

	accepted  atomic.Int64
	tlsFailed atomic.Int64
	active    atomic.Int64
	failed    atomic.Int64
	panicked  atomic.Int64
	killed    atomic.Int64
}

// Stats are the counts of a Server since it was made.
type Stats struct {
	Accepted  int64 // connections
	Active    int64 // connections that have not ended
	TLSFailed int64 // connections whose TLS handshake failed, which had no handler
	Failed    int64 // handlers that returned an error other than io.EOF
	Panicked  int64 // handlers that panicked
	Killed    int64 // handlers that were killed at the end of the drain
}

// Stats returns the server's counts. It may be called from anywhere and does not wait.
func (s *Server) Stats() Stats {
	return Stats{Accepted: s.accepted.Load(), Active: s.active.Load(), TLSFailed: s.tlsFailed.Load(), Failed: s.failed.Load(),
		Panicked: s.panicked.Load(), Killed: s.killed.Load()}
}

// Serve serves the connections of ln until ctx ends, drains, and returns. It implements
// loop.Service: a group calls it as a task on each loop.
func (s *Server) Serve(ctx context.Context, ln *loop.Listener) error {
	if s.Handler == nil {
		return errors.New("tcp: the Server has no Handler")
	}
	p := &share{server: s, ln: ln, tasks: map[*loop.Task]struct{}{}}
	err := p.accept(ctx) // never nil
	if ctx.Err() != nil {
		err = nil // the end of ctx has ended it, in order
	}
	if cerr := ln.Close(); cerr != nil && !errors.Is(cerr, runtime.ErrClosed) {
		err = errors.Join(err, cerr)
	}
	return errors.Join(err, p.drain(ctx))
}

// A share is the part of a server on one loop: the tasks that serve connections.
type share struct {
	server *Server
	ln     *loop.Listener
	tasks  map[*loop.Task]struct{}
	empty  loop.Event
}

func (p *share) accept(ctx context.Context) error {
	for {
		if err := p.server.waitRoom(ctx); err != nil {
			return err
		}
		c, err := p.ln.Accept(ctx)
		if err != nil {
			return err
		}
		if err := p.server.take(ctx); err != nil {
			return errors.Join(err, c.Close())
		}
		p.server.accepted.Add(1)
		t, err := loop.TaskOf(ctx).Friend(key).GoApart("connection "+c.RemoteAddr().String(), func(ctx context.Context) error {
			defer p.left(ctx) // also if OnEnd panics
			p.server.run(ctx, c, p.server.Handler)
			return nil
		})
		if err != nil {
			p.server.leave()
			return errors.Join(err, c.Close())
		}
		p.tasks[t] = struct{}{}
	}
}

// left is called when a connection's task ends.
func (p *share) left(ctx context.Context) {
	if delete(p.tasks, loop.TaskOf(ctx)); len(p.tasks) == 0 {
		p.empty.Set()
	}
}

// Admit counts a connection that does not come from a listener. It may be called from
// anywhere and does not wait. It returns false, and counts nothing, if MaxConns are there
// already. Otherwise the caller must call ServeConn or Dismiss.
func (s *Server) Admit() bool {
	if s.MaxConns <= 0 {
		s.active.Add(1)
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active.Load() >= int64(s.MaxConns) {
		return false
	}
	if s.active.Add(1) == int64(s.MaxConns) {
		s.room.Clear()
	}
	return true
}

// Dismiss takes back an Admit whose connection could not be made. It may be called from
// anywhere and does not wait.
func (s *Server) Dismiss() { s.leave() }

// ServeConn serves c, which Admit has counted, with h, and waits until h has returned. A
// task of c's loop calls it. It calls OnStart and OnEnd and closes c, as for a connection
// of a listener, but the server's drain does not reach h.
func (s *Server) ServeConn(ctx context.Context, c *loop.Stream, h Handler) {
	s.accepted.Add(1)
	s.run(ctx, c, h)
}

// waitRoom waits while MaxConns connections are active. Meanwhile the caller accepts
// none, so that further ones wait in the kernel.
func (s *Server) waitRoom(ctx context.Context) error {
	for s.MaxConns > 0 && s.active.Load() >= int64(s.MaxConns) {
		if err := s.room.Wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// take counts a connection that was accepted. If another loop has taken the room
// meanwhile, it waits for room.
func (s *Server) take(ctx context.Context) error {
	for !s.Admit() {
		if err := s.waitRoom(ctx); err != nil {
			return err
		}
	}
	return nil
}

// leave takes back the count of one connection.
func (s *Server) leave() {
	if s.MaxConns <= 0 {
		s.active.Add(-1)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active.Add(-1) < int64(s.MaxConns) {
		s.room.Set()
	}
}

// run serves c with h. It closes and counts the connection also if h panics or calls
// runtime.Goexit.
func (s *Server) run(ctx context.Context, c *loop.Stream, h Handler) {
	err := errors.New("tcp: the handler did not return")
	returned := false
	defer s.leave() // also if OnEnd panics
	if !s.secure(ctx, c) {
		return
	}
	defer func() {
		if !returned {
			s.panicked.Add(1)
		}
		// The handler may have closed c already.
		if cerr := c.Close(); err == nil && !errors.Is(cerr, runtime.ErrClosed) {
			err = cerr
		}
		if err != nil && !errors.Is(err, io.EOF) {
			s.failed.Add(1)
		}
		if s.OnEnd != nil {
			s.OnEnd(c, err)
		}
	}()
	if s.OnStart != nil {
		s.OnStart(c)
	}
	if s.OnGoroutine {
		c.Friend(key).AllowGoroutines(ctx)
		if oerr := loop.TaskOf(ctx).Friend(key).OnGoroutine(func() { err = h(ctx, c) }, nil); oerr != nil {
			err = oerr
		}
	} else {
		err = h(ctx, c)
	}
	returned = true
}

// secure puts TLS beneath c if the server has TLS. If the handshake fails, it closes c and
// returns false. It logs that at the level Debug only, because any client can make a
// handshake fail as often as it likes.
func (s *Server) secure(ctx context.Context, c *loop.Stream) (ok bool) {
	if s.TLS == nil {
		return true
	}
	err := errors.New("a function of the TLS configuration panicked")
	defer func() {
		if ok {
			return
		}
		s.tlsFailed.Add(1)
		_ = c.Close() // the handshake's error is the cause
		s.log().Debug("noria: a TLS handshake failed", "peer", c.RemoteAddr().String(), "error", err)
	}()
	err = tlslayer.Server(ctx, c, s.TLS, s.HandshakeTimeout)
	return err == nil
}

// drain ends the handlers' contexts and waits until the handlers have returned. When it
// returns without that, the end of the calling task kills them.
func (p *share) drain(ctx context.Context) error {
	limit := p.server.DrainTime
	if limit == 0 {
		limit = DefaultDrainTime
	}
	limit = max(limit, 0)
	p.empty.Clear()
	if len(p.tasks) == 0 {
		return nil
	}
	// ctx has ended, so drain waits with another context.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	p.drainAll(ctx, min(p.server.DrainSpread, limit))
	if err := p.empty.Wait(ctx); err == nil {
		return nil
	}
	p.server.killed.Add(int64(len(p.tasks)))
	p.server.log().Warn("noria: the drain time is over: connections are closed by force", "address", p.ln.Addr().String(), "connections", len(p.tasks))
	return nil // the tasks are children of the calling task, whose end kills them
}

// drainAll drains the handlers' tasks one after another, evenly spread over this time.
func (p *share) drainAll(ctx context.Context, spread time.Duration) {
	tasks := slices.Collect(maps.Keys(p.tasks)) // in random order
	const pause = 5 * time.Millisecond
	begun := time.Now()
	for drained := 0; drained < len(tasks); {
		due := len(tasks)
		if spread > 0 {
			due = min(due, 1+int(float64(len(tasks))*float64(time.Since(begun))/float64(spread)))
		}
		for ; drained < due; drained++ {
			tasks[drained].Cancel(false)
		}
		if drained < len(tasks) && loop.Sleep(ctx, pause) != nil {
			return // the drain time is over, or this task is killed
		}
	}
}

func (s *Server) log() *slog.Logger {
	if s.Logger != nil {
		return s.Logger
	}
	return slog.Default()
}
