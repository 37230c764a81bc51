package ws

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// What happens to a message for a slow peer. room decides for calls on the loop. For a call
// from another thread sendCross (crossthread.go) does, when the cross-thread queue is full
// because of the peer. The bounds are Options.SendQueue, which the stream enforces, and
// Options.Budget (budget.go).

// A Policy says what happens to a message for a peer that does not keep up: more than
// Options.SendQueue bytes wait for that peer already, or more than its Budget allows.
type Policy uint8

const (
	// PolicyWait makes Send wait for room, at most WriteTimeout.
	PolicyWait Policy = iota
	// PolicyDrop makes Send drop the message and return ErrDropped. A Writer waits as with
	// PolicyWait: a part of a message cannot be dropped.
	PolicyDrop
	// PolicyDisconnect makes Send close the connection with StatusPolicyViolation and
	// return ErrTooSlow.
	PolicyDisconnect
)

// room waits until a message may be queued, or returns why it must not. Messages that
// other threads sent before the call are queued by then. w is nil, or the Writer of whose
// message the next part is to be queued. room must be called in a task of the loop.
func (c *Conn) room(ctx context.Context, w *Writer, t Type, bytes int) error {
	var before uint64
	r := c.cross.Load()
	if r != nil {
		before = r.accepted.Load()
	}
	yielded := int64(-1) // c.written at the last yield
	for turns := 0; ; {
		if err := c.sendErr(); err != nil {
			return err
		}
		if c.closing && w == nil { // Close waits for the open Writer, and sends its frame next
			return errClosed
		}
		if c.writer != w { // another Writer is open, or w is not any more
			if w != nil {
				return errWriterDone
			}
			if err := c.waitToSend(ctx, w, &c.unlocked); err != nil {
				return err
			}
			continue
		}
		werr := c.stream.Friend(key).WriteErr()
		if werr == nil && !c.overBudget() {
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
		full := errors.Is(werr, runtime.ErrBusy)
		if werr != nil && !full {
			return c.sendFailed(werr)
		}
		if c.opts.Policy != PolicyWait && yielded != c.written && turns < maxTurns {
			// Bytes that were queued in this turn of the loop cannot have left yet, however
			// fast the peer is: the peer is not the cause of the wait.
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
		if !full { // the Budget has no room
			c.vacant.Clear()
			if !c.opts.Budget.wantRoom() || !c.overBudget() {
				continue
			}
			sources = []loop.Source{&c.opts.Budget.room, &c.vacant}
		}
		if err := c.waitToSend(ctx, w, sources...); err != nil {
			return err
		}
	}
}

// maxTurns is how many turns of the loop a message waits before PolicyDrop or
// PolicyDisconnect applies, if other messages take the room meanwhile.
const maxTurns = 8

// dropped calls the hook for a message that PolicyDrop has dropped. It must be called on
// the loop.
func (c *Conn) dropped(t Type, bytes int) {
	if hook := c.opts.Hooks.MessageDropped; hook != nil {
		hook(c, t, bytes)
	}
}

// waitToSend waits for one of the sources, at most WriteTimeout, and fails if the connection
// ends. There is no limit while another Writer than w, which may be nil, is open: the peer
// is not the cause of the wait. It may return early: the caller must look again.
func (c *Conn) waitToSend(ctx context.Context, w *Writer, sources ...loop.Source) error {
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

// tooSlow ends a connection whose peer does not keep up (PolicyDisconnect).
func (c *Conn) tooSlow() error {
	_ = c.sendClose(StatusPolicyViolation, "too slow")
	err := c.giveUp(ErrTooSlow)
	c.stream.Friend(key).SetLinger(time.Second) // a slow peer may still read up to the Close frame
	return err
}
