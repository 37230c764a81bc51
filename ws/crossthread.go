package ws

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// A crossQueue is a connection's cross-thread queue: the messages that other threads
// (goroutines, and tasks of other loops) send on it. They append to the queue under a mutex
// that is never held while anything waits. takeCross, a function that they post to the
// loop, moves the messages into the stream as far as that has room. At most one takeCross
// is posted at a time.
type crossQueue struct {
	mu     sync.Mutex
	items  []outgoing // queued from head on
	head   int
	bytes  int         // cost of the queued items
	posted bool        // takeCross is posted, or waits for room or for a Writer
	stuck  bool        // takeCross waits for room: the peer does not keep up
	err    error       // why nothing more is accepted
	room   *loop.Event // wakes senders, and is then replaced; nil: none waits

	// How many items were ever queued, and how many of those were taken out again.
	accepted, moved atomic.Uint64
}

// needCross returns the cross-thread queue, and makes it if need be.
func (c *Conn) needCross() *crossQueue {
	if r := c.cross.Load(); r != nil {
		return r
	}
	r := &crossQueue{}
	if c.cross.CompareAndSwap(nil, r) {
		return r
	}
	return c.cross.Load()
}

// sendCross is send for another thread: it appends o to the cross-thread queue. While the
// queue is full because of the peer, it applies Options.Policy. A message that takes long
// to compress is not queued but sent by a task of the loop, which can yield to other tasks.
func (c *Conn) sendCross(ctx context.Context, o outgoing) error {
	r := c.needCross()
	if c.gone.Load() { // the queue may have been made after the connection was closed
		r.refuse(errClosed)
	}
	t, n := o.typeAndLen()
	if o.m != nil && c.deflate.takesLong(n) {
		return c.callLoop(ctx, "send", func(ctx context.Context) error { return c.Send(ctx, o.m) })
	}
	var since time.Time // when this caller began to wait because of the peer
	for {
		r.mu.Lock()
		if r.err != nil {
			err := r.err
			r.mu.Unlock()
			o.drop()
			return err
		}
		full := r.bytes >= c.opts.SendQueue
		broke := !full && r.bytes > 0 && c.opts.Budget != nil && c.opts.Budget.full()
		if !full && !broke {
			err := c.put(r, o)
			r.mu.Unlock()
			if err != nil {
				o.drop()
			}
			return err
		}
		if r.room == nil {
			r.room = &loop.Event{}
		}
		room := r.room
		policy := c.opts.Policy
		if !r.stuck {
			policy = PolicyWait // the loop's next turn or a Writer is the cause, not the peer
			since = time.Time{}
		} else if since.IsZero() {
			since = time.Now()
		}
		r.mu.Unlock()
		switch policy {
		case PolicyDrop:
			o.drop()
			_ = c.post(func() { c.dropped(t, n) }) // no hook is called if the loop has ended
			return ErrDropped
		case PolicyDisconnect:
			o.drop()
			_ = c.post(func() { _ = c.tooSlow(); c.failCross(ErrTooSlow) }) // if the loop has ended, so has the connection
			return ErrTooSlow
		}
		sources := []loop.Source{room}
		if broke {
			if !c.opts.Budget.wantRoom() {
				continue
			}
			sources = append(sources, &c.opts.Budget.room)
		}
		wctx, cancel := ctx, context.CancelFunc(func() {})
		if d := c.opts.WriteTimeout; d > 0 && !since.IsZero() {
			wctx, cancel = context.WithDeadline(ctx, since.Add(d))
		}
		_, err := loop.WaitAny(wctx, sources...)
		cancel()
		if err != nil {
			o.drop()
			switch {
			case ctxErr(ctx) != nil:
				return ctxErr(ctx)
			case errors.Is(err, context.DeadlineExceeded):
				_ = c.post(func() { _ = c.giveUp(ErrTooSlow); c.failCross(ErrTooSlow) })
				return fmt.Errorf("%w: no room to send for %v", ErrTooSlow, c.opts.WriteTimeout)
			}
			return fmt.Errorf("ws: send: %w", err)
		}
	}
}

// put appends o. The caller holds r.mu.
func (c *Conn) put(r *crossQueue, o outgoing) error {
	if !r.posted {
		if c.post(c.takeCross) != nil { // the loop has ended
			return fmt.Errorf("ws: send: %w", errClosed)
		}
		r.posted = true
	}
	r.accepted.Add(1)
	n := o.cost()
	r.items = append(r.items, o)
	r.bytes += n
	if b := c.opts.Budget; b != nil {
		b.add(int64(n))
	}
	return nil
}

