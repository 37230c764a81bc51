package ws

import (
	"context"
	"errors"
	"io"

	"github.com/noria-go/noria/internal/friend"
)

// NextReader waits for the beginning of the next message and returns a Reader
// of it, for messages that should not be held whole: it holds no more than has
// arrived and was not read, and Options.MaxMessage does not bound it. What was
// left of the message before is skipped.
//
// ctx bounds the Reader's calls too. Only one caller at a time may receive.
func (c *Conn) NextReader(ctx context.Context) (Type, *Reader, error) {
	if !c.loop.Friend(friend.Key{}).OnLoop() {
		r, err := fromElsewhere(ctx, c, "receive", func(ctx context.Context) (*Reader, error) {
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

// beginReader returns nil if nothing of the next message is here.
func (c *Conn) beginReader(ctx context.Context) (*Reader, error) {
	switch {
	case c.closing:
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
	if len(c.stash) > 0 { // it is all here
		r.whole = c.unstash()
		r.typ, r.ended = r.whole.typ, true
		c.reader = r
		return r, nil
	}
	c.streaming, c.long = true, false
	c.deflate.unlimit()
	if c.msg != nil { // a Receive that was given up had begun with it
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

// skip reads the rest of the message that a Reader has left, as far as it is
// here, and reports whether that was all.
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

// endReader notes that the message of the Reader is over.
func (c *Conn) endReader() {
	c.reader, c.streaming = nil, false
	if len(c.pings) > 0 {
		c.tellQuiet()
	}
}

// A Reader reads one message as it arrives. It returns io.EOF at its end, and
// ErrSkipped if the rest of the message was given up: whoever reads it must not
// take what there was for all of it.
type Reader struct {
	c   *Conn
	ctx context.Context
	typ Type
	unread
	lent  bool  // what was here is being written: see lend
	left  error // meanwhile it was given up, for this reason
	ended bool  // nothing comes after what is here
	size  int
	over  error // io.EOF: it was all read; or why the rest is not to be had
}

// unread is what there is of a message and was not read yet.
type unread struct {
	whole *Message // received before the Reader was asked for
	pos   int      // of whole
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

// drop gives it back.
func (u *unread) drop(c *Conn) {
	if u.whole != nil {
		u.whole.Release()
	}
	if u.piece.buf != nil {
		c.frames.release(u.piece.buf)
	}
	*u = unread{}
}

// Read reads what has arrived, and waits if that is nothing.
func (r *Reader) Read(p []byte) (int, error) {
	if !r.c.loop.Friend(friend.Key{}).OnLoop() {
		return fromElsewhere(r.ctx, r.c, "receive", func(ctx context.Context) (int, error) { return r.read(ctx, p) })
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

// WriteTo is io.WriterTo: what arrives is given to w without a copy.
func (r *Reader) WriteTo(w io.Writer) (total int64, err error) {
	if !r.c.loop.Friend(friend.Key{}).OnLoop() {
		return io.Copy(w, struct{ io.Reader }{r}) // w is not for the loop's thread
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

// lend has w write what can be read now. Meanwhile, which may be long, that is not
// the Reader's: whoever ends the connection must not give back what w looks at.
func (r *Reader) lend(w io.Writer) (n int, err error) {
	b, mine := r.here(), r.unread
	if mine.whole != nil {
		mine.whole.unhold() // nor its handler's, which may return
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

// giveUp is drop for a message that is not read on. err is what its Reader is
// told, unless nothing was lost.
func (r *Reader) giveUp(err error) {
	switch {
	case r.over != nil:
	case len(r.here()) > 0:
		if r.over = err; r.left != nil {
			r.over = r.left
		}
	case r.lent: // what w leaves of it is lost
		if r.left == nil {
			r.left = err
		}
	case r.ended:
		r.over = io.EOF
	}
	r.drop(r.c)
}

// more waits for the next piece; io.EOF if there is none.
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
		if r.over != nil { // somebody has closed meanwhile
			return r.over
		}
	}
}
