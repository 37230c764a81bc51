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

// DefaultDrainTime is how long a Server waits for its handlers after its
// context has ended.
const DefaultDrainTime = 5 * time.Second

// A Handler serves one connection. It runs as a task (see loop.Task), or
// on a goroutine if the Server says so. ctx ends with the connection and with
// the server's drain. When the handler returns, the connection is flushed and
// closed; an error that it returns is counted and reported to OnEnd.
type Handler func(ctx context.Context, c *loop.Stream) error

// A Server serves connections with a Handler. Its fields must not change while
// it serves. One Server may serve several addresses.
type Server struct {
	Handler Handler

	// TLS makes it a TLS server: the handler has the connection once the handshake
	// is complete. The configuration's functions are called on the loop and must
	// not block. nil: no TLS.
	TLS *tls.Config

	// HandshakeTimeout is for all of the TLS handshake. 0 and less mean
	// DefaultHandshakeTimeout: without a limit any client could hold on for ever.
	HandshakeTimeout time.Duration

	// MaxConns is how many connections are served at once, over all loops; a
	// few more wait, accepted or in the kernel, until one ends. 0: no limit.
	MaxConns int

	// DrainTime is how long handlers may go on after the context of Serve has
	// ended; then they are killed: see loop.Task. 0 means DefaultDrainTime,
	// negative means not at all.
	DrainTime time.Duration

	// DrainSpread spreads the beginning of the drain: the handlers' contexts end
	// one after another over this time, so that their peers do not all come back
	// somewhere else at once. It is part of DrainTime. 0: all end at once.
	DrainSpread time.Duration

	// OnGoroutine runs each handler on a goroutine of its own in place of the
	// loop's thread. It may block as it likes; each call on the connection then
	// costs two switches between threads.
	OnGoroutine bool

	// Logger takes what goes wrong with nobody to tell; nil: slog.Default().
	Logger *slog.Logger

	// OnStart and OnEnd are called on the connection's loop when its handler
	// starts and after it has ended. They must not block. nil: not called. A
	// connection whose TLS handshake fails has no handler.
	OnStart func(c *loop.Stream)
	OnEnd   func(c *loop.Stream, err error)

	mu   sync.Mutex // with MaxConns, held while active changes, and room with it
	room loop.Event // active is less than MaxConns; not to be trusted before active was MaxConns once

	accepted  atomic.Int64
	tlsFailed atomic.Int64
	active    atomic.Int64
	failed    atomic.Int64
	panicked  atomic.Int64
	killed    atomic.Int64
}

// Stats are a Server's counts since it was made.
type Stats struct {
	Accepted  int64 // connections
	Active    int64 // of those, now
	TLSFailed int64 // of those, ended in the TLS handshake, without a handler
	Failed    int64 // handlers that returned an error other than io.EOF
	Panicked  int64
	Killed    int64 // handlers that the end of the drain time ended
}

// Stats returns the server's counts. It may be called from anywhere.
func (s *Server) Stats() Stats {
	return Stats{Accepted: s.accepted.Load(), Active: s.active.Load(), TLSFailed: s.tlsFailed.Load(), Failed: s.failed.Load(),
		Panicked: s.panicked.Load(), Killed: s.killed.Load()}
}

// Serve is loop.Service's: it serves the connections of ln until ctx ends,
// and then drains.
func (s *Server) Serve(ctx context.Context, ln *loop.Listener) error {
	if s.Handler == nil {
		return errors.New("tcp: the Server has no Handler")
	}
	p := &pen{server: s, ln: ln, tasks: map[*loop.Task]struct{}{}}
	err := p.accept(ctx) // never nil: it only ends when something stops it
	if ctx.Err() != nil {
		err = nil // it was told to
	}
	if cerr := ln.Close(); cerr != nil && !errors.Is(cerr, runtime.ErrClosed) {
		err = errors.Join(err, cerr)
	}
	return errors.Join(err, p.drain(ctx))
}

// A pen is one loop's share of a server: the tasks that serve connections.
type pen struct {
	server *Server
	ln     *loop.Listener
	tasks  map[*loop.Task]struct{}
	empty  loop.Event
}

