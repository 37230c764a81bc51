package ws

import (
	"encoding/binary"
	"errors"
	"unicode/utf8"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/ws/internal/frame"
)

const (
	// maxPongs is how many bytes of pongs may wait to be sent before they
	// coalesce: from then on only the newest ping is answered, once there is
	// room (RFC 6455, section 5.5.3).
	maxPongs = 4 << 10

	maxReason = frame.MaxControl - 2 // bytes of a Close frame's reason
)

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
		c.pong(p)
		return nil
	case frame.Pong:
		c.ponged(p)
		return nil
	}
	return c.receiveClose(p)
}

// pong answers a ping. Once maxPongs bytes of answers wait, only the newest
// ping is answered, when those have gone.
func (c *Conn) pong(p []byte) {
	if c.sentClose != 0 {
		return
	}
	if c.pongsGone() {
		c.pongs = 0
	}
	if c.pongDue || c.pongs+len(p) > maxPongs {
		c.pending = append(c.pending[:0], p...)
		c.pongDue = true
		c.stream.OnSent(c.sent)
		return
	}
	if c.queueControl(frame.Pong, p) == nil {
		c.pongs += len(p) + 2
		c.pongEnd = c.written
	}
}

func (c *Conn) pongsGone() bool { return c.written-int64(c.stream.Queued()) >= c.pongEnd }

// sent is called when something that was queued has gone.
func (c *Conn) sent() {
	c.charge()
	if c.opts.Budget != nil && c.stream.Queued() == 0 {
		c.vacant.Set()
	}
	if c.short && !c.overBudget() {
		c.short = false
		c.loop.Friend(friend.Key{}).NextTurn(c.takeRemote)
	}
	if c.pongDue && c.pongsGone() && !c.closed {
		c.latePong()
	}
}

// latePong answers the newest ping.
func (c *Conn) latePong() {
	c.pongDue = false
	if c.sentClose == 0 && c.queueControl(frame.Pong, c.pending) == nil {
		c.pongs += len(c.pending) + 2
		c.pongEnd = c.written
	}
	c.pending = nil
}

// queueControl queues a control frame, whatever else is queued: they are small,
// and whoever calls it bounds their number. When it fails, for want of memory or
// because the transport is gone, nothing was queued. Nothing follows a failure of
// others: it may have left half a frame.
func (c *Conn) queueControl(op frame.Opcode, p []byte) error {
	if c.failed != nil {
		return c.failed
	}
	h := frame.Header{Op: op, Fin: true, Len: int64(len(p))}
	c.mask(&h)
	b, err := c.stream.Grow(h.Size()+len(p), 0)
	if err != nil {
		return err
	}
	n := h.Put(b)
	copy(b[n:], p)
	if h.Masked {
		frame.Mask(b[n:], h.Mask, 0)
	}
	c.queued(len(b))
	return nil
}

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
