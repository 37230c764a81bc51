package ws

import (
	"encoding/binary"
	"math"
	"unicode/utf8"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/ws/internal/frame"
)

// This file is for what happens most: a short message in one frame that is all
// here, in a buffer with others, and an answer that leaves together with others.
// It does what receive.go and write.go do, in one go; whatever is out of the
// ordinary it leaves to them, untouched.

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

// quickSend queues m and takes it, if that can be done at once.
func (c *Conn) quickSend(m *Message) bool {
	if !c.quick || len(m.rest) > 0 || c.client || c.failed != nil || c.sentClose != 0 || c.gotClose != nil || c.closed || c.ending || c.writer != nil || c.pongDue || c.overtaken() {
		return false
	}
	n := 2
	switch {
	case m.size > math.MaxUint16:
		return false
	case m.size > 125:
		n = 4
	}
	if m.size <= smallMessage {
		if b := c.stream.Friend(friend.Key{}).TryGrow(n + m.size); b != nil {
			quickHeader(b, m)
			copy(b[n:], m.first.data)
			m.free()
			c.queued(len(b))
			return true
		}
		if c.stream.Friend(friend.Key{}).TailRoom() > 0 {
			return false
		}
	}
	s := &m.first
	b := s.buf
	if b == nil || b.Friend(friend.Key{}).Shared() || s.off+b.Friend(friend.Key{}).Headroom() < n || c.stream.Friend(friend.Key{}).WriteErr() != nil {
		return false
	}
	b.Truncate(s.off + m.size)
	b.Advance(s.off)
	quickHeader(b.Prepend(n), m)
	s.buf = nil
	m.free()
	c.one[0] = b
	_ = c.stream.Friend(friend.Key{}).Enqueue(c.one[:]...) // WriteErr was asked
	c.one[0] = nil
	c.queued(n + m.size)
	return true
}

// quickHeader puts m's header into b.
func quickHeader(b []byte, m *Message) {
	b[0] = 0x80 | byte(m.typ)
	if m.size <= 125 {
		b[1] = byte(m.size)
		return
	}
	b[1] = 126
	binary.BigEndian.PutUint16(b[2:], uint16(m.size))
}
