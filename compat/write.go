package compat

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// A WriteHalf is the writing half of a sync stream: an io.Writer that never
// waits. It belongs to the stream's loop.
type WriteHalf struct {
	dst    *loop.Stream
	opts   Options
	buf    *runtime.Buffer // nil: it holds nothing
	closed bool
	err    error // why nothing is taken or sent any more
	counts *Counts

	refused error // why a Write took less than all, since the last flush

	marked bool
	base   int    // what buf held at the checkpoint
	log    []byte // written and flushed since the checkpoint
	replay int    // of log, how much was written again
	cut    bool   // a Run was cut short, and log is what it has sent
}

// Pending returns how many bytes wait to be flushed.
func (w *WriteHalf) Pending() int {
	if w.buf == nil {
		return 0
	}
	return w.buf.Len()
}

// Write buffers as much of p as fits. If that is not all of it, it returns how
// much, and ErrWouldBlock: flush, and go on with the rest.
func (w *WriteHalf) Write(p []byte) (n int, err error) {
	n, err = w.take(p)
	if w.refused == nil {
		w.refused = err
	}
	return n, err
}

func (w *WriteHalf) take(p []byte) (n int, err error) {
	switch {
	case w.err != nil:
		return 0, w.err
	case w.closed:
		return 0, closedErr("write")
	}
	if w.replay < len(w.log) {
		n = min(len(p), len(w.log)-w.replay)
		if !bytes.Equal(p[:n], w.log[w.replay:w.replay+n]) {
			w.err = ErrNotReplayable
			return 0, w.err
		}
		w.replay += n
	}
	c, err := w.append(p[n:])
	n += c
	if err == nil && n < len(p) {
		w.counts.WouldBlock++
		err = ErrWouldBlock
	}
	return n, err
}

func (w *WriteHalf) append(p []byte) (n int, err error) {
	for n < len(p) && w.Pending() < w.opts.Max {
		if err := w.makeRoom(len(p) - n); err != nil {
			return n, err
		}
		c := w.buf.Append(p[n:min(len(p), n+w.opts.Max-w.Pending())])
		w.counts.BytesCopied += int64(c)
		n += c
	}
	return n, nil
}

func (w *WriteHalf) makeRoom(want int) error {
	if w.buf != nil && len(w.buf.Room()) > 0 {
		return nil
	}
	size := w.opts.Size
	if w.buf != nil {
		size = w.buf.Len() + w.opts.Step
		if w.opts.Growth == Doubling {
			size = max(2*w.buf.Len(), w.buf.Len()+want)
		}
	} else if w.opts.Growth == Doubling {
		size = max(size, want)
	}
	b, err := getBuf(w.dst, min(size, w.opts.Max))
	if err != nil {
		return err
	}
	if w.buf != nil {
		w.counts.BytesCopied += int64(b.Append(w.buf.Bytes()))
		w.buf.Release()
	}
	w.buf = b
	return nil
}

// FlushWriteBuf hands everything that was written to the stream and returns
// how many bytes that were. It waits while the stream's own queue is full, and
// is called from a task, which it suspends. A write deadline that passes
// meanwhile loses nothing. What goes wrong in sending shows here or in a later
// call. If the sync stream is closed meanwhile, that is ErrClosed: what was
// pending is then Close's, which sends it.
func (w *WriteHalf) FlushWriteBuf() (n int, err error) {
	if err := checkLoop(w.dst, "flush"); err != nil {
		return 0, err
	}
	w.refused = nil
	for {
		if w.buf != nil && w.err == nil {
			if _, err := w.dst.Write(nil); err != nil { // it waits for room
				return 0, w.failed(err)
			}
		}
		if n, err = w.handOver(); !errors.Is(err, runtime.ErrBusy) {
			return n, w.failed(err)
		}
	}
}

// FlushWriteBufThen is FlushWriteBuf for callbacks on the loop: it returns at
// once and calls done, later and on the loop. It sends what has been written by
// the time that there is room; a write deadline that passes before that ends it,
// and loses nothing.
func (w *WriteHalf) FlushWriteBufThen(done func(n int, err error)) {
	w.refused = nil
	var step func()
	step = func() {
		n, err := w.handOver()
		if errors.Is(err, runtime.ErrBusy) {
			// A passed deadline makes the stream writable, but no room.
			if err = w.waitErr(); err == nil {
				w.dst.Loop().Friend(friend.Key{}).Notify(w.dst.Writable(), step)
				return
			}
		}
		done(n, w.failed(err))
	}
	w.dst.Loop().Friend(friend.Key{}).NextTurn(step)
}

