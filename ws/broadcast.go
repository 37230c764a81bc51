package ws

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws/internal/deflate"
	"github.com/noria-go/noria/ws/internal/frame"
)

// A Prepared is a message that is sent to many: its frame is made once, and its
// bytes are shared by all connections and all loops. Where it is compressed, the
// first that sends it does that, once for all; if it is long and a task is the first,
// on a goroutine. It may be used by many goroutines at once, any number of times; the
// garbage collector frees it.
type Prepared struct {
	typ     Type
	payload []byte
	plain   *runtime.Buffer // as a server sends it

	// The same, compressed without reference to other messages, for each size of
	// window that peers ask for.
	deflated [deflate.MaxWindowBits - deflate.MinWindowBits + 1]struct {
		once  sync.Once
		frame atomic.Pointer[runtime.Buffer] // set once
	}
}

// Prepare returns a Prepared of p, which must not be changed from now on. t is
// TypeText or TypeBinary.
func Prepare(t Type, p []byte) *Prepared {
	t.check("Prepare")
	return &Prepared{typ: t, payload: p, plain: framed(frame.Header{Op: frame.Opcode(t), Fin: true, Len: int64(len(p))}, p)}
}

// Len returns how many bytes of payload the message has.
func (p *Prepared) Len() int { return len(p.payload) }

// SendPrepared is Send for a message that goes to many: see there.
func (c *Conn) SendPrepared(ctx context.Context, p *Prepared) error {
	switch d := c.deflate; {
	case c.client && d.takesLong(p.Len()):
		return c.sendCopy(ctx, p.typ, p.payload)
	case c.client || !d.compresses(p.Len()) || p.frame(d).Load() != nil:
	case d.takesLong(p.Len()):
		// Not on a loop, where nobody may wait for another who does it either.
		if err := loop.Offload(ctx, func() { p.compressed(d) }); err != nil {
			return fmt.Errorf("ws: send: %w", err)
		}
	case !c.loop.Friend(friend.Key{}).OnLoop():
		p.compressed(d) // here, not on c's loop
	}
	return c.send(ctx, outgoing{prepared: p})
}

// frame is where its frame is, compressed as d's peer can take it; nil in it: that
// was not done yet.
func (p *Prepared) frame(d *deflater) *atomic.Pointer[runtime.Buffer] {
	return &p.deflated[d.out.WindowBits()-deflate.MinWindowBits].frame
}

// compressed returns its frame compressed, as d's peer can take it.
func (p *Prepared) compressed(d *deflater) *runtime.Buffer {
	bits := d.out.WindowBits()
	z := &p.deflated[bits-deflate.MinWindowBits]
	z.once.Do(func() {
		c := deflate.NewCompressor(bits, false, 0)
		defer c.Close()
		out := c.Message(nil, p.payload)
		z.frame.Store(framed(frame.Header{Op: frame.Opcode(p.typ), Fin: true, Rsv: frame.Rsv1, Len: int64(len(out))}, out))
	})
	return z.frame.Load()
}

// prepared returns the frame of a compressed broadcast, and notes that the peer
// knows its bytes now.
func (d *deflater) prepared(p *Prepared) *runtime.Buffer {
	b := p.compressed(d)
	d.out.Sent(p.payload)
	return b
}

// framed returns a server's frame, to be shared.
func framed(h frame.Header, p []byte) *runtime.Buffer {
	b := make([]byte, h.Size(), h.Size()+len(p))
	h.Put(b)
	return runtime.NewShared(append(b, p...))
}

// writePrepared queues p. A client's frames are masked, each with a key of its
// own, so there nothing is shared.
func (c *Conn) writePrepared(p *Prepared) error {
	if c.client {
		return c.writeBytes(p.typ, p.payload)
	}
	b := p.plain
	if c.deflate.compresses(len(p.payload)) {
		b = c.deflate.prepared(p)
	}
	n := b.Len()
	if n <= smallMessage {
		to, err := c.stream.Friend(friend.Key{}).Grow(n, 0)
		if err != nil {
			return c.sendFailed(err)
		}
		copy(to, b.Bytes())
	} else if err := c.enqueue(b.Retain()); err != nil {
		return c.sendFailed(err)
	}
	c.queued(n)
	return nil
}
