package ws

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"unicode/utf8"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws/internal/frame"
)

// Receive waits for the next message and returns it; any goroutine and any loop's task
// may call it, but only one at a time may receive. The caller owns the message, and must
// send or release it. While Receive waits, the connection answers pings and the peer's
// Close frame.
//
// If the peer closes the connection, the error is a *CloseError; if the peer breaks the
// protocol, a *ProtocolError; if the connection ends without a Close frame, an error that
// wraps ErrAbnormalClosure. After one of these every later call returns the same error.
// When ctx ends or the read deadline passes, nothing is lost: the next call continues
// where this one stopped.
func (c *Conn) Receive(ctx context.Context) (*Message, error) {
	if !c.onLoop() {
		m, err := valueFromLoop(ctx, c, "receive", c.Receive)
		if m != nil {
			err = nil // the message was received before ctx ended
		}
		return m, err
	}
	for waited := false; ; waited = true {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		m, idle := c.quickReceive()
		if m != nil {
			return m, nil
		}
		// If nothing has arrived, the first pass goes straight to await. If await has returned
		// and still nothing has arrived, TryReceive finds out why: quickReceive does not check
		// whether the connection has ended.
		if !idle || waited {
			m, err := c.TryReceive()
			if m != nil || err != nil {
				return m, err
			}
		}
		if err := c.await(ctx); err != nil {
			return nil, err
		}
	}
}

var errReceiving = fmt.Errorf("ws: another call is receiving: %w", runtime.ErrBusy)

// TryReceive is Receive that never waits and so needs no context; it must be called on
// the connection's loop, in a task or a function given to Loop.Post. If no complete
// message has arrived, it returns nil and no error.
func (c *Conn) TryReceive() (*Message, error) {
	m, err := c.take()
	if hook := c.opts.Hooks.MessageReceived; hook != nil && m != nil {
		hook(c, m.typ, m.size)
	}
	return m, err
}

// take is TryReceive without the hook.
func (c *Conn) take() (*Message, error) {
	switch {
	case c.discarding:
		return nil, c.dropArrived()
	case c.busy:
		return nil, errReceiving
	}
	if len(c.stash) > 0 {
		if int64(c.stash[0].size) > c.opts.MaxMessage { // received early, for a Reader perhaps
			return nil, c.tooBig()
		}
		return c.unstash(), nil
	}
	if c.reader != nil {
		if ok, err := c.skip(); !ok || err != nil {
			return nil, err
		}
	}
	return c.assemble()
}

// quickReceive returns the next message in the most frequent case: a short, uncompressed
// message in one frame that lies in one buffer. It does in one go what assemble does in
// several steps, and leaves everything else untouched for assemble. idle says that
// nothing has arrived, not even the beginning of a frame.
func (c *Conn) quickReceive() (m *Message, idle bool) {
	e := &c.frames
	if !c.quick || c.inFrame || c.inMsg || e.dec.Partial() > 0 || c.readErr != nil || c.busy || c.reader != nil || len(c.stash) > 0 {
		return nil, false
	}
	if len(e.in) == 0 && !e.more() {
		return nil, true
	}
	p := e.in
	if len(p) < 2 {
		return nil, false
	}
	typ := Type(p[0] & 0xf)
	if p[0] != 0x80|byte(TypeText) && p[0] != 0x80|byte(TypeBinary) {
		return nil, false
	}
	size, n := int(p[1]&0x7f), 2
	switch {
	case size > 126:
		return nil, false
	case size == 126:
		if len(p) < 4 {
			return nil, false
		}
		if size, n = int(binary.BigEndian.Uint16(p[2:])), 4; size < 126 {
			return nil, false
		}
	}
	var key [4]byte
	masked := p[1]&0x80 != 0
	if masked == c.client {
		return nil, false
	}
	if masked {
		if len(p) < n+4 {
			return nil, false
		}
		key = [4]byte(p[n:])
		n += 4
	}
	// An empty message would need no buffer: assemble does that.
	if size == 0 || len(p) < n+size || int64(size) > c.opts.MaxMessage {
		return nil, false
	}
	data := p[n : n+size : n+size]
	if masked {
		frame.Mask(data, key, 0)
	}
	if typ == TypeText && !utf8.Valid(data) {
		if masked {
			frame.Mask(data, key, 0) // masks it again: assemble will find the error
		}
		return nil, false
	}
	m = c.newMessage()
	m.typ, m.size = typ, size
	e.in = p[n:]
	e.take(&m.first, size)
	return m, false
}

