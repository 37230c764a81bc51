package echobench

import (
	"bytes"
	"fmt"

	"github.com/noria-go/noria/runtime"
)

// A clientConn keeps its messages in flight: it sends as many as it may, and
// another for each echo. Echoes that arrive together are answered by one send.
type clientConn struct {
	client  *client
	script  *script
	connect runtime.Op
	send    runtime.Op
	recv    runtime.Op
	opening bool   // until the upgrade is complete
	head    []byte // the server's answer to the upgrade, so far

	replies replies
	left    int64 // messages still to be sent; negative means no limit
	free    int   // messages that may be sent now
	away    int   // messages in flight, including those being sent
	checked int   // bytes of the script's replies that have arrived in this batch
	sentAt  times
}

func newClientConn(c *client, s *script) *clientConn {
	k := &clientConn{client: c, script: s, replies: replies{traffic: c.traffic}}
	k.sentAt.made = make([]batch, c.cfg.outstanding)
	return k
}

func (k *clientConn) open(addr runtime.Addr) {
	k.connect = runtime.Op{Code: runtime.OpConnect, Addr: addr, Done: k.connected}
	k.client.rt.Submit(&k.connect)
}

func (k *clientConn) connected(op *runtime.Op) {
	c := k.client
	err := op.Err
	if err == nil {
		err = c.rt.SetOption(op.Got, runtime.OptNoDelay, 1)
	}
	if err != nil {
		c.fail(fmt.Errorf("connect to %s: %w", op.Addr, err))
		return
	}
	k.recv = runtime.Op{Code: runtime.OpRecvMany, Handle: op.Got, Done: k.received}
	k.send = runtime.Op{Code: runtime.OpSend, Handle: op.Got, Done: k.sent}
	c.rt.Submit(&k.recv)
	if c.cfg.proto == protoWS {
		k.opening = true
		k.send.Buf = runtime.NewShared(upgradeRequest(c.cfg.address))
		c.rt.Submit(&k.send)
		return
	}
	c.ended(c.rt.Now())
}

// begin starts a task. No message is in flight.
func (k *clientConn) begin(now, each int64) {
	k.left, k.free, k.checked = each, k.client.cfg.outstanding, 0
	k.send.Buf = k.script.requests
	k.next(now)
}

// next sends as many messages as it may, if there is more to do.
func (k *clientConn) next(now int64) {
	if k.send.InFlight() {
		return // sent calls next again
	}
	n := k.free
	if k.left >= 0 {
		n = int(min(int64(n), k.left))
	}
	if k.client.stopping {
		n = 0
	}
	if n == 0 {
		if k.away == 0 {
			k.client.ended(now)
		}
		return
	}
	if k.left > 0 {
		k.left -= int64(n)
	}
	k.free -= n
	k.away += n
	k.sentAt.add(now, n)
	k.send.Skip = k.send.Buf.Len() - n*k.script.request
	k.client.rt.Submit(&k.send)
}

func (k *clientConn) sent(op *runtime.Op) {
	if op.Err != nil {
		k.client.fail(op.Err)
		return
	}
	if op.Skip += op.N; op.Skip < op.Buf.Len() {
		k.client.rt.Submit(op)
		return
	}
	// The echo may arrive before the send completes. Then received could send
	// nothing, and this continues.
	switch {
	case k.opening:
		if err := k.opened(); err != nil {
			k.client.fail(err)
		}
	case k.away == 0, k.free > 0 && !k.client.task.verify:
		k.next(k.client.rt.Now())
	}
}

func (k *clientConn) received(op *runtime.Op) {
	if !op.More {
		k.client.fail(fmt.Errorf("the server ended a connection: %w", op.Err))
		return
	}
	n, err := k.take(op.Buf.Bytes())
	op.Buf.Release()
	if err != nil {
		k.client.fail(err)
	} else if n > 0 {
		k.back(n)
	}
}

// take checks the bytes that arrived and returns how many echoes they complete.
func (k *clientConn) take(p []byte) (int, error) {
	c := k.client
	if k.opening {
		k.head = append(k.head, p...)
		return 0, k.opened()
	}
	if extra := len(p) - (k.away*c.traffic.reply - k.replies.at); extra > 0 {
		return 0, fmt.Errorf("the server sent %d bytes more than it received", extra)
	}
	if c.task.verify {
		due := k.script.replies[k.checked:]
		if i := differ(p, due); i >= 0 {
			return 0, fmt.Errorf("the server sent other bytes than it received, from byte %d on", k.checked+i)
		}
		k.checked += len(p)
	}
	return k.replies.whole(p)
}

// opened ends the opening once the answer has arrived and the send has completed.
func (k *clientConn) opened() error {
	if k.send.InFlight() {
		return nil
	}
	done, err := upgraded(k.head)
	if done {
		k.opening, k.head = false, nil
		k.client.ended(k.client.rt.Now())
	}
	return err
}

// differ returns the first index at which p differs from the start of due, or -1.
func differ(p, due []byte) int {
	if bytes.HasPrefix(due, p) {
		return -1
	}
	for i := range p {
		if i == len(due) || p[i] != due[i] {
			return i
		}
	}
	return -1
}

// back handles n echoes that are complete.
func (k *clientConn) back(n int) {
	c := k.client
	now := c.rt.Now()
	k.away -= n
	k.free += n
	c.messages += int64(n)
	for n > 0 {
		at, count := k.sentAt.take(n)
		c.hist.add(now-at, count)
		n -= count
	}
	if c.turnAt != 0 && now >= c.turnAt {
		c.turn(now)
	}
	if c.task.verify && k.away > 0 {
		return // the rest of the script is compared first
	}
	k.checked = 0
	k.next(now)
}

// times are the send times of the messages in flight, a ring of batches. A batch is
// the messages of one send.
type times struct {
	made        []batch
	first, used int
}

type batch struct {
	at    int64
	count int
}

func (t *times) add(at int64, count int) {
	i := t.first + t.used
	if i >= len(t.made) {
		i -= len(t.made)
	}
	t.made[i] = batch{at, count}
	t.used++
}

// take removes up to n messages of the oldest batch.
func (t *times) take(n int) (at int64, count int) {
	b := &t.made[t.first]
	count = min(n, b.count)
	at = b.at
	if b.count -= count; b.count == 0 {
		if t.first++; t.first == len(t.made) {
			t.first = 0
		}
		t.used--
	}
	return at, count
}
