package ws

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// Send sends m and takes it, even if it fails; any goroutine and any loop's task may call
// it, and it waits while the send queue is full, as Options.Policy says. It returns when
// the message is queued, and the loop sends what is queued at the end of its turn. A later
// call returns an error of sending.
//
// Send does not check that text is UTF-8. The caller must: a peer closes the connection
// with StatusInvalidPayload if it is not.
func (c *Conn) Send(ctx context.Context, m *Message) error {
	m.check("Send")
	if !c.loop.Friend(friend.Key{}).OnLoop() {
		return c.sendElsewhere(ctx, outgoing{m: m.portable()})
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
	_ = c.stream.Friend(friend.Key{}).Enqueue(c.one[:]...) // cannot fail: WriteErr was nil
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
	if !c.loop.Friend(friend.Key{}).OnLoop() {
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

// cost returns how many bytes o counts for in the queue of other threads. It is positive
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
	if !c.loop.Friend(friend.Key{}).OnLoop() {
		return c.sendElsewhere(ctx, o)
	}
	t, n := o.typeAndLen()
	if err := c.room(ctx, nil, t, n); err != nil {
		o.drop()
		return err
	}
	return c.write(o)
}

// write queues o. room has returned nil for it.
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

// room waits until a message may be queued, or returns why it must not. Messages that
// other threads sent before the call are queued by then. w is nil, or the Writer of whose
// message the next part is to be queued. room must be called in a task of the loop.
func (c *Conn) room(ctx context.Context, w *Writer, t Type, bytes int) error {
	var before uint64
	r := c.remote.Load()
	if r != nil {
		before = r.accepted.Load()
	}
	yielded := int64(-1) // c.written at the last yield
	for turns := 0; ; {
		if err := c.sendErr(); err != nil {
			return err
		}
		if c.ending && w == nil { // Close waits for the open Writer, and sends its frame next
			return errClosed
		}
		if c.writer != w { // another Writer is open, or w is not any more
			if w != nil {
				return errWriterDone
			}
			if err := c.wait(ctx, w, &c.unlocked); err != nil {
				return err
			}
			continue
		}
		err := c.stream.Friend(friend.Key{}).WriteErr()
		if err == nil && !c.overBudget() {
			if c.pongDue {
				c.answerLatestPing() // the ping came before this message
			}
			if w == nil && r != nil && r.moved.Load() < before {
				c.ahead(r, before)
				if c.deflate != nil && r.moved.Load() < before { // compressing took a whole turn
					_ = loop.Yield(ctx) // even if ctx has ended
				}
				continue
			}
			return nil
		}
		if err != nil && !errors.Is(err, runtime.ErrBusy) {
			return c.sendFailed(err)
		}
		if c.opts.Policy != PolicyWait && yielded != c.written && turns < maxTurns {
			// Bytes that were queued in this turn of the loop cannot have left yet, however
			// fast the peer is. So the peer is not to blame.
			yielded = c.written
			turns++
			if err := loop.Yield(ctx); err != nil {
				return err
			}
			continue
		}
		switch c.opts.Policy {
		case PolicyDrop:
			if w == nil { // a part of a message cannot be dropped
				c.dropped(t, bytes)
				return ErrDropped
			}
		case PolicyDisconnect:
			return c.tooSlow()
		}
		sources := []loop.Source{c.writable}
		if err == nil {
			c.vacant.Clear()
			if !c.opts.Budget.wantRoom() || !c.overBudget() {
				continue
			}
			sources = []loop.Source{&c.opts.Budget.room, &c.vacant}
		}
		if err := c.wait(ctx, w, sources...); err != nil {
			return err
		}
	}
}

// maxTurns is how many turns of the loop a message waits before PolicyDrop or
// PolicyDisconnect applies, if other messages take the room meanwhile.
const maxTurns = 8

func (c *Conn) dropped(t Type, bytes int) {
	if hook := c.opts.Hooks.MessageDropped; hook != nil {
		hook(c, t, bytes)
	}
}

// wait waits for one of the sources, at most WriteTimeout, and fails if the connection
// ends. There is no limit while another Writer than w, which may be nil, is open: the peer
// is not the cause of the wait. After wait the caller must check again what it waits for.
func (c *Conn) wait(ctx context.Context, w *Writer, sources ...loop.Source) error {
	wctx := ctx
	d := c.opts.WriteTimeout
	if d > 0 && c.writer == w {
		var cancel context.CancelFunc
		wctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	i, err := loop.WaitAny(wctx, append(sources, &c.over)...)
	switch {
	case err == nil && i == len(sources):
		if err := c.sendErr(); err != nil {
			return err
		}
		return c.readErr
	case err == nil:
		return nil
	case ctxErr(ctx) != nil:
		return ctxErr(ctx)
	case errors.Is(err, context.DeadlineExceeded):
		if c.writer != w {
			return nil
		}
		return c.giveUp(fmt.Errorf("%w: no room to send for %v", ErrTooSlow, d))
	}
	return fmt.Errorf("ws: send: %w", err)
}

// onSent is called by the stream when it has sent queued bytes.
func (c *Conn) onSent() {
	c.charge()
	if c.opts.Budget != nil && c.stream.Queued() == 0 {
		c.vacant.Set()
	}
	if c.short && !c.overBudget() {
		c.short = false
		c.loop.Friend(friend.Key{}).NextTurn(c.takeRemote)
	}
	if c.pongDue && c.pongsGone() && !c.closed {
		c.answerLatestPing()
	}
}
