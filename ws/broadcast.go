package ws

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws/internal/deflate"
	"github.com/noria-go/noria/ws/internal/frame"
)

// A Prepared is a message to broadcast: to send on many connections. Its frame is made once, and all
// connections of all loops share its bytes. The first call that sends it compressed
// compresses it for all later ones; if the message is long, a task has a goroutine do
// that. Any number of goroutines and tasks may use a Prepared at once and repeatedly. The
// garbage collector frees it.
type Prepared struct {
	typ     Type
	payload []byte
	plain   *runtime.Buffer // as a server sends it

	// The frame, compressed without reference to other messages, for each size of window
	// that peers may ask for.
	deflated [deflate.MaxWindowBits - deflate.MinWindowBits + 1]struct {
		once  sync.Once
		frame atomic.Pointer[runtime.Buffer] // set once
	}
}

// Prepare returns a Prepared of p, without waiting: the caller must not change p from now
// on. It may be called from anywhere. It panics if t is neither TypeText nor TypeBinary.
func Prepare(t Type, p []byte) *Prepared {
	t.check("Prepare")
	return &Prepared{typ: t, payload: p, plain: framed(frame.Header{Op: frame.Opcode(t), Fin: true, Len: int64(len(p))}, p)}
}

// Len returns how many bytes of payload the message has.
func (p *Prepared) Len() int { return len(p.payload) }

// SendPrepared is Send for a Prepared: any goroutine and any loop's task may call it, and
// it waits while the send queue is full, as Options.Policy says. It does not take p.
func (c *Conn) SendPrepared(ctx context.Context, p *Prepared) error {
	switch d := c.deflate; {
	case c.client && d.takesLong(p.Len()):
		return c.sendCopy(ctx, p.typ, p.payload)
	case c.client || !d.compresses(p.Len()) || p.frame(d).Load() != nil:
	case d.takesLong(p.Len()):
		// Compressing would block a loop, and so would waiting for a caller that does it.
		if err := loop.Offload(ctx, func() { p.compressed(d) }); err != nil {
			return fmt.Errorf("ws: send: %w", err)
		}
	case !c.onLoop():
		p.compressed(d) // on this thread, not on c's loop
	}
	return c.send(ctx, outgoing{prepared: p})
}

// frame returns the pointer to the frame that is compressed with the window of d's peer.
// It holds nil until the frame is made.
func (p *Prepared) frame(d *deflater) *atomic.Pointer[runtime.Buffer] {
	return &p.deflated[d.out.WindowBits()-deflate.MinWindowBits].frame
}

// compressed returns the frame that is compressed with the window of d's peer, and makes
// it if need be.
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

// prepared returns p's compressed frame for d's peer, and adds p's bytes to the window
// that later messages refer to.
func (d *deflater) prepared(p *Prepared) *runtime.Buffer {
	b := p.compressed(d)
	d.out.Sent(p.payload)
	return b
}

// framed returns a frame of a server in a buffer that all loops can share.
func framed(h frame.Header, p []byte) *runtime.Buffer {
	b := make([]byte, h.Size(), h.Size()+len(p))
	h.Put(b)
	return runtime.NewShared(append(b, p...))
}

// writePrepared queues p. A client masks each frame with its own key, and so copies it.
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
		to, err := c.stream.Friend(key).Grow(n, 0)
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
