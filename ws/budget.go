package ws

import (
	"fmt"
	"sync/atomic"

	"github.com/noria-go/noria/loop"
)

// A Budget bounds the bytes that wait to be sent on many connections together.
// A connection for which nothing waits may always send one message, so peers
// that read go on when others have used the Budget up; for the others
// Options.Policy says what happens. Where other threads send, one message more
// may wait for a connection. It may be shared by servers and loops.
type Budget struct {
	limit int64
	used  atomic.Int64
	room  loop.Event
	short atomic.Bool // somebody waits for room
}

// NewBudget returns a Budget of this many bytes.
func NewBudget(bytes int64) *Budget {
	if bytes <= 0 {
		panic(fmt.Sprintf("ws: a Budget of %d bytes", bytes))
	}
	return &Budget{limit: bytes}
}

// Used returns how many bytes wait now.
func (b *Budget) Used() int64 { return b.used.Load() }

// add counts n bytes more, or less.
func (b *Budget) add(n int64) {
	if b.used.Add(n) < b.limit && n < 0 && b.short.Load() {
		b.short.Store(false)
		b.room.Set()
	}
}

func (b *Budget) full() bool { return b.used.Load() >= b.limit }

// wish is called before waiting for room, and reports whether there is none: what
// happens in between sets it.
func (b *Budget) wantRoom() bool {
	b.room.Clear()
	b.short.Store(true)
	if b.full() {
		return true
	}
	b.room.Set() // it was set for others too, who may not have seen it
	return false
}

// charge brings the connection's share of its Budget up to date, on the loop.
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
