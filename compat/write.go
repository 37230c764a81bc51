package compat

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// A WriteHalf is the writing half of a sync stream: an io.Writer that never waits. The
// tasks of the stream's loop may use it.
type WriteHalf struct {
	dst    *loop.Stream
	opts   Options
	step   int             // linear growth, in bytes; 0: doubling
	buf    *runtime.Buffer // nil if nothing is pending
	err    error           // what all later calls fail with
	counts *counts

	refused error // of the first Write since the last flush that did not take all

	marked bool
	base   int    // bytes in buf at the checkpoint
	log    []byte // written and flushed since the checkpoint
	replay int    // bytes of log that were written again since the rollback
	cut    bool   // a deadline or a kill ended Run, and log is what it had sent
}

// Pending returns how many bytes wait to be flushed.
func (w *WriteHalf) Pending() int {
	if w.buf == nil {
		return 0
	}
	return w.buf.Len()
}

// Write buffers as much of p as fits, and never waits. If not all of p fits, it returns
// how many bytes it took, and ErrWouldBlock: flush, and write the rest.
func (w *WriteHalf) Write(p []byte) (n int, err error) {
	n, err = w.take(p)
	if w.refused == nil {
		w.refused = err
	}
	return n, err
}

func (w *WriteHalf) take(p []byte) (n int, err error) {
	if w.err != nil {
		return 0, w.err
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

// makeRoom sees to it that buf has room for a byte, and for want bytes if that is cheap.
func (w *WriteHalf) makeRoom(want int) error {
	if w.buf != nil && len(w.buf.Room()) > 0 {
		return nil
	}
	have := w.Pending()
	size := max(w.opts.Size, 2*have, have+want)
	switch {
	case w.step > 0 && have == 0:
		size = w.opts.Size
	case w.step > 0:
		size = have + w.step
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

// FlushWriteBuf queues everything that was written on the stream, and returns how many
// bytes that were. It is called from a task, and suspends it while the stream's queue
// is full. A write deadline that passes meanwhile loses nothing. An error of sending is
// returned here or by a later call. If the sync stream is closed meanwhile, the error is
// ErrClosed, and Close sends what was pending.
func (w *WriteHalf) FlushWriteBuf() (n int, err error) {
	if err := checkLoop(w.dst, "flush"); err != nil {
		return 0, err
	}
	w.refused = nil
	for {
		if w.buf != nil && w.err == nil {
			if _, err := w.dst.Write(nil); err != nil { // waits for room
				return 0, w.failed(err)
			}
		}
		if n, err = w.handOver(); !errors.Is(err, runtime.ErrBusy) {
			return n, w.failed(err)
		}
	}
}

// failed remembers err if later calls would fail with it too.
func (w *WriteHalf) failed(err error) error {
	if err != nil && w.err == nil && !passing(err) {
		w.err = err
	}
	return err
}

// handOver queues the buffer on the stream, if the stream has room. There may be no
// buffer: while this task waited for room, another task may have closed or flushed.
func (w *WriteHalf) handOver() (int, error) {
	if w.err != nil || w.buf == nil {
		return 0, w.err
	}
	n := w.buf.Len()
	if limit := max(defaultMax, w.opts.Max); w.marked && len(w.log)+n-w.base > limit {
		return 0, fmt.Errorf("compat: one call has written more than %d bytes, which is too much to roll back: %w", limit, ErrTooLarge)
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

// Checkpoint marks what Rollback goes back to.
func (w *WriteHalf) Checkpoint() {
	w.marked, w.cut, w.refused, w.base = true, false, nil, w.Pending()
	w.log, w.replay = w.log[:0], 0
}

// Commit ends the checkpoint: what was written since stays.
func (w *WriteHalf) Commit() {
	w.marked, w.cut, w.log, w.replay = false, false, nil, 0
}

// Rollback takes back what was written since the checkpoint, which stays. What was
// flushed since cannot be taken back: the caller must write the same bytes again, and
// Write swallows them. If it gets other bytes, it fails with ErrNotReplayable.
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

// blocked reports whether a Write was refused because the buffer was full.
func (w *WriteHalf) blocked() bool { return errors.Is(w.refused, ErrWouldBlock) }

// checkResult returns err, the result of a function that has written to w. If that is
// nil, it returns an error if w did not take all that the function wrote, or if the
// peer got more than the function wants to have written now.
func (w *WriteHalf) checkResult(err error) error {
	switch {
	case err != nil:
		return err
	case w.err != nil:
		return w.err
	case w.blocked(): // not wrapped: the caller must not flush and try again
		return fmt.Errorf("compat: the function returned no error, but the buffer had no room for all that it wrote: %w", io.ErrShortWrite)
	case w.refused != nil:
		return fmt.Errorf("compat: the function returned no error, but one of its Writes failed: %w", w.refused)
	case w.replay < len(w.log):
		w.err = fmt.Errorf("compat: %d bytes that the function wrote were sent, and called again it wrote %d: %w", len(w.log), w.replay, ErrNotReplayable)
	}
	return w.err
}

// flushAfter flushes what a function has written, and returns err, the function's
// result, or the error of the flush if that is nil.
func (w *WriteHalf) flushAfter(err error) error {
	_, ferr := w.FlushWriteBuf()
	switch {
	case err != nil:
		return err
	case ferr != nil && passing(ferr):
		return fmt.Errorf("compat: the function has succeeded, and what it wrote waits to be flushed: %w", ferr)
	}
	return ferr
}

// finish queues what is pending on the stream, even if the stream's queue is full, and
// makes all later calls fail. It does not wait for the peer: code that ends a sync
// stream may be no task, and a task could wait for ever. So the queue may exceed its
// limit, by no more than what this half had buffered.
func (w *WriteHalf) finish() error {
	err, n := w.err, w.Pending()
	if n > 0 && err == nil {
		err = w.dst.Friend(key).Enqueue(w.buf)
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
	w.buf, w.err = nil, closedErr("write")
	w.Commit()
	return err
}