// takeCross moves messages from the cross-thread queue into the stream. The loop calls it.
func (c *Conn) takeCross() {
	r := c.cross.Load()
	packed := 0 // bytes that were compressed in this turn
	for {
		err := c.sendErr()
		if err == nil {
			werr := c.stream.Friend(key).WriteErr()
			full := errors.Is(werr, runtime.ErrBusy)
			switch {
			case c.writer != nil:
				c.behind = true   // unlock makes the loop call takeCross again
				r.setStuck(false) // the Writer is the cause, not the peer
				return
			case werr != nil && !full:
				err = c.sendFailed(werr)
			case !full && !c.overBudget():
				// There is room.
			case r.unpostIfEmpty():
				return // no room, but nothing is queued
			case c.over.IsSet():
				err = c.readErr // the connection has ended: there may never be room
			case !c.waited:
				c.waited = true // bytes queued in this turn cannot have left yet, however fast the peer is
				c.nextTurn(c.takeCross)
				return
			default:
				r.setStuck(true)
				if full {
					c.loop.Friend(key).Notify(c.writable, c.takeCross)
				} else {
					c.short = true // onSent continues: room in the Budget does not help until this peer reads
				}
				return
			}
		}
		if err != nil {
			c.failCross(err)
			return
		}
		c.waited = false
		r.setStuck(false)
		if packed >= deflateTurn { // let other tasks run
			c.nextTurn(c.takeCross)
			return
		}
		o, ok := c.pop(r)
		if !ok {
			return
		}
		if c.pongDue {
			c.answerLatestPing()
		}
		packed += c.writeCross(o)
	}
}

// overtakes reports whether a message that is queued in the stream now would overtake
// messages of the cross-thread queue.
func (c *Conn) overtakes() bool {
	r := c.cross.Load()
	return r != nil && r.moved.Load() != r.accepted.Load()
}

// ahead moves items into the stream, as far as that has room, until r.moved reaches
// until. The Sends of these items have returned, so they precede what a task of the
// loop is about to send.
func (c *Conn) ahead(r *crossQueue, until uint64) {
	packed := 0
	for packed < deflateTurn && r.moved.Load() < until && c.stream.Friend(key).WriteErr() == nil && !c.overBudget() {
		o, ok := c.pop(r)
		if !ok {
			return
		}
		packed += c.writeCross(o)
	}
}

// takeAll moves all items into the stream, even if the stream's queue is full: the messages
// were accepted, and a Close frame must follow them. At most twice Options.SendQueue bytes and two messages are
// queued then.
func (c *Conn) takeAll(r *crossQueue) {
	for c.sendErr() == nil {
		if err := c.stream.Friend(key).WriteErr(); err != nil && !errors.Is(err, runtime.ErrBusy) {
			return
		}
		o, ok := c.pop(r)
		if !ok {
			return
		}
		c.writeCross(o)
	}
}

// writeCross queues o in the stream, and returns how many bytes it had to compress. Its
// error is kept in the connection for the next call that sends. If a hook panics,
// takeCross continues with the rest of the queue in the next turn.
func (c *Conn) writeCross(o outgoing) (packed int) {
	if _, n := o.typeAndLen(); c.deflate.compresses(n) {
		packed = n
	}
	returned := false
	defer func() {
		if !returned {
			c.nextTurn(c.takeCross)
		}
	}()
	_ = c.write(o)
	returned = true
	return packed
}

// pop takes the oldest item. If there is none, the next put posts takeCross again.
func (c *Conn) pop(r *crossQueue) (o outgoing, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unpostIfEmptyLocked() {
		return o, false
	}
	o = r.items[r.head]
	r.items[r.head] = outgoing{}
	r.head++
	r.moved.Add(1)
	n := o.cost()
	r.bytes -= n
	if b := c.opts.Budget; b != nil {
		b.add(-int64(n))
	}
	if r.bytes < c.opts.SendQueue {
		r.wakeSenders()
	}
	return o, true
}

// failCross makes later sends of other threads fail with err, and drops what the
// cross-thread queue holds.
func (c *Conn) failCross(err error) {
	r := c.needCross()
	r.refuse(err)
	for {
		o, ok := c.pop(r)
		if !ok {
			break
		}
		o.drop()
	}
}

// endCross is called when receiving has ended. It fails the cross-thread queue if nothing
// can be sent any more, or if the queue waits for room that the peer may never make.
func (c *Conn) endCross() {
	r := c.cross.Load()
	r.mu.Lock()
	stuck := r.stuck
	r.mu.Unlock()
	err := c.sendErr()
	if err == nil && stuck {
		err = c.readErr
	}
	if err != nil {
		c.failCross(err)
	}
}

// setStuck records whether takeCross waits for the peer, and wakes senders if that changes.
func (r *crossQueue) setStuck(stuck bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stuck != stuck {
		r.stuck = stuck
		r.wakeSenders()
	}
}

// unpostIfEmpty reports whether the queue is empty. If so, takeCross counts as done, and
// the next put posts it again.
func (r *crossQueue) unpostIfEmpty() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unpostIfEmptyLocked()
}

// unpostIfEmptyLocked is unpostIfEmpty for a caller that holds r.mu.
func (r *crossQueue) unpostIfEmptyLocked() bool {
	if r.head < len(r.items) {
		return false
	}
	r.items, r.head, r.posted = r.items[:0], 0, false
	if cap(r.items) > 1024 {
		r.items = nil
	}
	return true
}

// wakeSenders wakes all senders that wait for room. The caller holds r.mu.
func (r *crossQueue) wakeSenders() {
	if r.room != nil {
		r.room.Set()
		r.room = nil
	}
}

// refuse makes later sends of other threads fail with err.
func (r *crossQueue) refuse(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
		r.wakeSenders()
	}
}
