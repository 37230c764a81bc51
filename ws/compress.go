package ws

import (
	"context"
	"errors"
	"fmt"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws/internal/deflate"
	"github.com/noria-go/noria/ws/internal/frame"
)

// DefaultThreshold is from how many bytes on a message is compressed. Below it
// the work is not worth the few bytes that it saves, and some messages grow.
const DefaultThreshold = 256

// Compression says how messages are compressed with those peers that agree to
// it (permessage-deflate, RFC 7692). The zero value is good: context takeover
// both ways, windows of 32 KiB. A connection with context takeover remembers up
// to a window of what went by, each way. A message of more than 64 KiB is
// compressed and sent in fragments, between which the loop's other tasks have
// their turns.
type Compression struct {
	// Level is 1 (fastest) to 9; 0 means 1.
	Level int

	// Threshold is from how many bytes on a message is compressed; 0 means
	// DefaultThreshold, negative means every message.
	Threshold int

	// Without context takeover each message is compressed by itself: less
	// memory, and less compression.
	ServerNoContextTakeover bool
	ClientNoContextTakeover bool

	// The windows are 1<<bits bytes, 8 to 15 bits; 0 means 15. Not every client
	// lets a server choose the client's.
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

// A deflater is a connection's part of permessage-deflate. nil: it was not
// agreed on.
type deflater struct {
	out       *deflate.Compressor
	in        *deflate.Decompressor
	threshold int

	// Of the message that is being inflated:
	active bool
	piece  segment // received and not inflated yet
	last   bool    // nothing comes after piece
	turn   int     // bytes that it became since others had their turn
}

// deflateTurn is how many bytes are compressed before the loop's other tasks have
// a turn: about a millisecond's.
const deflateTurn = 64 << 10

// inflateTurn is after how many bytes the loop's other tasks have a turn: a few
// KiB can become megabytes.
const inflateTurn = 1 << 20

const maxScratch = 256 << 10 // bytes of memory that a loop keeps for compressing

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

// takesLong reports whether compressing a message of n bytes keeps others waiting.
func (d *deflater) takesLong(n int) bool { return d.compresses(n) && n > deflateTurn }

func (d *deflater) close() {
	if d == nil {
		return
	}
	d.in.Close()
	d.out.Close()
}

// writeDeflated queues a compressed message of these parts.
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

// sendLong sends a long message compressed, in fragments, and between two of them
// other tasks have their turn. Once there was room for it all of it is queued:
// ctx does not stop it half-way, since no other message could follow.
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
			_ = loop.Yield(ctx) // that ctx has ended changes nothing
			if err := c.sendErr(); err != nil {
				return err
			}
		}
	}
	w.buf = nil
	return w.queue(thenEnd)
}

// inflate returns the next piece of a compressed message: see Conn.next.
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

// unlimit has the message that is being inflated, which a Receive may have begun, go
// on whatever its length.
func (d *deflater) unlimit() {
	if d != nil && d.active {
		d.in.Unlimit()
	}
}

// drop gives back the piece that was inflated.
func (d *deflater) drop(c *Conn) {
	if d.piece.buf != nil {
		c.frames.release(d.piece.buf)
	}
	d.piece = segment{}
}
