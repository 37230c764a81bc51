package loop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/noria-go/noria/runtime"
)

const (
	maxUnaccepted = 256                    // connections that wait in a Listener for Accept
	acceptPause   = 100 * time.Millisecond // after descriptors or memory have run out

	listenPatience = 2 * time.Second // the kernel was seen to take 0.9 s to free an address
	listenPause    = 20 * time.Millisecond
)

// A Listener accepts connections on one loop. They come from its own listening socket, or
// from the listener of another loop that deals connections out. While 256 connections wait
// for Accept (on each loop that is dealt to), it accepts no more, and further ones wait in
// the kernel. When the process is out of descriptors, it pauses and tries again.
type Listener struct {
	loop    *Loop
	h       runtime.Handle // 0: it has no socket, and another listener deals to it
	addr    runtime.Addr
	opts    StreamOptions
	op      runtime.Op
	ready   ring[runtime.Handle]
	waiters waitList
	pause   timer
	paused  bool
	dealTo  []*Listener  // deals connections to these, itself among them; nil: keeps all
	nextTo  int          // index of the next one in dealTo
	dealer  *Listener    // the listener that deals to this one, maybe itself; nil: none
	waiting atomic.Int32 // connections that wait for Accept or are on their way here
	stalled atomic.Bool  // it does not accept because too many connections wait
	closing bool
	err     error
}

// listen opens a listening socket on the loop. It is called on the loop and does not
// wait.
func (l *Loop) listen(addr runtime.Addr, opts runtime.ListenOptions, streams StreamOptions) (*Listener, error) {
	if !l.onLoop() {
		return nil, &runtime.OpError{Op: "listen", Detail: addr.String(), Err: ErrOffLoop}
	}
	h, err := l.rt.Listen(addr, opts)
	if err != nil {
		return nil, err
	}
	return l.newListener(h, addr, streams), nil
}

// listenPatiently is listen for a task. While a program that has ended holds the address
// (see abandoned), it tries again, for listenPatience.
func (l *Loop) listenPatiently(addr runtime.Addr, opts runtime.ListenOptions, streams StreamOptions) (*Listener, error) {
	until := later(l.rt.Now(), listenPatience)
	for tried := false; ; tried = true {
		ln, err := l.listen(addr, opts, streams)
		if !errors.Is(err, syscall.EADDRINUSE) || l.rt.Now() >= until {
			return ln, err
		}
		held := true // looking for the holder takes too long for the loop
		if oerr := Offload(context.Background(), func() { held = !abandoned(addr) }); oerr != nil || held {
			return nil, err
		}
		if !tried {
			l.opts.Logger.Warn("noria: the address is held by a program that has ended; trying again", "address", addr.String(), "for", listenPatience)
		}
		if Sleep(context.Background(), listenPause) != nil {
			return nil, err
		}
	}
}

// adoptListener makes a Listener of the descriptor of a listening socket, which becomes
// the loop's own. It is called on the loop and does not wait.
func (l *Loop) adoptListener(fd int, streams StreamOptions) (*Listener, error) {
	if !l.onLoop() {
		return nil, &runtime.OpError{Op: "adopt listener", Err: ErrOffLoop}
	}
	h, err := l.rt.Adopt(fd)
	if err != nil {
		return nil, err
	}
	return l.newListener(h, runtime.Addr{}, streams), nil
}

func (l *Loop) newListener(h runtime.Handle, addr runtime.Addr, streams StreamOptions) *Listener {
	ln := &Listener{loop: l, h: h, addr: addr, opts: streams}
	if h != 0 {
		if bound, err := l.rt.LocalAddr(h); err == nil && bound != (runtime.Addr{}) {
			ln.addr = bound
		}
	}
	ln.op.Done = ln.accepted
	ln.pause.fire = func() {
		ln.paused = false
		ln.arm()
	}
	return ln
}

// Loop returns the listener's loop. It may be called from anywhere.
func (ln *Listener) Loop() *Loop { return ln.loop }

// Addr returns the address that the listener listens on, with the port that the system
// chose for port 0. It may be called from anywhere.
func (ln *Listener) Addr() net.Addr { return ln.addr.NetAddr() }

// Accept waits for a connection and returns it as a stream of the listener's loop. Only a
// task of that loop may call it. The caller must close the stream.
func (ln *Listener) Accept(ctx context.Context) (*Stream, error) {
	t := ln.loop.current()
	if t == nil {
		return nil, &runtime.OpError{Op: "accept", Err: ErrOffLoop}
	}
	for {
		switch {
		case ln.closing:
			return nil, &runtime.OpError{Op: "accept", Handle: ln.h, Err: runtime.ErrClosed}
		case ln.ready.len() > 0:
			h := ln.ready.pop()
			ln.waiting.Add(-1)
			ln.arm()
			ln.callDealer()
			if ln.ready.len() > 0 {
				ln.waiters.wakeOne()
			}
			return ln.loop.newStream(h, ln.opts), nil
		case ln.err != nil:
			return nil, ln.err
		}
		ln.arm()
		if err := t.waitOn(&ln.waiters, ctx); err != nil {
			if ln.ready.len() > 0 {
				ln.waiters.wakeOne() // t may have been woken for a connection
			}
			return nil, opErr("accept", ln.h, err)
		}
	}
}

