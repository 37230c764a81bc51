package compat

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Run calls fn, which reads and writes rw as if it were a blocking connection, and
// calls it again whenever rw had too few bytes or too little room for it: Run rolls
// fn's reads back, flushes what fn wrote, fills the buffer, and calls fn from the
// start. When fn succeeds, Run consumes what it read and flushes what it wrote. When fn
// fails for any other reason than ErrWouldBlock, Run returns its error, and also
// flushes what it wrote, which may be the answer that tells the peer why.
//
// Run is called from a task, and suspends it, but never while fn runs. It calls fn
// several times for one success, and so fn must keep these rules:
//
//   - It has no effects besides those on rw and on its own results.
//   - It writes the same bytes each time. Other bytes, or fewer, are ErrNotReplayable.
//   - It returns the errors of rw. If it succeeds although one of its Writes was
//     refused, Run fails with io.ErrShortWrite, and the peer gets what was taken.
//   - What it reads in one call fits into Options.Max.
//
// A function that cannot keep them runs in a task, over the stream itself.
//
// A deadline that passes or a kill while Run waits loses nothing. Call Run again with
// the same fn: it continues and sends nothing twice. To write something else in place,
// call Commit of the WriteHalf first; the peer gets what was sent until then. When fn
// has succeeded, and only the flush of its output failed in this way, the error says
// so, and calling FlushWriteBuf is all that remains to be done.
func (ss *SyncStream) Run(fn func(rw io.ReadWriter) error) error {
	if err := checkLoop(ss.s, "run"); err != nil {
		return err
	}
	ss.r.Checkpoint()
	if !ss.w.cut {
		ss.w.Checkpoint()
	}
	ss.w.cut = false
	defer func() {
		ss.r.Commit()
		if !ss.w.cut {
			ss.w.Commit()
		}
	}()
	for {
		ss.r.block, ss.w.refused = false, nil
		err := fn(ss)
		if err == nil || !ss.r.block && !ss.w.blocked() {
			err = ss.w.checkResult(err)
			ss.w.Commit() // no further call can follow, so the last flush need not be logged
			return ss.w.flushAfter(err)
		}
		if err := ss.serve(); err != nil {
			ss.w.cut = passing(err) && len(ss.w.log) > 0
			return err
		}
	}
}

// serve rolls back a call of Run's function that returned because of ErrWouldBlock,
// however it wrapped that error, and waits until another call can get further.
func (ss *SyncStream) serve() error {
	// A function that was refused a Write may have read too early: its question has not
	// been sent, so no answer will come.
	toRead := ss.r.block && !ss.w.blocked()
	ss.r.Rollback()
	_, err := ss.w.FlushWriteBuf()
	ss.w.Rollback()
	if err != nil || !toRead {
		return err
	}
	_, err = ss.r.FillReadBuf()
	if err == io.EOF && ss.r.Buffered() > 0 {
		err = io.ErrUnexpectedEOF // in the middle of what the function reads
	}
	return err
}

// RunHead waits until a head that ends with end has arrived (an HTTP request's head
// ends with an empty line), and then calls fn once. It is for functions with side
// effects, such as an upgrade with hooks of the user. fn reads exactly the head, which
// is consumed even if fn does not read all of it; what follows the head stays buffered.
// What fn writes is flushed, also when fn fails. A head of more than limit bytes is
// ErrTooLarge. RunHead is called from a task, and suspends it, also while fn writes.
func (ss *SyncStream) RunHead(end string, limit int, fn func(rw io.ReadWriter) error) error {
	if err := checkLoop(ss.s, "run"); err != nil {
		return err
	}
	n, err := ss.r.waitHead(end, limit)
	if err != nil {
		return err
	}
	head := &io.LimitedReader{R: &ss.r, N: int64(n)}
	ss.w.refused = nil
	err = fn(&headConn{Reader: head, Writer: &flushingWriter{&ss.w}})
	if derr := ss.r.Discard(int(head.N)); err == nil { // the rest of the head
		err = derr
	}
	return ss.w.flushAfter(ss.w.checkResult(err))
}

// waitHead waits until the buffer begins with a head, and returns the head's length,
// including its end.
func (r *ReadHalf) waitHead(end string, limit int) (int, error) {
	limit = min(limit, r.opts.Max)
	r.block, r.sure = false, false // an earlier Read does not say how much to wait for
	seen := 0
	for {
		have := r.Peek()
		// The bytes seen before contain at most the beginning of the end.
		from := max(0, seen-len(end)+1)
		if i := bytes.Index(have[from:], []byte(end)); i >= 0 && from+i+len(end) <= limit {
			return from + i + len(end), nil
		}
		if seen = len(have); seen >= limit {
			return 0, fmt.Errorf("compat: no end of the head within %d bytes: %w", limit, ErrTooLarge)
		}
		if _, err := r.FillReadBuf(); err != nil {
			if err == io.EOF && seen > 0 {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
	}
}

// A headConn is what RunHead passes to its function.
type headConn struct {
	io.Reader
	io.Writer
}

// A flushingWriter is a WriteHalf that waits when its buffer is full.
type flushingWriter struct{ w *WriteHalf }

func (f *flushingWriter) Write(p []byte) (n int, err error) {
	for {
		c, err := f.w.Write(p[n:])
		n += c
		if !errors.Is(err, ErrWouldBlock) {
			return n, err
		}
		if _, err := f.w.FlushWriteBuf(); err != nil {
			f.w.refused = err // FlushWriteBuf has cleared it
			return n, err
		}
	}
}
