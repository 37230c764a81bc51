package ws

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// A remote is the queue of what other threads send on a connection: goroutines,
// and tasks of other loops. They put into it under a mutex that nobody holds
// while waiting, and one function at a time is posted to the loop, which moves
// what is there into the stream as far as that has room.
type remote struct {
	mu     sync.Mutex
	items  []outgoing // from head on
	head   int
	bytes  int
	posted bool // the loop will look, or waits for room
	stuck  bool // it waits for room: the peer does not keep up
	err    error
	room   *loop.Event // set, and replaced, when somebody should look again; nil: nobody waits

	// How many were ever put, and how many of them were taken out again.
	accepted, moved atomic.Uint64
}

// remoteQueue returns c's, which is made when it is first needed.
func (c *Conn) remoteQueue() *remote {
	if r := c.remote.Load(); r != nil {
		return r
	}
	r := &remote{}
	if c.remote.CompareAndSwap(nil, r) {
		return r
	}
	return c.remote.Load()
}

// sendElsewhere queues o from another thread. What takes long to compress is not
// queued, but sent by a task, which can let others have their turn.
func (c *Conn) sendElsewhere(ctx context.Context, o outgoing) error {
	r := c.remoteQueue()
	if c.gone.Load() { // r may be newer than that
		r.refuse(errClosed)
	}
	t, n := o.typeAndLen()
	if o.m != nil && c.deflate.takesLong(n) {
		return c.elsewhere(ctx, "send", func(ctx context.Context) error { return c.Send(ctx, o.m) })
	}
	var since time.Time // when the peer began to keep this caller waiting
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
			policy = PolicyWait // for the loop's next turn, or a Writer: the peer is not to blame
			since = time.Time{}
		} else if since.IsZero() {
			since = time.Now()
		}
		r.mu.Unlock()
		switch policy {
		case PolicyDrop:
			o.drop()
			_ = c.post(func() { c.dropped(t, n) }) // a loop that has ended calls no hook
			return ErrDropped
		case PolicyDisconnect:
			o.drop()
			_ = c.post(func() { _ = c.tooSlow(); c.failRemote(ErrTooSlow) }) // a loop that has ended has closed it
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
				_ = c.post(func() { _ = c.giveUp(ErrTooSlow); c.failRemote(ErrTooSlow) })
				return fmt.Errorf("%w: no room to send for %v", ErrTooSlow, c.opts.WriteTimeout)
			}
			return fmt.Errorf("ws: send: %w", err)
		}
	}
}

