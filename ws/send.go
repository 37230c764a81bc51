package ws

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws/internal/frame"
)

// smallMessage is up to how many bytes of payload are copied behind what is
// queued already, so that many messages leave as one piece of memory. A larger
// one goes out as the buffer that it lies in.
const smallMessage = 2 << 10

// Send sends m and takes it: also when it fails. It returns when the message is
// queued, and waits before that while more than Options.SendQueue bytes are
// queued already, or does what Options.Policy says. What is queued leaves at the
// end of the loop's turn; an error in sending shows in a later call.
//
// It may be called from any goroutine and from tasks of any loop.
func (c *Conn) Send(ctx context.Context, m *Message) error {
	m.check("Send")
	if !c.loop.OnLoop() {
		return c.sendElsewhere(ctx, m)
	}
	if err := c.room(ctx); err != nil {
		m.drop()
		return err
	}
	if hook := c.opts.Hooks.MessageOut; hook != nil {
		hook(c, m.typ, m.size)
	}
	return c.writeMessage(m)
}

func (c *Conn) sendElsewhere(ctx context.Context, m *Message) error {
	m = m.portable()
	taken := false
	err := c.elsewhere(ctx, "send", func(ctx context.Context) error {
		taken = true
		return c.Send(ctx, m)
	})
	if !taken {
		m.drop()
	}
	return err
}

// SendText sends a copy of s.
func (c *Conn) SendText(ctx context.Context, s string) error { return c.sendCopy(ctx, Text, []byte(s)) }

// SendBinary sends a copy of p.
func (c *Conn) SendBinary(ctx context.Context, p []byte) error { return c.sendCopy(ctx, Binary, p) }

func (c *Conn) sendCopy(ctx context.Context, t Type, p []byte) error {
	if !c.loop.OnLoop() || len(p) > smallMessage {
		return c.Send(ctx, NewMessage(t, append([]byte(nil), p...)))
	}
	if err := c.room(ctx); err != nil {
		return err
	}
	if hook := c.opts.Hooks.MessageOut; hook != nil {
		hook(c, t, len(p))
	}
	h := frame.Header{Op: frame.Opcode(t), Fin: true, Len: int64(len(p))}
	return c.writeCopy(&h, p, nil)
}

// portable returns a message with m's bytes that any loop may send. Buffers
// belong to their loops, so what was received is copied.
func (m *Message) portable() *Message {
	shared := true
	m.eachSegment(func(s *segment) { shared = shared && s.buf.Home() == nil })
	if shared {
		return m
	}
	all := make([]byte, 0, m.size)
	m.eachSegment(func(s *segment) { all = append(all, s.data...) })
	t := m.typ
	m.Release()
	return NewMessage(t, all)
}

// drop releases m, which nobody got, wherever that is.
func (m *Message) drop() {
	m.gone = false
	m.Release()
}

// room waits until a message may be queued, on the loop.
func (c *Conn) room(ctx context.Context) error {
	for {
		if err := c.sendErr(); err != nil {
			return err
		}
		err := c.stream.WriteErr()
		if err == nil {
			return nil
		}
		if !errors.Is(err, runtime.ErrBusy) {
			return c.sendFailed(err)
		}
		if err := c.awaitRoom(ctx); err != nil {
			return err
		}
	}
}

// awaitRoom waits while the queue is full.
func (c *Conn) awaitRoom(ctx context.Context) error {
	if d := c.opts.WriteTimeout; d > 0 {
		wctx, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		if _, err := runtime.WaitAny(wctx, c.writable); err != nil {
			if cerr := ctx.Err(); cerr != nil {
				return cerr
			}
			if wctx.Err() != nil {
				return c.giveUp(fmt.Errorf("%w: no room for %v", ErrTooSlow, d))
			}
			return fmt.Errorf("ws: send: %w", err)
		}
		return nil
	}
	if _, err := runtime.WaitAny(ctx, c.writable); err != nil {
		if cerr := ctx.Err(); cerr != nil {
			return cerr
		}
		return fmt.Errorf("ws: send: %w", err)
	}
	return nil
}

// giveUp ends a connection whose peer does not read: a Close frame would not
// reach it.
func (c *Conn) giveUp(err error) error {
	if c.failed == nil {
		c.failed = err
	}
	_ = c.stream.SetReadDeadline(time.Now()) // whoever receives is to know
	return c.end(err)
}

