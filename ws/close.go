package ws

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws/internal/frame"
)

// Close closes the connection with a closing handshake; any goroutine and any loop's
// task may call it, and it waits. It sends a Close frame with code and reason (at most 123
// bytes of UTF-8), waits for the peer's Close frame, and closes the transport.
//
// Close takes no context, but each of its waits is bounded: a Writer that has begun a
// message has Options.CloseTimeout to finish it; the peer has as long again to answer and
// to end the connection; then the transport has the stream's linger time
// (loop.StreamOptions.Linger) to send what is still queued. CloseNow of another task or goroutine ends the first two waits.
//
// Messages that were sent before leave first, and later calls that send fail with
// net.ErrClosed. Messages that still arrive are dropped. A Receive in progress, or called
// meanwhile, ends with the peer's *CloseError, or with net.ErrClosed if none arrives in
// time.
//
// code is a registered code that may be sent (see StatusCode), or one of 3000 to 4999; or
// StatusNoStatus, for a Close frame that has neither code nor reason. For any other code,
// or a reason that is too long or not UTF-8, Close returns an error and closes nothing. If
// there is no memory for the Close frame, it closes the connection at once and returns
// runtime.ErrNoBuffers.
//
// After the peer has closed the connection, Close only closes the transport. A Server
// does that when the handler has returned; the caller of Dial must call Close.
func (c *Conn) Close(code StatusCode, reason string) error {
	if code != StatusNoStatus && !code.sendable() {
		return fmt.Errorf("ws: close: the code %d must not be sent", code)
	}
	if len(reason) > maxReason || !utf8.ValidString(reason) || code == StatusNoStatus && reason != "" {
		return fmt.Errorf("ws: close: the reason %.40q…: want at most %d bytes of UTF-8, and a code with it", reason, maxReason)
	}
	if !c.onLoop() {
		return c.callLoop(context.Background(), "close", func(context.Context) error { return c.Close(code, reason) })
	}
	if c.closed {
		return errClosed
	}
	r := c.needCross()
	r.refuse(errClosed)
	c.closing = true
	if c.endWriter(); c.closed {
		return errClosed
	}
	err := c.sendCloseLast(r, code, reason)
	if c.reader != nil && c.readErr == nil {
		c.reader.cutShort(errClosed)
	}
	if errors.Is(err, runtime.ErrNoBuffers) { // the peer has no Close frame to answer
		return errors.Join(fmt.Errorf("ws: close: the peer was not told: %w", err), c.shut())
	}
	c.closingHandshake()
	return c.shut()
}

// sendCloseLast queues the Close frame behind everything that other threads have sent.
// If a hook panics for one of their messages, it sends the Close frame and closes the
// transport at once.
func (c *Conn) sendCloseLast(r *crossQueue, code StatusCode, reason string) error {
	returned := false
	defer func() {
		if !returned { // a hook panicked
			_ = c.sendClose(code, reason)
			_ = c.shut()
		}
	}()
	c.takeAll(r)
	returned = true
	return c.sendClose(code, reason)
}

// endWriter waits up to Options.CloseTimeout for the end of a message that a Writer has
// begun. After that it takes the Writer off: the peer gets the Close frame in the middle
// of the message.
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

// dropWriter takes off a Writer that did not end its message. If part of the message was
// queued already, no other message may follow, so the cross-thread queue fails.
func (c *Conn) dropWriter() {
	if w := c.writer; w != nil {
		if w.begun || w.fed {
			c.failCross(errClosed)
		}
		c.unlock()
	}
}

// CloseNow closes the connection without a Close frame and drops what is queued; any
// goroutine and any loop's task may call it, and it does not wait for the peer, so it takes
// no context. Calls in progress fail with net.ErrClosed.
func (c *Conn) CloseNow() error {
	if !c.onLoop() {
		return c.callLoop(context.Background(), "close", func(context.Context) error { return c.CloseNow() })
	}
	if c.closed {
		return errClosed
	}
	if c.failed == nil {
		c.failed = errClosed
	}
	c.stream.Friend(key).SetLinger(-1)
	return c.shut()
}

