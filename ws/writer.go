package ws

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws/internal/frame"
)

// fragment is how many bytes a Writer gathers before it sends them.
const fragment = 16 << 10

// A Writer sends one message in parts, as they are written. Close ends the
// message. It belongs to whoever asked for it; other messages wait until it is
// closed, control frames do not.
type Writer struct {
	c     *Conn
	ctx   context.Context
	typ   Type
	buf   []byte
	begun bool // a frame of the message was queued
	fed   bool // the compressor has some of it
	total int
	done  bool
}

var _ io.WriteCloser = (*Writer)(nil)

// NextWriter returns a Writer of a new message, once no other one goes on.
func (c *Conn) NextWriter(ctx context.Context, t Type) (*Writer, error) {
	if t != Text && t != Binary {
		return nil, fmt.Errorf("ws: a message of type %v", t)
	}
	w := &Writer{c: c, ctx: ctx, typ: t}
	begin := func(ctx context.Context) error {
		if err := c.room(ctx, nil, t, 0); err != nil {
			return err
		}
		c.writer = w
		c.unlocked.Clear()
		return nil
	}
	var err error
	if c.loop.OnLoop() {
		err = begin(ctx)
	} else {
		// What this caller has sent before is in front of it.
		err = c.elsewhere(ctx, "send", func(ctx context.Context) error {
			c.flushRemote()
			return begin(ctx)
		})
	}
	if err != nil {
		return nil, err
	}
	return w, nil
}

var errWriterDone = errors.New("ws: the Writer was closed")

// Write gathers p, and sends what has become a fragment. It waits for room as
// Send does.
func (w *Writer) Write(p []byte) (n int, err error) {
	if w.done {
		return 0, errWriterDone
	}
	for len(p) > 0 {
		k := min(len(p), fragment-len(w.buf))
		w.buf = append(w.buf, p[:k]...)
		n += k
		p = p[k:]
		if len(w.buf) == fragment {
			if err := w.Flush(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// Flush sends what was written so far.
func (w *Writer) Flush() error {
	if w.done {
		return errWriterDone
	}
	if len(w.buf) == 0 {
		return nil
	}
	return w.send(false)
}

// Close sends the rest and ends the message.
func (w *Writer) Close() error {
	if w.done {
		return errWriterDone
	}
	err := w.send(true)
	w.done = true
	return err
}

func (w *Writer) send(last bool) error {
	if w.c.loop.OnLoop() {
		return w.sendHere(w.ctx, last)
	}
	return w.c.elsewhere(w.ctx, "send", func(ctx context.Context) error { return w.sendHere(ctx, last) })
}

func (w *Writer) sendHere(ctx context.Context, last bool) error {
	c := w.c
	if c.writer != w {
		return errWriterDone
	}
	err := c.room(ctx, w, w.typ, len(w.buf))
	if err == nil {
		err = w.queue(last)
	}
	if err != nil || last {
		c.unlock()
	}
	if err != nil && (w.begun || w.fed) && c.failed == nil && c.sentClose == 0 {
		// The peer, or the compressor, has half a message, and nothing else can
		// follow it.
		_ = c.sendFailed(fmt.Errorf("a message was given up half-way: %w", err))
		_ = c.end(c.failed)
		_ = c.t.SetReadDeadline(past)
	}
	return err
}

// unlock ends the time of a Writer: others may send.
func (c *Conn) unlock() {
	c.writer = nil
	c.unlocked.Set()
	if c.behind {
		c.behind = false
		c.loop.NextTurn(c.takeRemote)
	}
}

// queue queues what was gathered as one frame.
func (w *Writer) queue(last bool) error {
	c := w.c
	h := frame.Header{Op: frame.Opcode(w.typ), Fin: last}
	if w.begun {
		h.Op = frame.Continuation
	}
	w.total += len(w.buf)
	p := w.buf
	if d := c.deflate; d != nil && d.threshold <= fragment { // how long it becomes is not known
		w.fed = true
		out := d.out.Append(c.local.scratch[:0], p)
		if last {
			out = d.out.End(out)
		}
		if !w.begun {
			h.Rsv = frame.Rsv1
		}
		if cap(out) <= maxScratch {
			c.local.scratch = out
		}
		if p = out; len(p) == 0 && !last {
			w.buf = w.buf[:0]
			return nil // it waits in the compressor
		}
	}
	h.Len = int64(len(p))
	err := c.writeParts(&h, p)
	w.buf, w.begun = w.buf[:0], true
	if last && err == nil {
		if hook := c.opts.Hooks.MessageOut; hook != nil {
			hook(c, w.typ, w.total)
		}
	}
	return err
}

var _ runtime.Source = (*runtime.Event)(nil)
