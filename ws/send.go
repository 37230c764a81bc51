package ws

import (
	"context"
	"encoding/binary"
	"math"
)

// Send queues m to be sent, and takes it, even if it fails; any goroutine and any loop's
// task may call it. It waits while a Writer is open, and while the send queue is full if
// Options.Policy says so. The loop sends what is queued at the end of its turn, so an error
// of sending shows in a later call.
//
// Send does not check that text is UTF-8. The caller must: a peer closes the connection
// with StatusInvalidPayload if it is not.
func (c *Conn) Send(ctx context.Context, m *Message) error {
	m.check("Send")
	if !c.onLoop() {
		return c.sendCross(ctx, outgoing{m: m.portable()})
	}
	if m.local != nil && m.local != c.local {
		m = m.portable() // another loop owns its memory
	}
	if c.deflate.takesLong(m.size) {
		return c.sendLong(ctx, m)
	}
	if c.quickSend(m) {
		return nil
	}
	if err := c.roomFor(ctx, m); err != nil {
		return err
	}
	t, n := m.typ, m.size
	return c.messageOut(t, n, c.writeMessage(m))
}

// quickSend queues m, and takes it, in the most frequent case: a short message of one
// segment, sent by a task of the loop, that may be queued at once. It does in one go what
// room and writeFrame do in several steps, and leaves everything else untouched for them.
func (c *Conn) quickSend(m *Message) bool {
	switch {
	case !c.quick, c.client, len(m.rest) > 0: // takes a step that quickSend does not have
		return false
	case c.failed != nil, c.sentClose != 0, c.gotClose != nil, c.closed, c.closing: // room returns the error
		return false
	case c.writer != nil, c.pongDue, c.overtakes(): // something else must be sent first
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
		if b := c.stream.Friend(key).TryGrow(n + m.size); b != nil {
			quickHeader(b, m)
			copy(b[n:], m.first.data)
			m.free()
			c.queued(len(b))
			return true
		}
		if c.stream.Friend(key).TailRoom() > 0 {
			return false
		}
	}
	s := &m.first
	b := s.buf
	if b == nil || b.Friend(key).Shared() || s.off+b.Friend(key).Headroom() < n || c.stream.Friend(key).WriteErr() != nil {
		return false
	}
	b.Truncate(s.off + m.size)
	b.Advance(s.off)
	quickHeader(b.Prepend(n), m)
	s.buf = nil
	m.free()
	c.one[0] = b
	_ = c.stream.Friend(key).Enqueue(c.one[:]...) // cannot fail: WriteErr was nil
	c.one[0] = nil
	c.queued(n + m.size)
	return true
}

// quickHeader writes the header of m's frame to b.
func quickHeader(b []byte, m *Message) {
	b[0] = 0x80 | byte(m.typ)
	if m.size <= 125 {
		b[1] = byte(m.size)
		return
	}
	b[1] = 126
	binary.BigEndian.PutUint16(b[2:], uint16(m.size))
}

// SendText is Send of a copy of s, as text: it may be called, and waits, like Send.
func (c *Conn) SendText(ctx context.Context, s string) error {
	return c.sendCopy(ctx, TypeText, []byte(s))
}

// SendBinary is Send of a copy of p, as binary: it may be called, and waits, like Send.
func (c *Conn) SendBinary(ctx context.Context, p []byte) error { return c.sendCopy(ctx, TypeBinary, p) }

func (c *Conn) sendCopy(ctx context.Context, t Type, p []byte) error {
	if !c.onLoop() {
		return c.Send(ctx, NewMessage(t, append([]byte(nil), p...)))
	}
	if c.deflate.takesLong(len(p)) {
		return c.sendLong(ctx, NewMessage(t, p)) // without a copy: sendLong does not keep p
	}
	if err := c.room(ctx, nil, t, len(p)); err != nil {
		return err
	}
	return c.messageOut(t, len(p), c.writeBytes(t, p))
}

// An outgoing is a message that waits to be sent: either m or prepared.
type outgoing struct {
	m        *Message
	prepared *Prepared
}

func (o outgoing) typeAndLen() (t Type, bytes int) {
	if o.m != nil {
		return o.m.typ, o.m.size
	}
	return o.prepared.typ, len(o.prepared.payload)
}

// cost returns how many bytes o counts for in the cross-thread queue. It is positive
// for an empty message too, which takes memory.
func (o outgoing) cost() int {
	_, n := o.typeAndLen()
	return n + headroom
}

func (o outgoing) drop() {
	if o.m != nil {
		o.m.Release()
	}
}

// send is Send for an outgoing.
func (c *Conn) send(ctx context.Context, o outgoing) error {
	if !c.onLoop() {
		return c.sendCross(ctx, o)
	}
	t, n := o.typeAndLen()
	if err := c.room(ctx, nil, t, n); err != nil {
		o.drop()
		return err
	}
	return c.write(o)
}

// write queues o, whether there is room or not: the caller has checked that, or may exceed
// the limit as takeAll does.
func (c *Conn) write(o outgoing) error {
	t, n := o.typeAndLen()
	if o.m != nil {
		return c.messageOut(t, n, c.writeMessage(o.m))
	}
	return c.messageOut(t, n, c.writePrepared(o.prepared))
}

// messageOut calls the hook for a message that was queued, if err is nil, and returns
// err. It must be the last step, so that a hook that panics leaves nothing half done.
func (c *Conn) messageOut(t Type, bytes int, err error) error {
	if hook := c.opts.Hooks.MessageSent; hook != nil && err == nil {
		hook(c, t, bytes)
	}
	return err
}

// roomFor is room for m, which it takes off its handler's list first. It releases m if m
// must not be sent, or a hook panics.
func (c *Conn) roomFor(ctx context.Context, m *Message) (err error) {
	m.unhold()
	ready := false
	defer func() {
		if !ready {
			m.Release()
		}
	}()
	err = c.room(ctx, nil, m.typ, m.size)
	ready = err == nil
	return err
}

// onSent is called by the stream when it has sent queued bytes.
func (c *Conn) onSent() {
	c.charge()
	if c.opts.Budget != nil && c.stream.Queued() == 0 {
		c.vacant.Set()
	}
	if c.short && !c.overBudget() {
		c.short = false
		c.nextTurn(c.takeCross)
	}
	if c.pongDue && c.pongsGone() && !c.closed {
		c.answerLatestPing()
	}
}
