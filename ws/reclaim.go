package ws

import "fmt"

// A handler that returns while it still has messages has forgotten them. The connection
// lists the messages that its handler has (Conn.held), takes back those that are left
// and logs a warning. Only the loop changes that list, so messages released by other
// threads wait in a second one (Conn.crossReleased) to be unlinked.

// Values of Message.away: another thread released the message, or the connection
// reclaimed it when its handler returned.
const (
	awayReleased = iota + 1
	awayReclaimed
)

// link notes that the handler has m now.
func (c *Conn) link(m *Message) { c.held.PushFront(&m.node, m) }

func (c *Conn) unlink(m *Message) { c.held.Remove(&m.node) }

// returned records that another thread has released m. The loop unlinks m later, in
// collect.
func (c *Conn) returned(m *Message) {
	for {
		top := c.crossReleased.Load()
		m.nextReleased = top
		if c.crossReleased.CompareAndSwap(top, m) {
			return
		}
	}
}

// collect unlinks the messages that other threads have released.
func (c *Conn) collect() {
	m := c.crossReleased.Swap(nil)
	for m != nil {
		next := m.nextReleased
		c.unlink(m)
		m.conn, m.nextReleased = nil, nil // m itself is left to the garbage collector
		m = next
	}
}

// reclaim releases everything that the connection holds, and the messages that its
// handler still has. The handler has returned.
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
			m.local = nil // m is not reused: a late use of it must not hit another message
			c.unlink(m)
			m.eachSegment(func(s *segment) { c.frames.release(s.buf) })
			m.first, m.rest, m.conn = segment{}, nil, nil
		}
	}
	if n > 0 {
		c.opts.Logger.Warn("noria: a handler returned without releasing its messages; they were reclaimed",
			"peer", c.RemoteAddr().String(), "messages", n, "first", first)
	}
}

// letGo releases what the connection itself holds. Messages that a caller has received
// stay valid.
func (c *Conn) letGo() {
	if c.crossReleased.Load() != nil {
		c.collect()
	}
	c.dropReceived()
	c.deflate.close()
}

// dropReceived drops what has arrived and no caller has received yet. An open Reader
// fails from now on.
func (c *Conn) dropReceived() {
	if r := c.reader; r != nil {
		why := c.readErr
		if why == nil {
			why = errClosed // Close drops the rest of its message
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

// dropPartial drops the message that has arrived in part.
func (c *Conn) dropPartial() {
	if d := c.deflate; d != nil {
		d.drop(c)
	}
	if c.msg != nil {
		c.msg.free()
		c.msg = nil
	}
}
