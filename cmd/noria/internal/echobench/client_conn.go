package echobench

import (
	"bytes"
	"fmt"

	"github.com/noria-go/noria/runtime"
)

// A clientConn sends a message, waits for all of it to come back, and sends
// it again.
type clientConn struct {
	client  *client
	payload *runtime.Buffer
	bytes   []byte // of the payload
	connect runtime.Op
	send    runtime.Op
	recv    runtime.Op
	got     int   // bytes of the message that have come back
	checked int   // messages that were compared
	left    int64 // messages still to be sent; negative: until told to stop
	sentAt  int64
}

func newClientConn(c *client, payload *runtime.Buffer) *clientConn {
	return &clientConn{client: c, payload: payload, bytes: payload.Bytes()}
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
	k.send = runtime.Op{Code: runtime.OpSend, Handle: op.Got, Buf: k.payload, Done: k.sent}
	c.rt.Submit(&k.recv)
	c.ended(c.rt.Now())
}

// next sends the message again, if there is more to do.
func (k *clientConn) next(now int64) {
	if k.left == 0 || k.client.stopping {
		k.client.ended(now)
		return
	}
	k.left--
	k.got, k.sentAt, k.send.Skip = 0, now, 0
	k.client.rt.Submit(&k.send)
}

func (k *clientConn) sent(op *runtime.Op) {
	if op.Err != nil {
		k.client.fail(op.Err)
		return
	}
	if op.Skip += op.N; op.Skip < len(k.bytes) {
		k.client.rt.Submit(op)
		return
	}
	k.whole()
}

func (k *clientConn) received(op *runtime.Op) {
	if !op.More {
		k.client.fail(fmt.Errorf("the server ended a connection: %w", op.Err))
		return
	}
	err := k.check(op)
	op.Buf.Release()
	if err != nil {
		k.client.fail(err)
		return
	}
	k.got += op.N
	k.whole()
}

func (k *clientConn) check(op *runtime.Op) error {
	if k.got+op.N > len(k.bytes) {
		return fmt.Errorf("the server sent %d bytes more than it was given", k.got+op.N-len(k.bytes))
	}
	if k.checked < verified && !bytes.Equal(op.Buf.Bytes(), k.bytes[k.got:k.got+op.N]) {
		return fmt.Errorf("the server sent something else than it was given, from byte %d on", k.got)
	}
	return nil
}

// whole goes on once the message has come back and the send of it is known to
// be over: the echo may be faster than that.
func (k *clientConn) whole() {
	if k.got < len(k.bytes) || k.send.InFlight() {
		return
	}
	c := k.client
	k.checked++
	now := c.rt.Now()
	c.messages++
	c.hist.add(now - k.sentAt)
	if c.turnAt != 0 && now >= c.turnAt {
		c.turn(now)
	}
	k.next(now)
}
