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

// Send sends m and takes it: also when it fails. It returns when the message is
// queued. While more than Options.SendQueue bytes are queued already it waits
// first, or does what Options.Policy says. What is queued leaves at the end of
// the loop's turn; an error in sending shows in a later call.
//
// Text is not looked at: that it is UTF-8 is the caller's to see to, and a peer closes
// the connection if it is not (StatusInvalidPayload).
//
// It may be called from any goroutine and from tasks of any loop.
func (c *Conn) Send(ctx context.Context, m *Message) error {
	m.check("Send")
	if !c.loop.Friend(friend.Key{}).OnLoop() {
		return c.sendElsewhere(ctx, outgoing{m: m.portable()})
	}
	if m.local != nil && m.local != c.local {
		m = m.portable() // its memory is another loop's
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

// SendText sends a copy of s: see Send.
func (c *Conn) SendText(ctx context.Context, s string) error {
	return c.sendCopy(ctx, TypeText, []byte(s))
}

// SendBinary sends a copy of p: see Send.
func (c *Conn) SendBinary(ctx context.Context, p []byte) error { return c.sendCopy(ctx, TypeBinary, p) }

func (c *Conn) sendCopy(ctx context.Context, t Type, p []byte) error {
	if !c.loop.Friend(friend.Key{}).OnLoop() {
		return c.Send(ctx, NewMessage(t, append([]byte(nil), p...)))
	}
	if c.deflate.takesLong(len(p)) {
		return c.sendLong(ctx, NewMessage(t, p)) // p is not kept
	}
	if err := c.room(ctx, nil, t, len(p)); err != nil {
		return err
	}
	return c.messageOut(t, len(p), c.writeBytes(t, p))
}

// An outgoing is what waits to be sent: one of the two.
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

// waiting is how many bytes o counts for while it waits for the loop: an empty message
// takes memory too.
func (o outgoing) cost() int {
	_, n := o.typeAndLen()
	return n + headroom
}

func (o outgoing) drop() {
	if o.m != nil {
		o.m.Release()
	}
}

// send is Send for either.
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

// write queues o, for which there is room.
func (c *Conn) write(o outgoing) error {
	t, n := o.typeAndLen()
	if o.m != nil {
		return c.messageOut(t, n, c.writeMessage(o.m))
	}
	return c.messageOut(t, n, c.writePrepared(o.prepared))
}

// messageOut tells the hook of a message that was queued, if err is nil, and
// returns err. It comes last: a hook that panics leaves nothing half done.
func (c *Conn) messageOut(t Type, bytes int, err error) error {
	if hook := c.opts.Hooks.MessageSent; hook != nil && err == nil {
		hook(c, t, bytes)
	}
	return err
}

// roomFor is room for m, which it takes out of its handler's hands, and releases if
// it is not to be sent: also when a hook panics meanwhile.
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

// room waits until a message may be queued, on the loop, or says why it must
// not. What others have sent before, from elsewhere, is queued then. w is the Writer
// whose message goes on, if it is one of its parts.
func (c *Conn) room(ctx context.Context, w *Writer, t Type, bytes int) error {
	var before uint64
	r := c.remote.Load()
	if r != nil {
		before = r.accepted.Load()
	}
	yielded := int64(-1) // how much was queued when others had a turn
	for turns := 0; ; {
		if err := c.sendErr(); err != nil {
			return err
		}
		if c.ending && w == nil { // Close waits for the Writer that has begun, and comes next
			return errClosed
		}
		if c.writer != w { // a message in parts goes on
			if w != nil {
				return errWriterDone // it was ended meanwhile
			}
			if err := c.wait(ctx, w, &c.unlocked); err != nil {
				return err
			}
			continue
		}
		err := c.stream.Friend(friend.Key{}).WriteErr()
		if err == nil && !c.overBudget() {
			if c.pongDue {
				c.answerLatestPing() // what was asked before is answered before
			}
			if w == nil && r != nil && r.moved.Load() < before {
				c.ahead(r, before)
				if c.deflate != nil && r.moved.Load() < before { // others have their turn
					_ = loop.Yield(ctx) // that ctx has ended changes nothing
				}
				continue
			}
			return nil
		}
		if err != nil && !errors.Is(err, runtime.ErrBusy) {
			return c.sendFailed(err)
		}
		if c.opts.Policy != PolicyWait && yielded != c.written && turns < maxTurns {
			// What one turn queues cannot have left yet, however fast the peer is; nor what
			// others have queued in this one, for which there was room.
			yielded = c.written
			turns++
			if err := loop.Yield(ctx); err != nil {
				return err
			}
			continue
		}
		switch c.opts.Policy {
		case PolicyDrop:
			if w == nil { // half a message cannot be dropped
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

// maxTurns is how many turns of the loop a message may have to wait, where a Policy
// drops it rather, while others' messages take the room.
const maxTurns = 8

func (c *Conn) dropped(t Type, bytes int) {
	if hook := c.opts.Hooks.MessageDropped; hook != nil {
		hook(c, t, bytes)
	}
}

// wait waits for one of the sources, no longer than WriteTimeout, and not when the
// connection has ended: then who is to make room has perhaps gone. While another
// Writer than w, which may be nil, is at work, it is not the peer that is waited
// for, and there is no limit. Whoever calls it looks again at what it waits for.
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

// sent is called when something that was queued has gone.
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
