package ws

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws/internal/frame"
)

// A ping waits for its pong.
type ping struct {
	payload [8]byte
	ponged  loop.Event
	at      int64 // on the loop's clock, when it came
}

const (
	maxPings = 64
	maxStash = 16 // messages that are taken in while a Ping waits
)

// Ping sends a ping and waits for its pong, and returns how long that took.
// While it waits and nobody receives, it takes in what arrives: the next Receive
// finds it. It takes no more than 16 messages, none that is longer than
// Options.MaxMessage (which a Reader may want), and nothing while a Reader is open:
// if nobody receives those for PongTimeout, it fails with ErrBusy. Where it takes in
// what arrives, it is subject to the read deadline, as Receive is: one that has passed
// is to be moved before. It may be called from any goroutine and from tasks of any loop.
func (c *Conn) Ping(ctx context.Context) (time.Duration, error) {
	if !c.loop.Friend(friend.Key{}).OnLoop() {
		return fromElsewhere(ctx, c, "ping", c.Ping)
	}
	if err := c.sendErr(); err != nil {
		return 0, err
	}
	p := &ping{}
	c.pingSeq++
	binary.BigEndian.PutUint64(p.payload[:], c.pingSeq)
	if len(c.pings) >= maxPings {
		return 0, fmt.Errorf("ws: ping: %w: %d pings are not answered", runtime.ErrBusy, len(c.pings))
	}
	sent := c.loop.Now()
	if err := c.queueControl(frame.Ping, p.payload[:]); err != nil {
		if !errors.Is(err, runtime.ErrNoBuffers) {
			err = c.sendFailed(err)
		}
		return 0, fmt.Errorf("ws: ping: %w", err)
	}
	c.pings = append(c.pings, p)
	defer func() { c.pings = slices.DeleteFunc(c.pings, func(q *ping) bool { return p == q }) }()
	for {
		if c.takesIn() {
			if err := c.takeMore(); err != nil {
				return 0, err
			}
		}
		if p.ponged.IsSet() {
			return time.Duration(p.at - sent), nil
		}
		// Who receives may stop before the pong has come.
		all := []loop.Source{&p.ponged, &c.over, c.nextQuiet()}
		wctx, cancel := ctx, context.CancelFunc(func() {})
		switch {
		case c.takesIn() && c.paused: // inflating: what follows is here and was not looked at
			c.paused = false
			if err := loop.Yield(ctx); err != nil {
				return 0, err
			}
			continue
		case c.takesIn():
			all = append(all, c.readable[0])
		case !c.busy: // perhaps it is the caller who should receive
			wctx, cancel = context.WithTimeout(ctx, c.opts.PongTimeout)
		}
		_, err := loop.WaitAny(wctx, all...)
		cancel()
		if err != nil {
			switch {
			case ctxErr(ctx) != nil:
				return 0, ctxErr(ctx)
			case errors.Is(err, context.DeadlineExceeded):
				return 0, fmt.Errorf("ws: ping: %w: what came before the pong is not received: %d messages, or the rest of a Reader's", runtime.ErrBusy, len(c.stash))
			}
			return 0, fmt.Errorf("ws: ping: %w", err)
		}
		if c.readErr != nil && !p.ponged.IsSet() {
			return 0, c.readErr
		}
	}
}

// takesIn reports whether a Ping that waits may take in what arrives: nobody
// receives, and there is room for it.
func (c *Conn) takesIn() bool {
	return !c.busy && c.reader == nil && len(c.stash) < maxStash && !c.long
}

// takeMore takes in what has arrived while a Ping waits, up to maxStash messages. An
// error says why no more will, or not in time.
func (c *Conn) takeMore() error {
	for len(c.stash) < maxStash {
		m, err := c.assembleEarly()
		if err != nil || m == nil {
			return err
		}
		c.stash = append(c.stash, m)
	}
	return nil
}

// nextQuiet returns an event that is set when somebody stops receiving, the next
// time: each time has one of its own, so that it is set for all that wait for it.
func (c *Conn) nextQuiet() *loop.Event {
	if c.quiet == nil {
		c.quiet = &loop.Event{}
	}
	return c.quiet
}

// tellQuiet sets it.
func (c *Conn) tellQuiet() {
	if q := c.quiet; q != nil {
		c.quiet = nil
		q.Set()
	}
}

// ponged takes a pong. It answers the ping with its payload, and those before
// it, which the peer may have passed over (RFC 6455, section 5.5.3).
func (c *Conn) receivePong(p []byte) {
	if c.pinged {
		c.pinged = false
		c.alive.Set(c.opts.PingInterval)
	}
	for i, q := range c.pings {
		if bytes.Equal(q.payload[:], p) {
			for _, q := range c.pings[:i+1] {
				q.at = c.loop.Now()
				q.ponged.Set()
			}
			c.pings = slices.Delete(c.pings, 0, i+1)
			return
		}
	}
}

// maxPongs is how many bytes of pongs may wait to be sent before they coalesce: from
// then on the connection answers the newest ping only, once there is room (RFC 6455,
// section 5.5.3).
const maxPongs = 4 << 10

// pong answers a ping. Once maxPongs bytes of answers wait, only the newest
// ping is answered, when those have gone.
func (c *Conn) answerPing(p []byte) {
	if c.sentClose != 0 {
		return
	}
	if c.pongsGone() {
		c.pongs = 0
	}
	if c.pongDue || c.pongs+len(p) > maxPongs {
		c.pending = append(c.pending[:0], p...)
		c.pongDue = true
		c.stream.Friend(friend.Key{}).OnSent(c.onSent)
		return
	}
	if c.queueControl(frame.Pong, p) == nil {
		c.pongs += len(p) + 2
		c.pongEnd = c.written
	}
}

func (c *Conn) pongsGone() bool { return c.written-int64(c.stream.Queued()) >= c.pongEnd }

// answerLatestPing answers the newest ping.
func (c *Conn) answerLatestPing() {
	c.pongDue = false
	if c.sentClose == 0 && c.queueControl(frame.Pong, c.pending) == nil {
		c.pongs += len(c.pending) + 2
		c.pongEnd = c.written
	}
	c.pending = nil
}

// keepAlive begins to watch whether the peer is there. One timer a connection
// fires once an interval; traffic costs nothing.
func (c *Conn) keepAlive() {
	if c.opts.PingInterval < 0 {
		return
	}
	c.alive.Init(c.loop, c.checkAlive)
	c.alive.Set(c.opts.PingInterval)
}

func (c *Conn) checkAlive() {
	if c.closed || c.readErr != nil || c.sentClose != 0 { // Close has a time of its own
		return
	}
	c.stream.Friend(friend.Key{}).ReadAhead() // a handler that only sends must see pongs too
	seen := c.stream.Friend(friend.Key{}).Received()
	if seen != c.lastSeen || c.stream.Buffered() > 0 && c.pinged {
		// It is there; or it was, and the handler has not looked at all that it
		// has sent, and what comes now may have to wait in the kernel.
		c.lastSeen, c.pinged = seen, false
		c.alive.Set(c.opts.PingInterval)
		return
	}
	if c.pinged {
		_ = c.giveUp(fmt.Errorf("%w: nothing has come for %v", ErrPongTimeout, c.opts.PingInterval+c.opts.PongTimeout))
		return
	}
	c.pinged = true
	var payload [8]byte
	_ = c.queueControl(frame.Ping, payload[:]) // if it cannot be asked it must not be silent either
	c.alive.Set(c.opts.PongTimeout)
}
