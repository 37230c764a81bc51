package compat

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// waitHead waits until the buffer begins with a head, and returns its length
// with its end.
func (r *ReadHalf) waitHead(end string, limit int) (int, error) {
	limit = min(limit, r.opts.Max)
	r.block, r.sure = false, false // whoever was told so before has nothing to do with this
	seen := 0
	for {
		have := r.Peek()
		// What was looked at before cannot contain the end, but for its first bytes.
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

type headConn struct {
	io.Reader
	io.Writer
}

// flushingWriter waits where a WriteHalf would not.
type flushingWriter struct{ w *WriteHalf }

func (f *flushingWriter) Write(p []byte) (n int, err error) {
	for {
		c, err := f.w.Write(p[n:])
		n += c
		if !errors.Is(err, ErrWouldBlock) {
			return n, err
		}
		if _, err := f.w.FlushWriteBuf(); err != nil {
			f.w.refused = err // the flush has forgotten that it was
			return n, err
		}
	}
}
