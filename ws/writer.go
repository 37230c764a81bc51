package ws

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws/internal/frame"
)

// fragment is how many bytes a Writer gathers before it sends them as a frame.
const fragment = 16 << 10

// A Writer sends one message in parts, as they are written. Close ends the message. Until
// then other messages wait, but control frames do not. Only one goroutine or task at a
// time may use it; its methods wait for room as Send does.
type Writer struct {
	c      *Conn
	ctx    context.Context
	typ    Type
	buf    []byte
	begun  bool        // a frame of the message was queued
	packed bool        // the message is long enough to be compressed
	fed    bool        // the compressor has got a part of the message
	held   bool        // the compressor may hold bytes that were not sent
	total  int         // bytes of payload so far
	done   bool        // Close was called
	used   atomic.Bool // Write was called: the loop must not read buf of another thread
}

var _ io.WriteCloser = (*Writer)(nil)

// NextWriter returns a Writer of a new message; any goroutine and any loop's task may call
// it, and it waits until other Writers are closed and the send queue has room.
//
// ctx bounds the Writer's calls too while they wait for room. If it has ended, a call
// still does what it can do without waiting. If ctx stops a call after a part of the
// message was sent, the connection ends, since no other message can follow. A handler's
// context that ends because the server drains does not stop a message that has begun.
func (c *Conn) NextWriter(ctx context.Context, t Type) (*Writer, error) {
	if t != TypeText && t != TypeBinary {
		return nil, fmt.Errorf("ws: a message of type %v", t)
	}
	w := &Writer{c: c, ctx: ctx, typ: t}
	begin := func(ctx context.Context) error {
		if err := c.room(ctx, nil, t, 0); err != nil {
			return err
		}
		c.lock(w)
		return nil
	}
	var err error
	if c.onLoop() {
		err = begin(ctx)
	} else {
		err = c.callLoop(ctx, "send", begin)
	}
	if err != nil {
		return nil, err
	}
	return w, nil
}

var errWriterDone = errors.New("ws: the Writer was closed")

// Write copies p, and sends the bytes as a frame whenever 16 KiB have been written.
func (w *Writer) Write(p []byte) (n int, err error) {
	if w.done {
		return 0, errWriterDone
	}
	if len(p) > 0 {
		w.used.Store(true)
	}
	for len(p) > 0 {
		k := min(len(p), fragment-len(w.buf))
		w.buf = append(w.buf, p[:k]...)
		n += k
		p = p[k:]
		if len(w.buf) == fragment {
			if err := w.send(0); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// Flush sends what was written so far, so that the peer can read it. With compression that
// costs a few bytes each time.
func (w *Writer) Flush() error {
	if w.done {
		return errWriterDone
	}
	if len(w.buf) == 0 && !w.held { // nothing new
		return nil
	}
	return w.send(thenFlush)
}

// Close sends the rest and ends the message.
func (w *Writer) Close() error {
	if w.done {
		return errWriterDone
	}
	err := w.send(thenEnd)
	w.done = true
	return err
}

// An ending says what is sent behind the written bytes.
type ending uint8

const (
	thenFlush ending = iota + 1 // what the compressor holds
	thenEnd                     // that, and the end of the message
)

func (w *Writer) send(end ending) error {
	if w.c.onLoop() {
		return w.sendHere(end)
	}
	// No context: other messages wait for this Writer, so the call must reach the loop.
	return w.c.callLoop(context.Background(), "send", func(context.Context) error { return w.sendHere(end) })
}

func (w *Writer) sendHere(end ending) error {
	c := w.c
	if c.writer != w {
		return cmp.Or(c.sendErr(), errWriterDone) // Close may have taken the Writer off
	}
	over := true // unless set below: a hook may panic
	defer func() {
		if over && c.writer == w {
			c.unlock()
		}
	}()
	err := c.room(w.ctx, w, w.typ, len(w.buf))
	if err != nil {
		if ctx, cancel := w.goesOn(); ctx != nil {
			defer cancel()
			err = c.room(ctx, w, w.typ, len(w.buf))
		}
	}
	if err == nil {
		err = w.queue(end)
	}
	if err != nil && (w.begun || w.fed) && c.failed == nil && c.sentClose == 0 {
		// The peer, or the compressor, has half a message, so nothing else can follow.
		_ = c.giveUp(abnormal(fmt.Errorf("a message was given up half-way: %w", err)))
	}
	over = err != nil || end == thenEnd
	return err
}

// goesOn returns a context with which w's message can continue although w's own context
// was cancelled, if that is because the server drains: the server waits for the end of the
// message. Otherwise it returns nil.
func (w *Writer) goesOn() (context.Context, context.CancelFunc) {
	if t := loop.TaskOf(w.ctx); !w.c.leaving || t == nil || t.Friend(key).Context().Err() == nil || !errors.Is(w.ctx.Err(), context.Canceled) {
		return nil, nil
	}
	after := context.WithoutCancel(w.ctx)
	if d, ok := w.ctx.Deadline(); ok {
		return context.WithDeadline(after, d)
	}
	return after, func() {}
}

// started reports whether a part of the message was written. It must be called on the loop.
func (w *Writer) started() bool { return w.begun || w.fed || w.used.Load() }

// lock makes other messages wait until w has ended its message.
func (c *Conn) lock(w *Writer) {
	c.writer = w
	c.unlocked.Clear()
}

// unlock lets other messages be sent again, and what waited for the Writer.
func (c *Conn) unlock() {
	c.writer = nil
	c.unlocked.Set()
	if c.leaving {
		c.leaving = false
		c.goAway()
	}
	if c.behind {
		c.behind = false
		c.nextTurn(c.takeCross)
	}
}

// queue queues the gathered bytes as one frame.
func (w *Writer) queue(end ending) error {
	c := w.c
	h := frame.Header{Op: frame.Opcode(w.typ), Fin: end == thenEnd}
	if w.begun {
		h.Op = frame.Continuation
	}
	w.total += len(w.buf)
	p := w.buf
	if d := c.deflate; d != nil && (w.packed || d.threshold <= fragment) { // the message's length is not known yet
		w.fed, w.held = true, end == 0
		out := d.out.Append(c.local.scratch[:0], p)
		switch end {
		case thenFlush:
			out = d.out.Flush(out)
		case thenEnd:
			out = d.out.End(out)
		}
		if !w.begun {
			h.Rsv = frame.Rsv1
		}
		if cap(out) <= maxScratch {
			c.local.scratch = out
		}
		if p = out; len(p) == 0 && end != thenEnd {
			w.buf = w.buf[:0]
			return nil // the compressor holds all of it
		}
	}
	h.Len = int64(len(p))
	err := c.writeParts(&h, p)
	w.buf, w.begun = w.buf[:0], true
	if end == thenEnd && err == nil {
		if hook := c.opts.Hooks.MessageSent; hook != nil {
			hook(c, w.typ, w.total)
		}
	}
	return err
}
