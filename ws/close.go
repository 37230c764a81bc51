package ws

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// Close closes the connection: it sends a Close frame with code and reason (at
// most 123 bytes of UTF-8), waits for the peer's for as long as
// Options.CloseTimeout, and closes the transport. What had been sent before
// goes out first, and what others send from now on is refused; a message that a
// Writer has begun has as long as CloseTimeout to end. If the peer does not read, what
// is queued is tried for as long as the stream lingers after
// that. Messages that still come are dropped; a Receive that waits, or is called
// meanwhile, ends with the peer's *CloseError, or with net.ErrClosed if none comes in
// time. A code that must not be sent, or a reason that is too long, is an
// error, and then nothing was closed. Without memory for the Close frame the connection
// is closed at once, and the error is runtime.ErrNoBuffers.
//
// After the peer has closed the connection, or it was closed otherwise, only
// the transport is left to be closed. A Server does that when the handler has
// returned; who has dialed calls Close.
//
// It may be called from any goroutine and from tasks of any loop.
func (c *Conn) Close(code StatusCode, reason string) error {
	if code != StatusNoStatus && !code.sendable() {
		return fmt.Errorf("ws: close: the code %d must not be sent", code)
	}
	if len(reason) > maxReason || !utf8.ValidString(reason) || code == StatusNoStatus && reason != "" {
		return fmt.Errorf("ws: close: the reason %.40q…: want at most %d bytes of UTF-8, and a code with it", reason, maxReason)
	}
	if !c.loop.Friend(friend.Key{}).OnLoop() {
		return c.elsewhere(context.Background(), "close", func(context.Context) error { return c.Close(code, reason) })
	}
	if c.closed {
		return errClosed
	}
	r := c.remoteQueue()
	r.refuse(errClosed)
	c.ending = true
	if c.endWriter(); c.closed {
		return errClosed
	}
	told := c.closeAfterAll(r, code, reason)
	if r := c.reader; r != nil && c.readErr == nil && r.over == nil && (!r.ended || r.lent || len(r.here()) > 0) {
		if r.lent {
			r.left = errClosed
		} else {
			r.over = errClosed
		}
	}
	if errors.Is(told, runtime.ErrNoBuffers) { // it has nothing to answer
		return errors.Join(fmt.Errorf("ws: close: the peer was not told: %w", told), c.shut())
	}
	c.handshake()
	return c.shut()
}

// closeAfterAll sends the Close frame behind all that others have sent. A hook that
// panics for one of their messages ends the connection with that.
func (c *Conn) closeAfterAll(r *remote, code StatusCode, reason string) error {
	all := false
	defer func() {
		if !all {
			_ = c.sendClose(code, reason)
			_ = c.shut()
		}
	}()
	c.takeAll(r)
	all = true
	return c.sendClose(code, reason)
}

// endWriter waits, as long as Options.CloseTimeout, for the end of a message that a
// Writer has begun, and otherwise ends it: the peer sees that there is no end.
func (c *Conn) endWriter() {
	if d := c.opts.CloseTimeout; c.writer != nil && c.writer.started() && d > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), d)
		defer cancel()
		for c.writer != nil && !c.closed {
			if _, err := loop.WaitAny(ctx, &c.unlocked, &c.over); err != nil || c.over.IsSet() {
				break
			}
		}
	}
	c.dropWriter()
}

// dropWriter ends what a Writer has left half-way. No other message may go on in its
// middle.
func (c *Conn) dropWriter() {
	if w := c.writer; w != nil {
		if w.begun || w.fed {
			c.failRemote(errClosed)
		}
		c.unlock()
	}
}

// CloseNow closes the connection without a word to the peer. It may be called
// from any goroutine.
func (c *Conn) CloseNow() error {
	if !c.loop.Friend(friend.Key{}).OnLoop() {
		return c.elsewhere(context.Background(), "close", func(context.Context) error { return c.CloseNow() })
	}
	if c.closed {
		return errClosed
	}
	if c.failed == nil {
		c.failed = errClosed
	}
	c.stream.SetLinger(-1)
	return c.shut()
}

