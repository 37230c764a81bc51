package ws

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws/internal/frame"
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
	c.closingHandshake()
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
	c.stream.Friend(friend.Key{}).SetLinger(-1)
	return c.shut()
}

// handshake waits for the rest of the closing handshake: for the peer's Close
// frame, and, from the client's side or after a failure, for the end of the
// connection, so that what the peer is told is not destroyed by a reset.
func (c *Conn) closingHandshake() {
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
	c.startDiscarding()
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
func (c *Conn) startDiscarding() {
	c.busy, c.closing = true, true
	c.dropReceived()
	c.streaming, c.long, c.paused = true, false, false
}

// dropArrived drops what has arrived of any message, as it came, for Close, whoever
// looks for it. An error says that nothing more comes, or not in time.
func (c *Conn) dropArrived() error {
	for {
		s, _, ok, err := c.raw()
		if s.buf != nil {
			c.frames.release(s.buf)
		}
		switch {
		case err != nil && c.readErr == nil:
			return errClosed // Close's time is over
		case err != nil || !ok:
			return err
		}
	}
}

// discard reads until the peer has ended the connection, or ctx ends.
func (c *Conn) discard(ctx context.Context) {
	for {
		if b := c.stream.TryReadBuf(); b != nil {
			b.Release()
		} else if c.stream.Friend(friend.Key{}).ReadErr() != nil {
			return
		} else if _, err := loop.WaitAny(ctx, c.readable[:]...); err != nil {
			return
		}
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

// goAway sends the Close frame of a server that stops. What other threads have
// sent goes ahead of it, and the message that a Writer has begun ahead of that.
func (c *Conn) goAway() {
	if c.closed || c.sentClose != 0 {
		return
	}
	r := c.remote.Load()
	if r != nil {
		r.refuse(errClosed)
	}
	if w := c.writer; w != nil && w.started() {
		c.leaving = true // unlock goes on
		return
	}
	defer func() { _ = c.sendClose(StatusGoingAway, "") }() // also when a hook panics
	if r != nil {
		c.takeAll(r)
	}
}

// maxReason is how many bytes the reason in a Close frame may have.
const maxReason = frame.MaxControl - 2

// sendClose queues a Close frame, unless there was one. Nothing is sent after it. An
// error says that the peer cannot be told.
func (c *Conn) sendClose(code StatusCode, reason string) error {
	if c.sentClose != 0 {
		return nil
	}
	var broken *ProtocolError
	switch { // the peer is to be told now what there was no memory for then
	case c.gotClose != nil:
		code, reason = c.gotClose.Code, ""
	case errors.As(c.readErr, &broken):
		code, reason = broken.Code, ""
	}
	var buf [frame.MaxControl]byte
	p := buf[:0]
	if code != StatusNoStatus {
		p = binary.BigEndian.AppendUint16(p, uint16(code))
		p = append(p, reason...)
	}
	if err := c.queueControl(frame.Close, p); err != nil {
		return err
	}
	c.sentClose = code
	if c.code == 0 {
		c.code = code
	}
	return nil
}

// receiveClose answers the peer's Close frame.
func (c *Conn) receiveClose(p []byte) error {
	closed, err := parseClose(p)
	if err != nil {
		return c.fail(err.Code, err.Detail)
	}
	c.gotClose, c.answered = closed, c.sentClose != 0
	if c.code == 0 {
		c.code = closed.Code
	}
	_ = c.sendClose(closed.Code, "")
	return c.end(closed)
}

// parseClose returns what the payload of a Close frame says, or what is wrong
// with it: see RFC 6455, sections 5.5.1 and 7.4.
func parseClose(p []byte) (*CloseError, *ProtocolError) {
	switch {
	case len(p) == 0:
		return &CloseError{Code: StatusNoStatus}, nil
	case len(p) == 1:
		return nil, &ProtocolError{Code: StatusProtocolError, Detail: "a Close frame with half a status code"}
	}
	code := StatusCode(binary.BigEndian.Uint16(p))
	switch {
	case !code.sendable():
		return nil, &ProtocolError{Code: StatusProtocolError, Detail: "a Close frame with the status code " + code.String() + ", which must not be sent"}
	case !utf8.Valid(p[2:]):
		return nil, &ProtocolError{Code: StatusInvalidPayload, Detail: "a Close frame whose reason is not UTF-8"}
	}
	return &CloseError{Code: code, Reason: string(p[2:])}, nil
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
		c.reportClosed(nil)
	}
	if err != nil && !errors.Is(err, runtime.ErrClosed) {
		return fmt.Errorf("ws: close: %w", err)
	}
	return nil
}
