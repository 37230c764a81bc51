package ws

import "fmt"

// Values of Message.away: what happened to a message that was released
// elsewhere than on its loop, or that its handler forgot.
const (
	awayReleased = iota + 1
	awayReclaimed
)

// link notes that the handler has m.
func (c *Conn) link(m *Message) { c.held.PushFront(&m.node, m) }

func (c *Conn) unlink(m *Message) { c.held.Remove(&m.node) }

// returned takes note of a message that was released on another thread. Its
// place in the list of held ones is the loop's to change.
func (c *Conn) returned(m *Message) {
	for {
		top := c.foreign.Load()
		m.nextAway = top
		if c.foreign.CompareAndSwap(top, m) {
			return
		}
	}
}

// collect unlinks what other threads have released.
func (c *Conn) collect() {
	m := c.foreign.Swap(nil)
	for m != nil {
		next := m.nextAway
		c.unlink(m)
		m.conn, m.nextAway = nil, nil // and left to the garbage collector
		m = next
	}
}

// reclaim takes back the messages that the handler still has when it has
// returned.
func (c *Conn) reclaim() {
	c.letGo()
	n, first := 0, ""
	for m := range c.held.All() {
		if m.away.CompareAndSwap(0, awayReclaimed) {
			if n++; n == 1 {
				first = fmt.Sprintf("%s of %d bytes", m.typ, m.size)
				if m.from != "" {
					first += ", received at\n" + m.from
				}
			}
			m.local = nil // whoever still has it must not find it in use again
			c.unlink(m)
			m.eachSegment(func(s *segment) { c.frames.release(s.buf) })
			m.first, m.rest, m.conn = segment{}, nil, nil
		}
	}
	if n > 0 {
		c.opts.Logger.Warn("noria: a handler returned without releasing what it received; it was reclaimed",
			"peer", c.RemoteAddr().String(), "messages", n, "first", first)
	}
}

// letGo gives back what the connection itself holds. Messages that somebody has
// received are not of that.
func (c *Conn) letGo() {
	if c.foreign.Load() != nil {
		c.collect()
	}
	c.dropReceived()
	c.deflate.close()
}

// dropReceived gives up what was received and is with nobody yet.
func (c *Conn) dropReceived() {
	if r := c.reader; r != nil {
		why := c.readErr
		if why == nil {
			why = errClosed // what comes of its message is dropped
		}
		r.giveUp(why)
		if r.over == nil && !r.lent {
			r.over = why
		}
		c.reader = nil
	}
	for len(c.stash) > 0 {
		c.unstash().free()
	}
	c.dropPartial()
}

// dropPartial gives up what there is of the message that is being received, of which
// nobody wants the rest.
func (c *Conn) dropPartial() {
	if d := c.deflate; d != nil {
		d.drop(c)
	}
	if c.msg != nil {
		c.msg.free()
		c.msg = nil
	}
}
