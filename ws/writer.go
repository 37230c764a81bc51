package ws

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws/internal/frame"
)

// fragment is how many bytes a Writer gathers before it sends them.
const fragment = 16 << 10

// A Writer sends one message in parts, as they are written. Close ends the
// message. It belongs to whoever asked for it; other messages wait until it is
// closed, control frames do not.
type Writer struct {
	c      *Conn
	ctx    context.Context
	typ    Type
	buf    []byte
	begun  bool // a frame of the message was queued
	packed bool // it is known to be worth compressing
	fed    bool // the compressor has seen some of it
	held   bool // and has some still, perhaps, that was not sent
	total  int
	done   bool
	used   atomic.Bool // something was written: what the loop may know of buf
}

var _ io.WriteCloser = (*Writer)(nil)

// NextWriter returns a Writer of a new message, once no other one goes on.
//
// ctx bounds the Writer's calls too, but only while they wait for room to send: when
// it has ended, what can be done at once is done. A call that it stops half-way
// through the message ends the connection, since no other message can follow. But the
// end of a handler's context because its server stops does not stop a message that has
// begun.
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
	if c.loop.Friend(friend.Key{}).OnLoop() {
		err = begin(ctx)
	} else {
		err = c.elsewhere(ctx, "send", begin)
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

// Flush sends what was written so far: the peer can read it. When messages are
// compressed that costs a few bytes each time.
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

// What is sent with a part of the message, beside its bytes.
type ending uint8

const (
	thenFlush ending = iota + 1 // what waits in the compressor
	thenEnd                     // that, and the end of the message
)

func (w *Writer) send(end ending) error {
	if w.c.loop.Friend(friend.Key{}).OnLoop() {
		return w.sendHere(end)
	}
	// It gets there whatever has ended meanwhile: others wait for the Writer.
	return w.c.elsewhere(context.Background(), "send", func(context.Context) error { return w.sendHere(end) })
}

func (w *Writer) sendHere(end ending) error {
	c := w.c
	if c.writer != w {
		return cmp.Or(c.sendErr(), errWriterDone) // Close may have ended it
	}
	over := true // also when a hook panics
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
		// The peer, or the compressor, has half a message, and nothing else can
		// follow it.
		_ = c.giveUp(abnormal(fmt.Errorf("a message was given up half-way: %w", err)))
	}
	over = err != nil || end == thenEnd
	return err
}

// goesOn returns a context with which w's message goes on although its own was
// cancelled: a server that stops waits for the end of a message that has begun, and its
// handler is told of that by this very context. It returns nil if it is not that.
func (w *Writer) goesOn() (context.Context, context.CancelFunc) {
	if t := loop.TaskOf(w.ctx); !w.c.leaving || t == nil || t.Friend(friend.Key{}).Context().Err() == nil || !errors.Is(w.ctx.Err(), context.Canceled) {
		return nil, nil
	}
	after := context.WithoutCancel(w.ctx)
	if d, ok := w.ctx.Deadline(); ok {
		return context.WithDeadline(after, d)
	}
	return after, func() {}
}

// started reports whether there is something of the message, on the loop.
func (w *Writer) started() bool { return w.begun || w.fed || w.used.Load() }

// lock has other messages wait until w has ended its own.
func (c *Conn) lock(w *Writer) {
	c.writer = w
	c.unlocked.Clear()
}

// unlock ends the time of a Writer: others may send.
func (c *Conn) unlock() {
	c.writer = nil
	c.unlocked.Set()
	if c.leaving {
		c.leaving = false
		c.goAway()
	}
	if c.behind {
		c.behind = false
		c.loop.Friend(friend.Key{}).NextTurn(c.takeRemote)
	}
}

// queue queues what was gathered as one frame.
func (w *Writer) queue(end ending) error {
	c := w.c
	h := frame.Header{Op: frame.Opcode(w.typ), Fin: end == thenEnd}
	if w.begun {
		h.Op = frame.Continuation
	}
	w.total += len(w.buf)
	p := w.buf
	if d := c.deflate; d != nil && (w.packed || d.threshold <= fragment) { // how long it becomes is not known
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
			return nil // it waits in the compressor
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
