package ws

import (
	"fmt"
	"sync/atomic"

	"github.com/noria-go/noria/loop"
)

// A Budget bounds the bytes that wait to be sent on many connections together. Servers
// and loops may share it, and its methods may be called from anywhere. A connection for
// which nothing waits may always send one message, so peers that read are served while
// slow peers use up the Budget; Options.Policy says what happens to the slow ones. If
// other threads send on a connection, one more message may wait for it.
type Budget struct {
	limit int64
	used  atomic.Int64
	room  loop.Event
	short atomic.Bool // a connection waits for room
}

// NewBudget returns a Budget of this many bytes. It panics if that is not positive.
func NewBudget(bytes int64) *Budget {
	if bytes <= 0 {
		panic(fmt.Sprintf("ws: a Budget of %d bytes", bytes))
	}
	return &Budget{limit: bytes}
}

// Used returns how many bytes wait now.
func (b *Budget) Used() int64 { return b.used.Load() }

// add adds n, which may be negative, to the bytes in use.
func (b *Budget) add(n int64) {
	if b.used.Add(n) < b.limit && n < 0 && b.short.Load() {
		b.short.Store(false)
		b.room.Set()
	}
}

func (b *Budget) full() bool { return b.used.Load() >= b.limit }

// wantRoom prepares to wait for the event room, and reports whether there is no room now.
// Room that is made after that sets the event.
func (b *Budget) wantRoom() bool {
	b.room.Clear()
	b.short.Store(true)
	if b.full() {
		return true
	}
	b.room.Set() // Clear may have hidden it from other connections that wait
	return false
}

// charge updates the connection's share of its Budget. It must be called on the loop.
func (c *Conn) charge() {
	b := c.opts.Budget
	if b == nil {
		return
	}
	if n := int64(c.stream.Queued()); n != c.charged {
		b.add(n - c.charged)
		c.charged = n
	}
}

func (c *Conn) overBudget() bool {
	b := c.opts.Budget
	return b != nil && b.full() && c.stream.Queued() > 0
}
