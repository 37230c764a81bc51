package ws

import (
	"context"
	"errors"
	"io"
)

// NextReader waits for the beginning of the next message and returns a Reader of it; any
// goroutine and any loop's task may call it, but only one at a time may receive. A Reader
// holds only bytes that have arrived and were not read, so it suits long messages, and
// Options.MaxMessage does not bound them. The unread rest of the message before is skipped.
//
// ctx bounds the Reader's calls too.
func (c *Conn) NextReader(ctx context.Context) (Type, *Reader, error) {
	if !c.onLoop() {
		r, err := valueFromLoop(ctx, c, "receive", func(ctx context.Context) (*Reader, error) {
			_, r, err := c.NextReader(ctx)
			return r, err
		})
		if err != nil {
			return 0, nil, err
		}
		r.ctx = ctx
		return r.typ, r, nil
	}
	for {
		if err := ctx.Err(); err != nil {
			return 0, nil, err
		}
		r, err := c.beginReader(ctx)
		if r != nil || err != nil {
			if r == nil {
				return 0, nil, err
			}
			return r.typ, r, err
		}
		if err := c.await(ctx); err != nil {
			return 0, nil, err
		}
	}
}

// beginReader returns a Reader of the next message, or nil if nothing of the message has
// arrived.
func (c *Conn) beginReader(ctx context.Context) (*Reader, error) {
	switch {
	case c.discarding:
		return nil, c.dropArrived()
	case c.busy:
		return nil, errReceiving
	}
	if c.reader != nil {
		if ok, err := c.skip(); !ok || err != nil {
			return nil, err
		}
	}
	r := &Reader{c: c, ctx: ctx}
	if len(c.stash) > 0 { // the message is complete
		r.whole = c.unstash()
		r.typ, r.ended = r.whole.typ, true
		c.reader = r
		return r, nil
	}
	c.streaming, c.long = true, false
	c.deflate.unlimit()
	if c.msg != nil { // a Receive whose context ended has begun the message
		r.whole, c.msg = c.msg, nil
		r.typ = r.whole.typ
		c.reader = r
		return r, nil
	}
	s, last, ok, err := c.next()
	if err != nil || !ok {
		c.streaming = false
		return nil, err
	}
	r.typ, r.piece, r.ended = c.typ, s, last
	c.reader = r
	return r, nil
}

// skip drops what has arrived of the message of the open Reader, and reports whether that
// was all of it.
func (c *Conn) skip() (bool, error) {
	r := c.reader
	for {
		r.giveUp(ErrSkipped)
		if r.ended {
			c.endReader()
			return true, nil
		}
		s, last, ok, err := c.next()
		if err != nil || !ok {
			return false, err
		}
		r.piece, r.ended = s, last
	}
}

// endReader is called at the end of the Reader's message.
func (c *Conn) endReader() {
	c.reader, c.streaming = nil, false
	if len(c.pings) > 0 {
		c.tellQuiet()
	}
}

// A Reader reads one message as it arrives. It returns io.EOF at the message's end, and
// ErrSkipped if the rest of the message was skipped, so that a caller cannot mistake a
// part for the whole. Only one goroutine or task at a time may use it; its methods wait,
// bounded by the context of NextReader.
type Reader struct {
	c   *Conn
	ctx context.Context
	typ Type
	unread
	lent  bool  // WriteTo has the unread bytes: see lend
	left  error // why the rest was given up while lent
	ended bool  // the message ends with the unread bytes
	size  int   // bytes that were read
	over  error // io.EOF when all was read, or why the rest is lost
}

// unread has the bytes of a message that have arrived and were not read: those of whole
// from pos on, or piece.
type unread struct {
	whole *Message // received before the call of NextReader
	pos   int
	piece segment
}

func (u *unread) here() []byte {
	if u.whole != nil {
		return u.whole.Bytes()[u.pos:]
	}
	return u.piece.data
}

func (u *unread) take(n int) {
	if u.whole != nil {
		u.pos += n
		return
	}
	u.piece.data = u.piece.data[n:]
}