// closingHandshake waits for the peer's Close frame. On the client's side, and after the
// peer broke the protocol, it also waits for the peer to end the connection: a reset
// would destroy the Close frame before the peer has read it.
func (c *Conn) closingHandshake() {
	d := c.opts.CloseTimeout
	if d < 0 || c.failed != nil {
		return
	}
	until := time.Now().Add(d)
	for c.busy && !c.over.IsSet() {
		// Another task receives. It sees the peer's Close frame, or stops and leaves
		// the rest to this call.
		ctx, cancel := context.WithDeadline(context.Background(), until)
		_, err := loop.WaitAny(ctx, &c.over, c.nextQuiet())
		cancel()
		if err != nil {
			return // out of time
		}
	}
	if err := c.stream.SetReadDeadline(until); err != nil {
		return
	}
	c.startDiscarding()
	defer func() { c.busy, c.discarding = false, false }()
	ctx, cancel := context.WithDeadline(context.Background(), until)
	defer cancel()
	for c.dropArrived() == nil {
		// Another call that receives may decode the peer's Close frame, and set over.
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

// startDiscarding makes Close the receiver: what arrives is dropped, whatever its length,
// and other calls that receive wait for the end of the connection.
func (c *Conn) startDiscarding() {
	c.busy, c.discarding = true, true
	c.dropReceived()
	c.streaming, c.long, c.paused = true, false, false
}

// dropArrived drops everything that has arrived, without inflating or checking it. It
// returns an error when nothing more will arrive, or Close has run out of time.
func (c *Conn) dropArrived() error {
	for {
		s, _, ok, err := c.raw()
		if s.buf != nil {
			c.frames.release(s.buf)
		}
		switch {
		case err != nil && c.readErr == nil:
			return errClosed // the read deadline, which is Close's
		case err != nil || !ok:
			return err
		}
	}
}

// discard reads and drops bytes until the peer has ended the connection or ctx ends.
func (c *Conn) discard(ctx context.Context) {
	for {
		if b := c.stream.TryReadBuf(); b != nil {
			b.Release()
		} else if c.stream.Friend(key).ReadErr() != nil {
			return
		} else if _, err := loop.WaitAny(ctx, c.readable[:]...); err != nil {
			return
		}
	}
}

// finish closes a connection whose handler has returned err and did not close it.
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
	_ = c.Close(code, "") // this fails if the peer is gone
}

// goAway sends the Close frame of a server that stops, behind what other threads have
// sent and behind a message that a Writer has begun.
func (c *Conn) goAway() {
	if c.closed || c.sentClose != 0 {
		return
	}
	r := c.cross.Load()
	if r != nil {
		r.refuse(errClosed)
	}
	if w := c.writer; w != nil && w.started() {
		c.leaving = true // unlock calls goAway again
		return
	}
	defer func() { _ = c.sendClose(StatusGoingAway, "") }() // also when a hook panics
	if r != nil {
		c.takeAll(r)
	}
}

// maxReason is the largest reason in a Close frame, in bytes.
const maxReason = frame.MaxControl - 2

// sendClose queues a Close frame, unless one was queued before. Nothing is sent after it.
// It fails if the Close frame cannot be queued.
func (c *Conn) sendClose(code StatusCode, reason string) error {
	if c.sentClose != 0 {
		return nil
	}
	var broken *ProtocolError
	switch { // the answer or the refusal that there was no memory for when it was due
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

// parseClose parses the payload of a Close frame, or returns what is wrong with it: see
// RFC 6455, sections 5.5.1 and 7.4.
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

// shut closes the transport once what is queued has been sent, or the linger time is
// over.
func (c *Conn) shut() error {
	if c.closed {
		return errClosed
	}
	c.closed = true
	c.gone.Store(true)
	c.alive.Stop()
	_ = c.end(errClosed)
	if c.cross.Load() != nil {
		c.failCross(errClosed)
	}
	c.unlocked.Set()
	err := c.stream.Close()
	if c.client { // a server does this when the handler has returned: see run
		c.letGo() // a client has no handler whose messages are reclaimed
		c.reportClosed(nil)
	}
	if err != nil && !errors.Is(err, runtime.ErrClosed) {
		return fmt.Errorf("ws: close: %w", err)
	}
	return nil
}
