package ws

import (
	"context"
	"errors"
	"fmt"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws/internal/deflate"
	"github.com/noria-go/noria/ws/internal/frame"
)

// DefaultThreshold is the size in bytes from which a message is compressed by default.
// For shorter ones compression saves few bytes, and some would grow.
const DefaultThreshold = 256

// Compression configures permessage-deflate (RFC 7692) for the peers that agree to it.
// The zero value is good: context takeover both ways, windows of 32 KiB. With context
// takeover a connection keeps up to a window of earlier data in memory, each way. A
// message of more than 64 KiB is compressed and sent in fragments, and the loop runs
// other tasks between two of them.
type Compression struct {
	// Level is 1 (fastest) to 9; 0 means 1.
	Level int

	// Threshold is the size in bytes from which a message is compressed; 0 means
	// DefaultThreshold, negative means every message.
	Threshold int

	// Without context takeover each message is compressed by itself, which takes less
	// memory and compresses less.
	ServerNoContextTakeover bool
	ClientNoContextTakeover bool

	// The windows are 1<<bits bytes, 8 to 15 bits; 0 means 15. Not every client lets a
	// server choose the client's window.
	ServerMaxWindowBits int
	ClientMaxWindowBits int
}

func (o *Compression) config() deflate.Config {
	return deflate.Config{ServerNoContextTakeover: o.ServerNoContextTakeover, ClientNoContextTakeover: o.ClientNoContextTakeover,
		ServerMaxWindowBits: o.ServerMaxWindowBits, ClientMaxWindowBits: o.ClientMaxWindowBits}
}

func (o *Compression) check() error {
	if o == nil {
		return nil
	}
	if o.Level < 0 || o.Level > 9 {
		return fmt.Errorf("ws: compression level %d, want 1 to 9, or 0", o.Level)
	}
	return o.config().Check()
}

// A deflater is a connection's permessage-deflate in both directions. It is nil if it was
// not agreed on.
type deflater struct {
	out       *deflate.Compressor
	in        *deflate.Decompressor
	threshold int

	// Of the message that is being inflated:
	active bool
	piece  segment // received, and not inflated yet
	last   bool    // piece is the message's last
	turn   int     // bytes inflated since other tasks had a turn
}

// deflateTurn is how many bytes are compressed before the loop runs other tasks. It takes
// about a millisecond.
const deflateTurn = 64 << 10

// inflateTurn is how many bytes are inflated before the loop runs other tasks: a few
// received KiB can inflate to megabytes.
const inflateTurn = 1 << 20

// maxScratch is how much memory a loop keeps for the compressor's output, in bytes.
const maxScratch = 256 << 10

func newDeflater(o *Compression, p deflate.Params, server bool) *deflater {
	level := o.Level
	if level == 0 {
		level = 1
	}
	d := &deflater{out: p.Compressor(server, level), in: p.Decompressor(server), threshold: o.Threshold}
	if d.threshold == 0 {
		d.threshold = DefaultThreshold
	}
	return d
}

// compresses reports whether a message of n bytes is to be compressed.
func (d *deflater) compresses(n int) bool { return d != nil && n >= d.threshold && n > 0 }

// takesLong reports whether compressing a message of n bytes takes more than one turn.
func (d *deflater) takesLong(n int) bool { return d.compresses(n) && n > deflateTurn }

func (d *deflater) close() {
	if d == nil {
		return
	}
	d.in.Close()
	d.out.Close()
}

// writeDeflated compresses a message and queues it. parts calls its argument with each
// part of the payload.
func (c *Conn) writeDeflated(t Type, parts func(func(p []byte))) error {
	z := c.deflate.out
	out := c.local.scratch[:0]
	parts(func(p []byte) { out = z.Append(out, p) })
	out = z.End(out)
	h := frame.Header{Op: frame.Opcode(t), Fin: true, Rsv: frame.Rsv1, Len: int64(len(out))}
	err := c.writeParts(&h, out)
	if cap(out) <= maxScratch {
		c.local.scratch = out
	}
	return err
}

// sendLong sends a long message compressed, in fragments, and yields to other tasks
// between two of them. Once there is room for the message, all of it is queued: stopping
// half-way when ctx ends would leave a message that no other can follow.
func (c *Conn) sendLong(ctx context.Context, m *Message) error {
	m.unhold()
	defer m.Release()
	if err := c.room(ctx, nil, m.typ, m.size); err != nil {
		return err
	}
	w := &Writer{c: c, typ: m.typ, packed: true}
	c.lock(w)
	defer c.unlock()
	for _, p := range m.Segments() {
		for len(p) > 0 {
			n := min(len(p), deflateTurn)
			w.buf, p = p[:n:n], p[n:]
			if err := w.queue(0); err != nil {
				return err
			}
			_ = loop.Yield(ctx) // even if ctx has ended
			if err := c.sendErr(); err != nil {
				return err
			}
		}
	}
	w.buf = nil
	return w.queue(thenEnd)
}

// inflate returns the next piece of a compressed message, as Conn.next does.
func (c *Conn) inflate() (s segment, last, ok bool, err error) {
	d := c.deflate
	for {
		if d.turn >= inflateTurn {
			d.turn, c.paused = 0, true
			return segment{}, false, false, nil
		}
		if len(d.piece.data) == 0 && !d.last {
			d.drop(c)
			if d.piece, d.last, ok, err = c.raw(); err != nil || !ok {
				return segment{}, false, false, err
			}
		}
		b, err := c.loop.Pool().Get(headroom + min(max(512, 4*len(d.piece.data)), 32<<10))
		if err != nil {
			return segment{}, false, false, c.exhausted(err)
		}
		b.Reset(headroom)
		written, read, done, err := d.in.Inflate(b.Room(), d.piece.data, d.last)
		b.Extend(written)
		d.turn += written
		d.piece.data = d.piece.data[read:]
		if err != nil {
			b.Release()
			d.drop(c)
			if errors.Is(err, deflate.ErrTooLarge) {
				return segment{}, false, false, c.tooBig()
			}
			return segment{}, false, false, c.fail(StatusInvalidPayload, "compressed data that is corrupt")
		}
		if done {
			d.drop(c)
			d.active, d.last, d.turn = false, false, 0
		}
		if written == 0 {
			b.Release()
			if !done {
				continue
			}
			return segment{}, true, true, nil
		}
		return segment{buf: b, data: b.Bytes()}, done, true, nil
	}
}

// begin begins a message that may inflate to limit bytes.
func (d *deflater) begin(limit int64) {
	d.in.Begin(limit)
	d.active, d.last = true, false
}

// unlimit removes the limit from the message that is being inflated. A Receive may have
// begun it with one.
func (d *deflater) unlimit() {
	if d != nil && d.active {
		d.in.Unlimit()
	}
}

// drop releases the piece that is being inflated.
func (d *deflater) drop(c *Conn) {
	if d.piece.buf != nil {
		c.frames.release(d.piece.buf)
	}
	d.piece = segment{}
}