// drop releases the bytes.
func (u *unread) drop(c *Conn) {
	if u.whole != nil {
		u.whole.Release()
	}
	if u.piece.buf != nil {
		c.frames.release(u.piece.buf)
	}
	*u = unread{}
}

// Read reads the bytes that have arrived, and waits if there are none.
func (r *Reader) Read(p []byte) (int, error) {
	if !r.c.onLoop() {
		return valueFromLoop(r.ctx, r.c, "receive", func(ctx context.Context) (int, error) { return r.read(ctx, p) })
	}
	return r.read(r.ctx, p)
}

func (r *Reader) read(ctx context.Context, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if r.over != nil {
			return 0, r.over
		}
		if b := r.here(); len(b) > 0 {
			n := copy(p, b)
			r.take(n)
			r.size += n
			return n, nil
		}
		if err := r.more(ctx); err != nil {
			return 0, err
		}
	}
}

// WriteTo implements io.WriterTo: it passes the bytes to w as they arrive, without a copy
// if it is called on the connection's loop, and waits until the message ends.
func (r *Reader) WriteTo(w io.Writer) (total int64, err error) {
	if !r.c.onLoop() {
		return io.Copy(w, struct{ io.Reader }{r}) // w.Write must not run on the loop's thread
	}
	for {
		if r.over != nil && r.over != io.EOF {
			return total, r.over
		}
		if len(r.here()) > 0 {
			n, err := r.lend(w)
			total += int64(n)
			if err != nil {
				return total, err
			}
			continue
		}
		if err := r.more(r.ctx); err != nil {
			if err == io.EOF {
				err = nil
			}
			return total, err
		}
	}
}

// lend passes the unread bytes to w. w.Write may wait, and meanwhile another call may end
// the connection and drop the Reader's bytes. So lend takes those that w uses away from
// the Reader.
func (r *Reader) lend(w io.Writer) (n int, err error) {
	b, mine := r.here(), r.unread
	if mine.whole != nil {
		mine.whole.unhold() // the handler may return and must not reclaim them
	}
	r.unread, r.lent = unread{}, true
	defer func() { // w may panic
		mine.take(n)
		r.size += n
		r.lent = false
		switch {
		case r.left == nil && r.over == nil:
			r.unread = mine
			return
		case r.over == nil && n == len(b) && r.ended:
			r.over = io.EOF
		case r.over == nil:
			r.over = r.left
		}
		mine.drop(r.c)
	}()
	if n, err = w.Write(b); n < 0 || n > len(b) {
		return 0, errors.New("ws: the Writer says that it wrote what it was not given")
	}
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return n, err
}

// giveUp drops the unread bytes. The Reader's later calls return err, unless nothing was
// lost.
func (r *Reader) giveUp(err error) {
	switch {
	case r.over != nil:
	case len(r.here()) > 0:
		if r.over = err; r.left != nil {
			r.over = r.left
		}
	case r.lent: // the bytes that w does not take are lost
		if r.left == nil {
			r.left = err
		}
	case r.ended:
		r.over = io.EOF
	}
	r.drop(r.c)
}

// cutShort makes the Reader's later calls fail with err, unless all of its message was
// read.
func (r *Reader) cutShort(err error) {
	switch {
	case r.over != nil, r.ended && !r.lent && len(r.here()) == 0: // nothing is lost
	case r.lent:
		r.left = err
	default:
		r.over = err
	}
}

// more waits for the next piece. At the end of the message it returns io.EOF.
func (r *Reader) more(ctx context.Context) error {
	c := r.c
	if r.over != nil {
		return r.over
	}
	r.drop(c)
	if r.ended {
		r.over = io.EOF
		c.endReader()
		if hook := c.opts.Hooks.MessageReceived; hook != nil {
			hook(c, r.typ, r.size)
		}
		return io.EOF
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if c.busy {
			return errReceiving
		}
		s, last, ok, err := c.next()
		if err != nil {
			return err
		}
		if ok {
			r.piece, r.ended = s, last
			return nil
		}
		if err := c.await(ctx); err != nil {
			return err
		}
		if r.over != nil { // Close was called meanwhile
			return r.over
		}
	}
}