func (p *pen) accept(ctx context.Context) error {
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
		t, err := loop.TaskOf(ctx).Friend(friend.Key{}).GoApart("connection "+c.RemoteAddr().String(), func(ctx context.Context) error {
			defer p.left(ctx) // whatever OnEnd does
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
func (p *pen) left(ctx context.Context) {
	if delete(p.tasks, loop.TaskOf(ctx)); len(p.tasks) == 0 {
		p.empty.Set()
	}
}

// Admit counts a connection that comes otherwise than by a listener, and reports
// whether there may be one more. If so, ServeConn or Dismiss has to follow. It may
// be called from anywhere.
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

// Dismiss uncounts a connection that Admit has counted and that came to nothing.
func (s *Server) Dismiss() { s.leave() }

// ServeConn serves c, which Admit has counted, with h, until h returns: OnStart
// and OnEnd are called, and c is closed. No drain ends it. It is called in a task
// of c's loop.
func (s *Server) ServeConn(ctx context.Context, c *loop.Stream, h Handler) {
	s.accepted.Add(1)
	s.run(ctx, c, h)
}

// waitRoom waits while MaxConns connections are there, so that further ones
// wait in the kernel.
func (s *Server) waitRoom(ctx context.Context) error {
	for s.MaxConns > 0 && s.active.Load() >= int64(s.MaxConns) {
		if err := s.room.Wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// take counts a connection that was accepted, once there is room for it:
// another loop may have accepted one meanwhile.
func (s *Server) take(ctx context.Context) error {
	for !s.Admit() {
		if err := s.waitRoom(ctx); err != nil {
			return err
		}
	}
	return nil
}

// leave uncounts one.
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

// run serves c with h. Whatever the handler does, by panic or runtime.Goexit too,
// the connection is closed and counted.
func (s *Server) run(ctx context.Context, c *loop.Stream, h Handler) {
	err := errors.New("tcp: the handler did not return")
	returned := false
	defer s.leave() // whatever OnEnd does
	if !s.secure(ctx, c) {
		return
	}
	defer func() {
		if !returned {
			s.panicked.Add(1)
		}
		// A handler may have closed it already.
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
		c.Friend(friend.Key{}).AllowGoroutines(ctx)
		if oerr := loop.TaskOf(ctx).Friend(friend.Key{}).OnGoroutine(func() { err = h(ctx, c) }, nil); oerr != nil {
			err = oerr
		}
	} else {
		err = h(ctx, c)
	}
	returned = true
}

// secure puts TLS beneath c, if the server has it. It reports false, and has closed
// c, if the handshake failed: any client can bring that about, as often as it likes,
// so the log has it at the level Debug only.
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
		_ = c.Close() // the handshake's error says more
		s.log().Debug("noria: a TLS handshake failed", "peer", c.RemoteAddr().String(), "error", err)
	}()
	err = tlslayer.Server(ctx, c, s.TLS, s.HandshakeTimeout)
	return err == nil
}

// drain ends the handlers' contexts, waits until the handlers have ended, and
// kills them when their time is over: what is killed ends at its next call.
func (p *pen) drain(ctx context.Context) error {
	limit := p.server.DrainTime
	if limit == 0 {
		limit = DefaultDrainTime
	}
	limit = max(limit, 0)
	p.empty.Clear()
	if len(p.tasks) == 0 {
		return nil
	}
	// ctx has ended; what is waited for now is something else.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	p.tellAll(ctx, min(p.server.DrainSpread, limit))
	if err := p.empty.Wait(ctx); err == nil {
		return nil
	}
	p.server.killed.Add(int64(len(p.tasks)))
	p.server.log().Warn("noria: the drain time is over: connections are closed by force", "address", p.ln.Addr().String(), "connections", len(p.tasks))
	return nil // the tasks are children of this one, and are killed with its end
}

// tellAll ends the contexts of the handlers, evenly spread over this time.
func (p *pen) tellAll(ctx context.Context, spread time.Duration) {
	tasks := slices.Collect(maps.Keys(p.tasks)) // in an order of no meaning
	const pause = 5 * time.Millisecond
	begun := time.Now()
	for told := 0; told < len(tasks); {
		due := len(tasks)
		if spread > 0 {
			due = min(due, 1+int(float64(len(tasks))*float64(time.Since(begun))/float64(spread)))
		}
		for ; told < due; told++ {
			tasks[told].Cancel(false)
		}
		if told < len(tasks) && loop.Sleep(ctx, pause) != nil {
			return // they are killed now
		}
	}
}

func (s *Server) log() *slog.Logger {
	if s.Logger != nil {
		return s.Logger
	}
	return slog.Default()
}