// put appends o, under r.mu.
func (c *Conn) put(r *remote, o outgoing) error {
	if !r.posted {
		if c.post(c.takeRemote) != nil { // the loop has ended
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

// takeRemote moves what other threads have queued into the stream, on the loop.
func (c *Conn) takeRemote() {
	r := c.remote.Load()
	packed := 0 // bytes that were compressed in this turn
	for {
		err := c.sendErr()
		if err == nil {
			werr := c.stream.Friend(friend.Key{}).WriteErr()
			full := errors.Is(werr, runtime.ErrBusy)
			switch {
			case c.writer != nil:
				c.behind = true // unlock has it called again
				r.wait(false)   // and it is not the peer that is waited for
				return
			case werr != nil && !full:
				err = c.sendFailed(werr)
			case !full && !c.overBudget():
				// There is room.
			case r.rest():
				return // and nobody needs it
			case c.over.IsSet():
				err = c.readErr // nobody knows whether there will be room
			case !c.waited:
				c.waited = true // what one turn queues cannot have left yet, however fast the peer is
				c.loop.Friend(friend.Key{}).NextTurn(c.takeRemote)
				return
			default:
				r.wait(true)
				if full {
					c.loop.Friend(friend.Key{}).Notify(c.writable, c.takeRemote)
				} else {
					c.short = true // sent goes on: others' room is of no use while this peer takes nothing
				}
				return
			}
		}
		if err != nil {
			c.failRemote(err)
			return
		}
		c.waited = false
		r.wait(false)
		if packed >= deflateTurn { // others have their turn
			c.loop.Friend(friend.Key{}).NextTurn(c.takeRemote)
			return
		}
		o, ok := c.pop(r)
		if !ok {
			return
		}
		if c.pongDue {
			c.answerLatestPing()
		}
		packed += c.writeRemote(o)
	}
}

// overtaken reports whether others have sent before what the loop's tasks send now.
func (c *Conn) overtaken() bool {
	r := c.remote.Load()
	return r != nil && r.moved.Load() != r.accepted.Load()
}

// ahead moves the first items, until as many as that were ever moved, into the stream,
// as far as that has room: what one of the loop's tasks is about to send comes after
// them, since their Send has returned.
func (c *Conn) ahead(r *remote, until uint64) {
	packed := 0
	for packed < deflateTurn && r.moved.Load() < until && c.stream.Friend(friend.Key{}).WriteErr() == nil && !c.overBudget() {
		o, ok := c.pop(r)
		if !ok {
			return
		}
		packed += c.writeRemote(o)
	}
}

// takeAll moves all that other threads have queued into the stream, also if that
// is full: it was accepted, and a Close frame is to follow it. At most twice
// Options.SendQueue bytes wait then, and two messages.
func (c *Conn) takeAll(r *remote) {
	for c.sendErr() == nil {
		if err := c.stream.Friend(friend.Key{}).WriteErr(); err != nil && !errors.Is(err, runtime.ErrBusy) {
			return
		}
		o, ok := c.pop(r)
		if !ok {
			return
		}
		c.writeRemote(o)
	}
}

// writeRemote queues o. An error stays: what is sent next sees it. After a hook
// that panics, the rest of the queue goes on in the next turn. packed is how many bytes
// had to be compressed.
func (c *Conn) writeRemote(o outgoing) (packed int) {
	if _, n := o.typeAndLen(); c.deflate.compresses(n) {
		packed = n
	}
	returned := false
	defer func() {
		if !returned {
			c.loop.Friend(friend.Key{}).NextTurn(c.takeRemote)
		}
	}()
	_ = c.write(o)
	returned = true
	return packed
}

// pop takes the oldest; if there is none, nobody looks until one is put.
func (c *Conn) pop(r *remote) (o outgoing, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.drained() {
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
		r.tell()
	}
	return o, true
}

// failRemote refuses what other threads send from now on, and drops what they
// have queued.
func (c *Conn) failRemote(err error) {
	r := c.remoteQueue()
	r.refuse(err)
	for {
		o, ok := c.pop(r)
		if !ok {
			break
		}
		o.drop()
	}
}

// endRemote is called when the connection has ended, and receiving with it: if
// nothing can be sent any more, or there is no room for it, nobody waits on.
func (c *Conn) endRemote() {
	r := c.remote.Load()
	r.mu.Lock()
	stuck := r.stuck // and until the half of what is queued has gone
	r.mu.Unlock()
	err := c.sendErr()
	if err == nil && stuck {
		err = c.readErr
	}
	if err != nil {
		c.failRemote(err)
	}
}

// wait notes whether the stream is full; those that put are to know.
func (r *remote) wait(stuck bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stuck != stuck {
		r.stuck = stuck
		r.tell()
	}
}

// rest reports whether there is nothing: then nobody looks until something is put.
func (r *remote) rest() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.drained()
}

// drained is rest, under r.mu.
func (r *remote) drained() bool {
	if r.head < len(r.items) {
		return false
	}
	r.items, r.head, r.posted = r.items[:0], 0, false
	if cap(r.items) > 1024 {
		r.items = nil
	}
	return true
}

// tell has all that wait look again, under r.mu.
func (r *remote) tell() {
	if r.room != nil {
		r.room.Set()
		r.room = nil
	}
}

// refuse has what other threads send from now on fail.
func (r *remote) refuse(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
		r.tell()
	}
}