// assemble builds the next message from what has arrived, and returns it if it is
// complete.
func (c *Conn) assemble() (*Message, error) {
	switch {
	case c.long && c.early:
		return nil, nil // the rest waits for the call that receives the message
	case c.long:
		return nil, c.tooBig()
	}
	for {
		s, last, ok, err := c.next()
		if err != nil || !ok {
			return nil, err
		}
		m := c.msg
		if m == nil {
			m = c.newMessage()
			c.msg = m
		}
		if s.buf != nil {
			m.add(s)
		}
		if int64(m.size) > c.opts.MaxMessage { // it was begun early or for a Reader, without a limit
			switch {
			case !c.early:
				return nil, c.tooBig()
			case !last:
				c.long = true
				return nil, nil
			}
		}
		if last {
			c.msg = nil
			return m, nil
		}
	}
}

func (c *Conn) newMessage() *Message {
	if c.crossReleased.Load() != nil {
		c.collect()
	}
	m := c.local.newMessage(c, c.typ)
	if c.opts.DebugMessages {
		m.from = string(debug.Stack())
	}
	return m
}

// hasMessage reports whether TryReceive would return a message or an error. To find out,
// it decodes what has arrived.
func (c *Conn) hasMessage() bool {
	if c.discarding {
		return c.dropArrived() != nil
	}
	if len(c.stash) > 0 {
		return true
	}
	if c.busy {
		return false
	}
	c.paused = false
	if r := c.reader; r != nil { // the next piece is for r, or TryReceive would skip it
		if r.ended || r.lent && r.left == nil || len(r.here()) > 0 {
			return true
		}
		r.drop(c)
		s, last, ok, err := c.next()
		if ok {
			r.piece, r.ended = s, last
		}
		return ok || err != nil || c.paused
	}
	m, err := c.assembleEarly()
	if m != nil {
		c.stash = append(c.stash, m)
	}
	return m != nil || err != nil || c.paused || c.long
}

// assembleEarly is assemble before a call asks for the message. A Reader may ask for it,
// so MaxMessage does not end the connection.
func (c *Conn) assembleEarly() (*Message, error) {
	c.early = true
	c.deflate.unlimit()
	m, err := c.assemble()
	c.early = false
	return m, err
}

// unstash takes the oldest message of the stash.
func (c *Conn) unstash() *Message {
	m := c.stash[0]
	c.stash[0] = nil
	if c.stash = c.stash[1:]; len(c.stash) == 0 {
		c.stash = nil
	}
	if len(c.pings) > 0 {
		c.tellQuiet() // the stash has room
	}
	return m
}

// await waits until more has arrived. It must be called in a task of the loop.
func (c *Conn) await(ctx context.Context) error {
	var err error
	switch {
	case c.discarding:
		_, err = loop.WaitAny(ctx, &c.over)
	case c.busy:
		return errReceiving
	default:
		c.busy = true
		err = c.awaitMore(ctx)
		c.busy = false
		if len(c.pings) > 0 || c.sentClose != 0 {
			c.tellQuiet()
		}
	}
	if err != nil {
		if cerr := ctxErr(ctx); cerr != nil {
			return cerr
		}
		return fmt.Errorf("ws: receive: %w", err)
	}
	return nil
}

// awaitMore waits until more has arrived, or, if inflating was paused, until other tasks
// have had a turn.
func (c *Conn) awaitMore(ctx context.Context) error {
	if c.paused {
		c.paused = false
		return loop.Yield(ctx)
	}
	if c.msg != nil {
		c.msg.settle()
	}
	_, err := loop.WaitAny(ctx, c.readable[:]...)
	return err
}

// next returns the next piece of a message, unmasked, inflated and, if it is text,
// checked. ok is false if none has arrived. last says that the piece ends its message; it
// may be empty then. next handles the control frames in front of the piece.
func (c *Conn) next() (s segment, last, ok bool, err error) {
	if c.deflate != nil && c.deflate.active {
		s, last, ok, err = c.inflate()
	} else if s, last, ok, err = c.raw(); ok && c.packed {
		c.deflate.begin(c.limit())
		c.deflate.piece, c.deflate.last = s, last
		s, last, ok, err = c.inflate()
	}
	if ok && c.typ == TypeText && !c.valid(s.data, last) {
		if s.buf != nil {
			c.frames.release(s.buf)
		}
		return segment{}, false, false, c.fail(StatusInvalidPayload, "text that is not UTF-8")
	}
	return s, last, ok, err
}