// arm starts to accept, unless the listener accepts already or must not.
func (ln *Listener) arm() {
	if ln.h == 0 || ln.op.InFlight() || ln.paused || ln.closing || ln.err != nil {
		return
	}
	if ln.crowded(maxUnaccepted / 2) {
		ln.stalled.Store(true)
		if ln.crowded(maxUnaccepted / 2) { // not if an Accept came before stalled was set
			return
		}
	}
	ln.stalled.Store(false)
	ln.op.Code, ln.op.Handle = runtime.OpAcceptMany, ln.h
	ln.loop.rt.Submit(&ln.op)
}

// crowded reports whether limit connections wait on each of the listeners that ln accepts
// for.
func (ln *Listener) crowded(limit int32) bool {
	if ln.waiting.Load() < limit {
		return false
	}
	for _, to := range ln.dealTo {
		if to.waiting.Load() < limit {
			return false
		}
	}
	return true
}

// callDealer makes the listener that deals to ln accept again, if it has stopped because
// too many connections waited.
func (ln *Listener) callDealer() {
	d := ln.dealer
	if d != nil && d != ln && d.stalled.Load() && ln.waiting.Load() < maxUnaccepted/2 {
		_ = d.loop.post(d.arm) // else its loop has ended
	}
}

// accepted takes a completion of accept-many.
func (ln *Listener) accepted(op *runtime.Op) {
	if op.More {
		ln.take(op.Got)
		if ln.crowded(maxUnaccepted) {
			ln.loop.rt.Cancel(op)
		}
		return
	}
	switch {
	case errors.Is(op.Err, runtime.ErrCanceled), errors.Is(op.Err, syscall.ECONNABORTED), ln.closing:
		ln.arm()
	case survives(op.Err):
		// Another connection must be closed first. Trying again at once would spin.
		ln.loop.opts.Logger.Warn("noria: cannot accept; trying again", "address", ln.addr.String(), "in", acceptPause, "error", op.Err)
		ln.paused = true
		ln.loop.timers.set(&ln.pause, ln.loop.rt.Now()+int64(acceptPause))
	default:
		ln.err = op.Err
		ln.waiters.wakeAll()
	}
}

// survives reports whether accepting may succeed later: the process or the
// system is short of something, or the error is the new connection's and not
// the listener's (accept(2), "Error handling").
func survives(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EPROTO, syscall.EPERM,
		syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.ENOPROTOOPT:
		return true
	}
	return false
}

// take keeps a new connection, or deals it to another loop.
func (ln *Listener) take(h runtime.Handle) {
	to := ln.turn()
	to.waiting.Add(1)
	if to == ln {
		ln.push(h)
		return
	}
	fd, err := ln.loop.rt.Detach(h)
	if err == nil {
		if err = to.loop.post(func() { to.keep(fd) }); err == nil {
			return
		}
	}
	to.waiting.Add(-1)
	ln.waiting.Add(1) // the other loop has ended: keep the connection here
	if fd < 0 {
		ln.push(h)
	} else {
		ln.keep(fd)
	}
}

// turn returns the listener that gets the next connection. One on which too many wait
// loses its turn. If too many wait on each, which happens since the kernel accepts more
// before the cancel takes effect, the one with the fewest gets it.
func (ln *Listener) turn() *Listener {
	best := ln
	for range ln.dealTo {
		to := ln.dealTo[ln.nextTo]
		ln.nextTo = (ln.nextTo + 1) % len(ln.dealTo)
		waiting := to.waiting.Load()
		if waiting < maxUnaccepted {
			return to
		}
		if waiting < best.waiting.Load() {
			best = to
		}
	}
	return best
}

// keep takes the descriptor of a connection that this or another listener has accepted.
func (ln *Listener) keep(fd int) {
	h, err := ln.loop.rt.Adopt(fd)
	if err != nil {
		ln.loop.opts.Logger.Error("noria: a connection is lost", "error", err)
		closeDescriptor(fd)
		ln.waiting.Add(-1)
		return
	}
	ln.push(h)
}

func (ln *Listener) push(h runtime.Handle) {
	if ln.closing {
		ln.loop.closeHandle(h)
		return
	}
	ln.ready.push(h)
	ln.waiters.wakeOne()
}

// Close stops listening, closes the connections that wait for Accept, and makes Accept
// fail with ErrClosed. Tasks and goroutines may call it, and wait until the socket is
// closed. A function that the listener's loop calls may call it too, and does not wait.
func (ln *Listener) Close() error {
	if !ln.loop.onLoop() {
		if cannotWait() {
			return ln.loop.post(func() { _ = ln.Close() })
		}
		return ln.loop.call(context.Background(), "close listener", func(context.Context) error { return ln.Close() })
	}
	if ln.closing {
		return &runtime.OpError{Op: "close", Handle: ln.h, Err: runtime.ErrClosed}
	}
	ln.closing = true
	ln.loop.timers.stop(&ln.pause)
	ln.waiters.wakeAll()
	for ln.ready.len() > 0 {
		ln.loop.closeHandle(ln.ready.pop())
	}
	if ln.h == 0 {
		return nil
	}
	t := ln.loop.current()
	if t == nil {
		ln.loop.closeHandle(ln.h)
		return nil
	}
	o := ln.loop.newOperation(t, runtime.OpClose, ln.h)
	defer ln.loop.freeOperation(o)
	if err := o.do(noContext, runtime.Forever); err != nil {
		return fmt.Errorf("listener %s: %w", ln.addr, err)
	}
	return nil
}
