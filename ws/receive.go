package ws

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"unicode/utf8"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws/internal/frame"
)

// Receive waits for the next message and returns it; it is the caller's, who
// sends it on or releases it. Pings and pongs are answered and noted meanwhile.
//
// When the peer closes the connection, the error is a *CloseError; when the
// peer broke the protocol, a *ProtocolError; when the connection ended without
// a Close frame, it is ErrAbnormalClosure. After one of these every call fails in the
// same way. When ctx ends, or a deadline passes, nothing is lost: the next call
// goes on where this one stopped.
//
// Only one caller at a time may receive.
func (c *Conn) Receive(ctx context.Context) (*Message, error) {
	if !c.loop.Friend(friend.Key{}).OnLoop() {
		m, err := fromElsewhere(ctx, c, "receive", c.Receive)
		if m != nil {
			err = nil // it came before whatever ended the call
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
		if !idle || waited { // it does not look at why nothing comes any more
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

// TryReceive is Receive that never waits: it returns nil, and no error, if no
// message is there. It is called on the loop; also from a function given to
// Post.
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
	case c.closing:
		return nil, c.dropArrived()
	case c.busy:
		return nil, errReceiving
	}
	if len(c.stash) > 0 {
		if int64(c.stash[0].size) > c.opts.MaxMessage { // which was known when it had ended
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

// quickReceive returns the next message, if it is such a one. idle says that nothing
// has arrived, not even the beginning of one.
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
	// An empty one has no buffer: that is not done here.
	if size == 0 || len(p) < n+size || int64(size) > c.opts.MaxMessage {
		return nil, false
	}
	data := p[n : n+size : n+size]
	if masked {
		frame.Mask(data, key, 0)
	}
	if typ == TypeText && !utf8.Valid(data) {
		if masked {
			frame.Mask(data, key, 0) // as it was: the error is found once more
		}
		return nil, false
	}
	m = c.newMessage()
	m.typ, m.size = typ, size
	e.in = p[n:]
	e.take(&m.first, size)
	return m, false
}

// assemble puts the next message together, as far as it is here.
func (c *Conn) assemble() (*Message, error) {
	switch {
	case c.long && c.early:
		return nil, nil // no more of it than was needed to know
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
		if int64(m.size) > c.opts.MaxMessage { // what was ahead, or a Reader that was given up, let it begin
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
	if c.foreign.Load() != nil {
		c.collect()
	}
	m := c.local.newMessage(c, c.typ)
	if c.opts.DebugMessages {
		m.from = string(debug.Stack())
	}
	return m
}

// hasMessage reports whether TryReceive would return something, and takes in
// what has arrived to find that out.
func (c *Conn) hasMessage() bool {
	if c.closing {
		return c.dropArrived() != nil
	}
	if len(c.stash) > 0 {
		return true
	}
	if c.busy {
		return false
	}
	c.paused = false
	if r := c.reader; r != nil { // it reads what comes, or it is left and that is skipped
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

// assembleEarly is assemble before it is known who wants the message: a Reader's may
// have any length.
func (c *Conn) assembleEarly() (*Message, error) {
	c.early = true
	c.deflate.unlimit()
	m, err := c.assemble()
	c.early = false
	return m, err
}

// unstash takes the oldest message that was received ahead of its receiver.
func (c *Conn) unstash() *Message {
	m := c.stash[0]
	c.stash[0] = nil
	if c.stash = c.stash[1:]; len(c.stash) == 0 {
		c.stash = nil
	}
	if len(c.pings) > 0 {
		c.tellQuiet() // there is room in it
	}
	return m
}

// await waits until there is more to read, on the loop.
func (c *Conn) await(ctx context.Context) error {
	var err error
	switch {
	case c.closing:
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

// awaitMore waits until there is more to read, or, where it is here already, until
// others have had their turn.
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

// next returns the next piece of a message that has arrived: unmasked,
// inflated, and checked if it is text. ok is false when there is none. last
// says that it ends its message; it may be empty then. Control frames are dealt
// with on the way.
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

// limit returns how many bytes the message that has begun may inflate to.
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

// raw is next without what extensions and types make of a piece.
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
				continue // an empty fragment is nothing
			}
		}
		return s, last, true, nil
	}
}

// begin checks a header against what came before it.
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
	// On the word of the header, before any of it has come. Compressed bytes are
	// not kept, and what they inflate to is counted as it comes; but there cannot be
	// more of them than if each byte had been flushed alone, which takes a dozen.
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

// receiveControl goes on with a control frame, and handles it once it is
// complete.
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

// nothing is what next returns when nothing is there: nil if more may come.
func (c *Conn) nothing() error {
	err := c.stream.Friend(friend.Key{}).ReadErr()
	if err == nil || c.stream.Buffered() > 0 {
		return nil
	}
	if timeout(err) && !c.closed {
		return err // of a deadline: it may be moved
	}
	return c.end(abnormal(err))
}

func (c *Conn) tooBig() error {
	return c.fail(StatusMessageTooBig, fmt.Sprintf("a message of more than %d bytes", c.limit()))
}

// exhausted ends a connection for whose message there is no memory.
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