// waitErr says why room must not be waited for.
func (w *WriteHalf) waitErr() error {
	if err := w.dst.Friend(friend.Key{}).WriteErr(); !errors.Is(err, runtime.ErrBusy) {
		return err
	}
	return nil
}

// failed remembers an error that later calls would meet too.
func (w *WriteHalf) failed(err error) error {
	if err != nil && w.err == nil && !passing(err) {
		w.err = err
	}
	return err
}

// handOver gives the buffer to the stream, if that has room. There may be none
// any more: while somebody waited for room, another one has closed or flushed.
func (w *WriteHalf) handOver() (int, error) {
	if w.err != nil || w.buf == nil {
		return 0, w.err
	}
	n := w.buf.Len()
	if w.marked && len(w.log)+n-w.base > DefaultMax {
		return 0, fmt.Errorf("compat: one call has written more than %d bytes, which is too much to roll back: %w", DefaultMax, ErrTooLarge)
	}
	sent := len(w.log)
	if w.marked {
		w.log = append(w.log, w.buf.Bytes()[w.base:]...)
	}
	if err := w.dst.TryWriteBuf(w.buf); err != nil {
		w.log = w.log[:sent]
		return 0, err
	}
	w.replay, w.base, w.buf = len(w.log), 0, nil
	w.counts.Flushes++
	return n, nil
}

// Close refuses further writes. What is pending can still be flushed.
func (w *WriteHalf) Close() error {
	w.closed = true
	return nil
}

// Checkpoint remembers what is written from now on, so that Rollback can take
// it back.
func (w *WriteHalf) Checkpoint() {
	w.marked, w.cut, w.refused, w.base = true, false, nil, w.Pending()
	w.log, w.replay = w.log[:0], 0
}

// Commit ends the checkpoint.
func (w *WriteHalf) Commit() {
	w.marked, w.cut, w.log, w.replay = false, false, nil, 0
}

// Rollback takes back what was written since the checkpoint. What was flushed
// since is gone; so the first bytes that are written again must be those, and
// are swallowed. If they are others, Write fails with ErrNotReplayable.
func (w *WriteHalf) Rollback() {
	if !w.marked {
		return
	}
	if w.buf != nil {
		if w.base > 0 {
			w.buf.Truncate(w.base)
		} else {
			w.buf.Release()
			w.buf = nil
		}
	}
	w.replay = 0
}

// blocked reports whether a Write was refused for want of room.
func (w *WriteHalf) blocked() bool { return errors.Is(w.refused, ErrWouldBlock) }

// conclude flushes what a function has written that returned err, and returns
// what comes of both.
func (w *WriteHalf) conclude(err error) error {
	if err == nil {
		err = w.shortfall()
	}
	if _, ferr := w.FlushWriteBuf(); err == nil && ferr != nil {
		if err = ferr; passing(err) {
			err = fmt.Errorf("compat: the function has succeeded, and what it wrote waits to be flushed: %w", err)
		}
	}
	return err
}

// shortfall says what a function that reports success has passed over: that not
// all of what it wrote was taken, or that more was sent than it wants to have
// written now.
func (w *WriteHalf) shortfall() error {
	switch {
	case w.err != nil:
		return w.err
	case w.blocked(): // not wrapped: flushing and trying again is no way out
		return fmt.Errorf("compat: the function returned no error, but the buffer had no room for all that it wrote: %w", io.ErrShortWrite)
	case w.refused != nil:
		return fmt.Errorf("compat: the function returned no error, but a Write of it had failed: %w", w.refused)
	case w.replay < len(w.log):
		w.err = fmt.Errorf("compat: %d bytes that the function wrote were sent, and called again it wrote %d: %w", len(w.log), w.replay, ErrNotReplayable)
	}
	return w.err
}

// finish gives the stream what is pending, however full its queue is, and
// refuses everything from now on. Whoever ends a sync stream must not have to
// wait for the peer: a callback cannot, and a task could wait for ever. What the
// queue gets so beyond its limit is at most what was buffered here anyway.
func (w *WriteHalf) finish() error {
	err, n := w.err, w.Pending()
	if n > 0 && err == nil {
		err = w.dst.Friend(friend.Key{}).Enqueue(w.buf)
		w.buf = nil
	}
	switch {
	case n > 0 && err != nil:
		err = fmt.Errorf("compat: %d bytes were not sent: %w", n, err)
	case errors.Is(err, runtime.ErrClosed):
		err = nil // nothing is lost
	}
	if w.buf != nil {
		w.buf.Release()
	}
	w.buf, w.closed, w.err = nil, true, closedErr("write")
	w.Commit()
	return err
}