// sendErr returns why nothing can be sent.
func (c *Conn) sendErr() error {
	switch {
	case c.failed != nil:
		return c.failed
	case c.gotClose != nil:
		return c.gotClose
	case c.sentClose != 0 || c.closed:
		return errClosed
	}
	return nil
}

var errClosed = fmt.Errorf("ws: the connection was closed here: %w", runtime.ErrClosed)

func (c *Conn) sendFailed(err error) error {
	if c.failed == nil {
		c.failed = abnormal(err)
	}
	return c.failed
}

// writeMessage queues m as one frame.
func (c *Conn) writeMessage(m *Message) error {
	h := frame.Header{Op: frame.Opcode(m.typ), Fin: true, Len: int64(m.size)}
	if m.size <= smallMessage && (c.stream.TailRoom() > 0 || len(m.rest) > 0 || m.first.buf == nil || !m.first.sole()) {
		return c.writeCopy(&h, nil, m)
	}
	return c.writeBuffers(&h, m)
}

// writeCopy queues a frame with a copy of p, and then of m's bytes, which it
// takes.
func (c *Conn) writeCopy(h *frame.Header, p []byte, m *Message) error {
	if c.client {
		h.Masked, h.Mask = true, c.local.masks.next()
	}
	n := h.Size() + int(h.Len)
	b, err := c.stream.Grow(n, len(c.native.in))
	if err != nil {
		if m != nil {
			m.free()
		}
		return c.sendFailed(err)
	}
	at := h.Put(b)
	payload := b[at:at]
	payload = append(payload, p...)
	if m != nil {
		payload = append(payload, m.first.data...)
		for i := range m.rest {
			payload = append(payload, m.rest[i].data...)
		}
		m.free()
	}
	if h.Masked {
		frame.Mask(payload, h.Mask, 0)
	}
	c.written += int64(n)
	return nil
}

// writeBuffers queues a frame of the very buffers that m lies in.
func (c *Conn) writeBuffers(h *frame.Header, m *Message) error {
	if c.client {
		h.Masked, h.Mask = true, c.local.masks.next()
	}
	at := int64(0)
	for i := -1; i < len(m.rest); i++ {
		s := &m.first
		if i >= 0 {
			s = &m.rest[i]
		}
		if err := c.writeSegment(h, s, at); err != nil {
			m.free()
			return c.sendFailed(err)
		}
		at += int64(len(s.data))
	}
	c.written += int64(h.Size()) + h.Len
	m.sent()
	return nil
}

// sent is free for a message whose buffers have gone.
func (m *Message) sent() {
	if c := m.conn; c != nil {
		c.unlink(m)
	}
	m.rest = m.rest[:0]
	m.recycle()
}

// writeSegment queues a part of the payload, and in front of the first one the
// header. It takes the segment's buffer, unless it still has it.
func (c *Conn) writeSegment(h *frame.Header, s *segment, at int64) error {
	size := 0
	if at == 0 {
		size = h.Size()
	}
	if s.buf == nil || !s.sole() {
		return c.writeView(h, s, at)
	}
	b := s.buf
	b.Truncate(s.off + len(s.data))
	b.Advance(s.off)
	if h.Masked {
		frame.Mask(s.data, h.Mask, at)
	}
	if size > 0 {
		if b.Headroom() < size {
			if err := c.writeHeader(h); err != nil {
				return err
			}
		} else {
			h.Put(b.Prepend(size))
		}
	}
	s.buf = nil
	return c.stream.Enqueue(b)
}

func (c *Conn) writeHeader(h *frame.Header) error {
	p, err := c.stream.Grow(h.Size(), 0)
	if err != nil {
		return err
	}
	h.Put(p)
	return nil
}

// writeView is writeSegment for a buffer that somebody else has too.
func (c *Conn) writeView(h *frame.Header, s *segment, at int64) error {
	if at == 0 {
		if err := c.writeHeader(h); err != nil {
			return err
		}
	}
	if s.buf == nil {
		return nil
	}
	b := s.buf
	if !h.Masked && s.off == 0 && s.last() {
		s.buf = nil
		return c.stream.Enqueue(b)
	}
	const most = 32 << 10
	for p := s.data; len(p) > 0; {
		n := min(len(p), most)
		to, err := c.stream.Grow(n, len(p)-n)
		if err != nil {
			return err
		}
		copy(to, p[:n])
		if h.Masked {
			frame.Mask(to, h.Mask, at)
		}
		at, p = at+int64(n), p[n:]
	}
	s.buf = nil
	c.native.release(b)
	return nil
}
