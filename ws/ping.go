package ws

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws/internal/frame"
)

// A ping is a call of Ping that waits for its pong.
type ping struct {
	payload [8]byte
	ponged  loop.Event
	at      int64 // when the pong arrived, on the loop's clock
}

const (
	maxPings = 64
	maxStash = 16 // messages that are kept while a Ping waits
)

// Ping sends a ping, waits for its pong and returns how long that took; any goroutine and
// any loop's task may call it. ctx bounds the wait.
//
// The pong may arrive behind messages. If no other call receives, Ping decodes them, and
// keeps them for the next Receive. It keeps up to 16 messages, none longer than
// Options.MaxMessage, and none while a Reader is open. If no call receives the rest within
// Options.PongTimeout, Ping fails with runtime.ErrBusy. While it decodes, the read deadline
// ends it too.
func (c *Conn) Ping(ctx context.Context) (time.Duration, error) {
	if !c.onLoop() {
		return valueFromLoop(ctx, c, "ping", c.Ping)
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
		// A call that receives now may return before the pong arrives.
		all := []loop.Source{&p.ponged, &c.over, c.nextQuiet()}
		wctx, cancel := ctx, context.CancelFunc(func() {})
		switch {
		case c.takesIn() && c.paused: // the rest of a compressed message has arrived already
			c.paused = false
			if err := loop.Yield(ctx); err != nil {
				return 0, err
			}
			continue
		case c.takesIn():
			all = append(all, c.readable[0])
		case !c.busy: // perhaps this very caller should receive
			wctx, cancel = context.WithTimeout(ctx, c.opts.PongTimeout)
		}
		_, err := loop.WaitAny(wctx, all...)
		cancel()
		if err != nil {
			switch {
			case ctxErr(ctx) != nil:
				return 0, ctxErr(ctx)
			case errors.Is(err, context.DeadlineExceeded):
				return 0, fmt.Errorf("ws: ping: %w: the messages in front of the pong are not received: %d messages, or the rest of a Reader's", runtime.ErrBusy, len(c.stash))
			}
			return 0, fmt.Errorf("ws: ping: %w", err)
		}
		if c.readErr != nil && !p.ponged.IsSet() {
			return 0, c.readErr
		}
	}
}

// takesIn reports whether a Ping that waits may decode what arrives: no call receives,
// and the stash has room.
func (c *Conn) takesIn() bool {
	return !c.busy && c.reader == nil && len(c.stash) < maxStash && !c.long
}

// takeMore decodes what has arrived into the stash, up to maxStash messages. It fails if
// nothing more will be received, or the read deadline has passed.
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

// nextQuiet returns an event that is set when next a call stops receiving, or the stash
// gets room. It is a new event each time, so that no waiter clears it for another.
func (c *Conn) nextQuiet() *loop.Event {
	if c.quiet == nil {
		c.quiet = &loop.Event{}
	}
	return c.quiet
}

// tellQuiet sets the event of nextQuiet.
func (c *Conn) tellQuiet() {
	if q := c.quiet; q != nil {
		c.quiet = nil
		q.Set()
	}
}

// receivePong handles a pong. It answers the ping with the same payload, and those before
// it, which the peer may have left unanswered (RFC 6455, section 5.5.3).
func (c *Conn) receivePong(p []byte) {
	if c.pinged {
		c.pinged, c.silent, c.lastSeen = false, 0, c.stream.Friend(key).Received()
		c.alive.Set(c.opts.PingInterval / aliveChecks)
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

// answerPing answers a ping. If maxPongs bytes of pongs wait to be sent, it answers only
// the newest ping, once those have left.
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
		c.stream.Friend(key).OnSent(c.onSent)
		return
	}
	if c.queueControl(frame.Pong, p) == nil {
		c.pongs += len(p) + 2
		c.pongEnd = c.written
	}
}

func (c *Conn) pongsGone() bool { return c.written-int64(c.stream.Queued()) >= c.pongEnd }

// answerLatestPing answers the ping that answerPing has put off.
func (c *Conn) answerLatestPing() {
	c.pongDue = false
	if c.sentClose == 0 && c.queueControl(frame.Pong, c.pending) == nil {
		c.pongs += len(c.pending) + 2
		c.pongEnd = c.written
	}
	c.pending = nil
}

// aliveChecks is how many times in an interval keep-alive compares byte counts. A check
// tells that something has arrived since the last one, and not when: so a ping is late by
// up to one check.
const aliveChecks = 4

// keepAlive starts to watch whether the peer is alive. One timer for each connection fires
// aliveChecks times in an interval and compares byte counts, so traffic costs nothing.
func (c *Conn) keepAlive() {
	if c.opts.PingInterval < 0 {
		return
	}
	c.alive.Init(c.loop, c.checkAlive)
	c.lastSeen = c.stream.Friend(key).Received() // the handshake
	c.alive.Set(c.opts.PingInterval / aliveChecks)
}

func (c *Conn) checkAlive() {
	if c.closed || c.readErr != nil || c.sentClose != 0 { // CloseTimeout bounds the rest
		return
	}
	c.stream.Friend(key).ReadAhead() // pongs must count even if no call receives
	seen := c.stream.Friend(key).Received()
	if seen != c.lastSeen || c.stream.Buffered() > 0 && c.pinged {
		// The peer is alive. Or the handler has not read all that arrived, so that
		// further bytes may have to wait in the kernel.
		c.lastSeen, c.pinged, c.silent = seen, false, 0
		c.alive.Set(c.opts.PingInterval / aliveChecks)
		return
	}
	if c.pinged {
		_ = c.giveUp(fmt.Errorf("%w: nothing has arrived for %v", ErrPongTimeout, c.opts.PingInterval+c.opts.PongTimeout))
		return
	}
	if c.silent++; c.silent < aliveChecks {
		c.alive.Set(c.opts.PingInterval / aliveChecks)
		return
	}
	c.pinged = true
	var payload [8]byte
	_ = c.queueControl(frame.Ping, payload[:]) // if this fails, the peer must still not be silent
	c.alive.Set(c.opts.PongTimeout)
}