// limit returns how many bytes the current message may have.
func (c *Conn) limit() int64 {
	if c.streaming || c.early {
		return math.MaxInt64
	}
	return c.opts.MaxMessage
}

func (c *Conn) valid(p []byte, last bool) bool {
	if !c.text.Write(p) {
		return false
	}
	if last {
		ok := c.text.Complete()
		c.text.Reset()
		return ok
	}
	return true
}

// raw is next without inflating and checking.
func (c *Conn) raw() (s segment, last, ok bool, err error) {
	if c.readErr != nil {
		return s, false, false, c.readErr
	}
	for {
		if !c.inFrame {
			ok, err := c.frames.header(&c.head)
			if err != nil {
				return s, false, false, c.headerError(err)
			}
			if !ok {
				return s, false, false, c.nothing()
			}
			if err := c.begin(); err != nil || c.long {
				return s, false, false, err
			}
		}
		if c.head.Op.IsControl() {
			if err := c.receiveControl(); err != nil {
				return s, false, false, err
			}
			if c.inFrame {
				return s, false, false, c.nothing()
			}
			continue
		}
		if c.at < c.head.Len {
			if s, ok = c.frames.payload(&c.head, c.at); !ok {
				return s, false, false, c.nothing()
			}
			c.at += int64(len(s.data))
		}
		if c.at == c.head.Len {
			c.inFrame = false
			if last = c.head.Fin; last {
				c.inMsg = false
			} else if s.buf == nil {
				continue // an empty fragment
			}
		}
		return s, last, true, nil
	}
}

// begin begins a frame, whose header is c.head, and checks it against the frames before
// it.
func (c *Conn) begin() error {
	h := &c.head
	c.inFrame, c.at = true, 0
	if h.Op.IsControl() {
		return nil
	}
	if h.Op == frame.Continuation {
		if !c.inMsg {
			return c.fail(StatusProtocolError, "a continuation of no message")
		}
		c.length += h.Len
	} else {
		if c.inMsg {
			return c.fail(StatusProtocolError, "a new message inside a fragmented one")
		}
		c.inMsg, c.typ, c.length = true, Type(h.Op), h.Len
		c.packed = h.Rsv&frame.Rsv1 != 0
	}
	// The header alone shows that a message is too long, before its payload arrives. A
	// compressed payload is not kept, and what it inflates to is counted later. But it
	// cannot be longer than that of a compressor that flushes after each byte, which sends
	// about a dozen bytes for each.
	limit := c.opts.MaxMessage
	if c.packed && limit < math.MaxInt64/32 {
		limit = 16*limit + 1024
	}
	switch {
	case c.length < 0:
		return c.tooBig()
	case c.length <= limit || c.streaming:
	case c.early:
		c.long = true
	default:
		return c.tooBig()
	}
	return nil
}

// receiveControl reads what has arrived of a control frame, and handles the frame once it
// is complete.
func (c *Conn) receiveControl() error {
	h := &c.head
	for c.at < h.Len {
		n := c.frames.control(c.control[c.at:h.Len], h, c.at)
		if n == 0 {
			return nil
		}
		c.at += int64(n)
	}
	c.inFrame = false
	p := c.control[:h.Len]
	switch h.Op {
	case frame.Ping:
		c.answerPing(p)
		return nil
	case frame.Pong:
		c.receivePong(p)
		return nil
	}
	return c.receiveClose(p)
}

// nothing returns the error of next when no piece has arrived: nil if more may arrive.
func (c *Conn) nothing() error {
	err := c.stream.Friend(key).ReadErr()
	if err == nil || c.stream.Buffered() > 0 {
		return nil
	}
	if timeout(err) && !c.closed {
		return err // the read deadline's: the caller may move it and continue
	}
	return c.end(abnormal(err))
}

func (c *Conn) tooBig() error {
	return c.fail(StatusMessageTooBig, fmt.Sprintf("a message of more than %d bytes", c.limit()))
}

// exhausted ends a connection because there is no memory for what it receives.
func (c *Conn) exhausted(err error) error {
	_ = c.sendClose(StatusTryAgainLater, "")
	return c.end(fmt.Errorf("ws: receive: %w", err))
}

func (c *Conn) headerError(err error) error {
	var broken frame.Error
	if errors.As(err, &broken) {
		return c.fail(StatusProtocolError, broken.Error())
	}
	return c.end(abnormal(err))
}