// handshake waits for the rest of the closing handshake: for the peer's Close
// frame, and, from the client's side or after a failure, for the end of the
// connection, so that what the peer is told is not destroyed by a reset.
func (c *Conn) handshake() {
	d := c.opts.CloseTimeout
	if d < 0 || c.failed != nil {
		return
	}
	until := time.Now().Add(d)
	for c.busy && !c.over.IsSet() {
		// Another task receives, and sees the peer's Close frame, or leaves that to us.
		ctx, cancel := context.WithDeadline(context.Background(), until)
		_, err := loop.WaitAny(ctx, &c.over, c.nextQuiet())
		cancel()
		if err != nil {
			return // in vain: the transport is closed
		}
	}
	if err := c.stream.SetReadDeadline(until); err != nil {
		return
	}
	c.takeOver()
	defer func() { c.busy, c.closing = false, false }() // when nothing comes any more
	ctx, cancel := context.WithDeadline(context.Background(), until)
	defer cancel()
	for c.dropArrived() == nil {
		// Whoever looks meanwhile may be the one who finds the peer's Close frame.
		if _, err := loop.WaitAny(ctx, c.readable[0], &c.over); err != nil {
			break
		}
	}
	var broken *ProtocolError
	switch {
	case errors.As(c.readErr, &broken):
		if c.stream.CloseWrite() == nil {
			c.discard(ctx)
		}
	case c.client && c.gotClose != nil:
		c.discard(ctx)
	}
}

// takeOver makes Close the one who receives. What comes is dropped, whatever its
// length, and who would receive it waits for the end.
func (c *Conn) takeOver() {
	c.busy, c.closing = true, true
	c.dropReceived()
	c.streaming, c.long, c.paused = true, false, false
}

var past = time.Unix(1, 0) // a deadline that has passed

// discard reads until the peer has ended the connection, or ctx ends.
func (c *Conn) discard(ctx context.Context) {
	for {
		if b := c.stream.TryReadBuf(); b != nil {
			b.Release()
		} else if c.stream.ReadErr() != nil {
			return
		} else if _, err := loop.WaitAny(ctx, c.readable[:]...); err != nil {
			return
		}
	}
}

// CloseRead receives for a caller that only sends: pings are answered, and the
// peer's Close frame is seen. The context that it returns ends with the connection,
// and context.Cause says why, as an error of Receive. A message from the peer is an
// error, of which it is told with StatusPolicyViolation.
//
// Nobody else may receive until that context has ended, which it does with ctx too. It
// may be called by a task of the loop, with its own ctx, or from any goroutine.
func (c *Conn) CloseRead(ctx context.Context) context.Context {
	// It ends when receiving has, and that is when ctx does, or soon after.
	read, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	receive := func(own context.Context) error {
		for {
			m, err := c.Receive(own)
			switch {
			case m == nil:
				if cerr := ended(ctx); cerr != nil && own.Err() != nil {
					err = cerr // it was stopped because of that
				}
				cancel(err)
				return nil
			case c.sentClose == 0:
				_ = c.fail(StatusPolicyViolation, "a message where none is taken")
			}
			m.Release()
		}
	}
	if !c.loop.Friend(friend.Key{}).OnLoop() {
		go func() { cancel(c.elsewhere(ctx, "receive", receive)) }()
		return read
	}
	_, err := loop.Go(ctx, "ws: close read", func(own context.Context) error {
		defer cancel(errors.New("ws: close read: a hook panicked"))
		if ctx != loop.TaskOf(ctx).Friend(friend.Key{}).Context() { // otherwise it is told without that
			defer context.AfterFunc(ctx, func() { loop.TaskOf(own).Cancel(false) })()
		}
		return receive(own)
	})
	if err != nil {
		cancel(fmt.Errorf("ws: close read: %w", err))
	}
	return read
}

// shut closes the transport, after what is queued was sent.
func (c *Conn) shut() error {
	if c.closed {
		return errClosed
	}
	c.closed = true
	c.gone.Store(true)
	c.alive.Stop()
	_ = c.end(errClosed)
	if c.remote.Load() != nil {
		c.failRemote(errClosed)
	}
	c.unlocked.Set()
	err := c.stream.Close()
	if c.client { // a server's, when its handler has returned
		c.letGo() // there is no handler whose messages are to be reclaimed
		c.ended(nil)
	}
	if err != nil && !errors.Is(err, runtime.ErrClosed) {
		return fmt.Errorf("ws: close: %w", err)
	}
	return nil
}

// ceased is called when the transport is no more: after shut, or because the loop
// has ended with the connection open. Nobody on another thread may wait on.
func (c *Conn) ceased() {
	if c.failed == nil {
		c.failed = errClosed
	}
	_ = c.end(errClosed)
	if c.remote.Load() != nil {
		c.failRemote(c.failed)
	}
	if c.closed {
		return
	}
	c.closed = true
	c.gone.Store(true)
	c.alive.Stop()
	if c.client {
		c.letGo()
		c.ended(errClosed)
	}
}

// finish closes what a handler has left, which returned err.
func (c *Conn) finish(ctx context.Context, err error) {
	if c.closed {
		return
	}
	c.dropWriter()
	code := StatusNormalClosure
	switch {
	case ctx.Err() != nil:
		code = StatusGoingAway
	case err != nil:
		code = StatusInternalError
	}
	_ = c.Close(code, "") // the peer may be gone: then there is nobody to close with
}
