package ws

import (
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws/internal/frame"
)

const (
	// smallMessage is the largest payload, in bytes, that is copied behind what is queued
	// already, so that many messages leave as one piece of memory. A larger message is
	// sent from the buffer that it lies in.
	smallMessage = 2 << 10

	// pieceSize is how many bytes are copied into one piece of the stream's queue.
	pieceSize = 32 << 10
)

// writeMessage queues m, compressed if that is worth it, and takes m.
func (c *Conn) writeMessage(m *Message) error {
	if c.deflate.compresses(m.size) {
		err := c.writeDeflated(m.typ, func(f func([]byte)) { m.eachSegment(func(s *segment) { f(s.data) }) })
		m.free()
		return err
	}
	return c.writeFrame(m)
}

// writeBytes queues a message with a copy of p, compressed if that is worth it.
func (c *Conn) writeBytes(t Type, p []byte) error {
	if c.deflate.compresses(len(p)) {
		return c.writeDeflated(t, func(f func([]byte)) { f(p) })
	}
	h := frame.Header{Op: frame.Opcode(t), Fin: true, Len: int64(len(p))}
	return c.writeParts(&h, p)
}

// header returns the frame header of m, with a new masking key on a client.
func (c *Conn) header(m *Message) frame.Header {
	h := frame.Header{Op: frame.Opcode(m.typ), Fin: true, Len: int64(m.size)}
	c.mask(&h)
	return h
}

func (c *Conn) mask(h *frame.Header) {
	if c.client {
		h.Masked, h.Mask = true, c.local.masks.next()
	}
}

// queued counts a frame of n bytes that was queued, and charges the Budget.
func (c *Conn) queued(n int) {
	c.written += int64(n)
	if c.opts.Budget != nil {
		c.charge()
	}
}

// writeFrame queues m as one frame, and takes m. It copies a short message behind what is
// queued already. Of a longer message, or of one that would begin the queue and is the
// only owner of its buffer, it queues the buffers themselves.
func (c *Conn) writeFrame(m *Message) error {
	h := c.header(m)
	if m.size <= smallMessage && (c.stream.Friend(key).TailRoom() > 0 || len(m.rest) > 0 || m.first.buf == nil || !m.first.sole()) {
		return c.writeSmall(&h, m)
	}
	return c.writeBuffers(&h, m)
}

// writeSmall queues a frame with a copy of m's bytes, and takes m.
func (c *Conn) writeSmall(h *frame.Header, m *Message) error {
	n := h.Size() + m.size
	b, err := c.stream.Friend(key).Grow(n, len(c.frames.in))
	if err != nil {
		m.free()
		return c.sendFailed(err)
	}
	payload := b[h.Put(b):]
	at := copy(payload, m.first.data)
	for i := range m.rest {
		at += copy(payload[at:], m.rest[i].data)
	}
	if h.Masked {
		frame.Mask(payload, h.Mask, 0)
	}
	m.free()
	c.queued(n)
	return nil
}

// writeParts queues a frame with a copy of p, masked if this end is a client.
func (c *Conn) writeParts(h *frame.Header, p []byte) error {
	c.mask(h)
	size := h.Size()
	first := min(len(p), pieceSize)
	b, err := c.stream.Friend(key).Grow(size+first, len(p)-first)
	if err != nil {
		return c.sendFailed(err)
	}
	h.Put(b)
	copy(b[size:], p[:first])
	if h.Masked {
		frame.Mask(b[size:], h.Mask, 0)
	}
	if err := c.copyOut(h, p[first:], int64(first)); err != nil {
		return c.sendFailed(err)
	}
	c.queued(size + len(p))
	return nil
}

// copyOut queues copies of p, the part of a payload that begins at offset at.
func (c *Conn) copyOut(h *frame.Header, p []byte, at int64) error {
	for len(p) > 0 {
		n := min(len(p), pieceSize)
		b, err := c.stream.Friend(key).Grow(n, len(p)-n)
		if err != nil {
			return err
		}
		copy(b, p[:n])
		if h.Masked {
			frame.Mask(b, h.Mask, at)
		}
		at, p = at+int64(n), p[n:]
	}
	return nil
}

// writeBuffers queues a frame made of m's own buffers, and takes m.
func (c *Conn) writeBuffers(h *frame.Header, m *Message) error {
	err := c.writeSegment(h, &m.first, 0)
	at := int64(len(m.first.data))
	for i := 0; i < len(m.rest) && err == nil; i++ {
		err = c.writeSegment(h, &m.rest[i], at)
		at += int64(len(m.rest[i].data))
	}
	m.free() // the buffers that were not queued, and the Message itself
	if err != nil {
		return c.sendFailed(err)
	}
	c.queued(h.Size() + int(h.Len))
	return nil
}

// writeSegment queues the part of the payload that begins at offset at, with the header in
// front of the first part. It sets s.buf to nil if it takes the buffer.
func (c *Conn) writeSegment(h *frame.Header, s *segment, at int64) error {
	b := s.buf
	if b == nil || b.Friend(key).Shared() {
		return c.writeView(h, s, at)
	}
	b.Truncate(s.off + len(s.data))
	b.Advance(s.off)
	if h.Masked {
		frame.Mask(s.data, h.Mask, at)
	}
	if at == 0 {
		if size := h.Size(); b.Friend(key).Headroom() >= size {
			h.Put(b.Prepend(size))
		} else if err := c.writeHeader(h); err != nil {
			return err
		}
	}
	s.buf = nil
	return c.enqueue(b)
}

// writeView is writeSegment for a buffer with other owners, which must not be changed.
func (c *Conn) writeView(h *frame.Header, s *segment, at int64) error {
	if at == 0 {
		if err := c.writeHeader(h); err != nil {
			return err
		}
	}
	b := s.buf
	switch {
	case b == nil:
		return nil
	case !h.Masked && s.off == 0 && s.last(): // all of it, unchanged
		s.buf = nil
		return c.enqueue(b)
	}
	return c.copyOut(h, s.data, at)
}

func (c *Conn) writeHeader(h *frame.Header) error {
	p, err := c.stream.Friend(key).Grow(h.Size(), 0)
	if err != nil {
		return err
	}
	h.Put(p)
	return nil
}

// enqueue gives the stream a buffer. It passes a list that the Conn keeps: one made for
// each call would escape to the heap, because a stream's layer is behind an interface.
func (c *Conn) enqueue(b *runtime.Buffer) error {
	c.one[0] = b
	err := c.stream.Friend(key).Enqueue(c.one[:]...)
	c.one[0] = nil
	return err
}

// queueControl queues a control frame, however much is queued already: the frames are
// small, and the callers bound their number. If it fails, for lack of memory or because the
// transport is gone, it has queued nothing. It queues nothing after another frame has
// failed, which may have been queued in part.
func (c *Conn) queueControl(op frame.Opcode, p []byte) error {
	if c.failed != nil {
		return c.failed
	}
	h := frame.Header{Op: op, Fin: true, Len: int64(len(p))}
	c.mask(&h)
	b, err := c.stream.Friend(key).Grow(h.Size()+len(p), 0)
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
