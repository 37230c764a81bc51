package compat

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// directMin is how many bytes must be missing before they are received straight into
// the buffer. With fewer, ending the multishot receive costs more than a copy.
const directMin = 32 << 10

// A ReadHalf is the reading half of a sync stream: an io.Reader that never waits. The
// tasks of the stream's loop may use it.
//
// The bytes lie in segments: the buffer that was received first, and further ones as
// the parser wants more at once. So growing copies nothing, and never needs memory for
// the old and the new buffer at once.
type ReadHalf struct {
	src    *loop.Stream
	opts   Options
	step   int               // linear growth, in bytes; 0: doubling
	fixed  bool              // there is one segment, of Options.Size
	segs   []*runtime.Buffer // none if nothing is held
	have   int               // bytes in segs
	pos    int               // bytes of have that were read since the checkpoint
	seg    int               // the segment in which pos lies
	off    int               // the place of pos in that segment
	marked bool
	want   int // how many bytes the parser asked for when it got ErrWouldBlock
	block  bool
	sure   bool  // the parser needs all of want
	err    error // what Read and filling fail with once the buffer is drained
	counts *counts

	// A task that fills has the segments to itself, because the last one may be in
	// flight. If the half is closed meanwhile, that task releases them.
	filling bool
	closed  bool
}

// Buffered returns how many bytes can be read without filling.
func (r *ReadHalf) Buffered() int {
	if r.closed {
		return 0
	}
	return r.have - r.pos
}

// Read copies buffered bytes to p, and never waits. If the buffer is empty, it returns
// ErrWouldBlock or, when no more bytes can follow, io.EOF or the stream's error.
func (r *ReadHalf) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if r.Buffered() == 0 {
		if r.err != nil {
			return 0, r.err
		}
		return 0, r.wouldBlock(len(p), r.opts.Exact)
	}
	n := 0
	for n < len(p) && r.Buffered() > 0 {
		c := copy(p[n:], r.here())
		n += c
		r.advance(c)
	}
	r.counts.BytesCopied += int64(n)
	r.consumed()
	return n, nil
}

func (r *ReadHalf) wouldBlock(want int, sure bool) error {
	// The limit is far above any maximum, and low enough that adding pos cannot overflow.
	r.want, r.block, r.sure = min(want, math.MaxInt/2), true, sure
	r.counts.WouldBlock++
	return ErrWouldBlock
}

// Want returns nil if n bytes can be read now, and never waits. Otherwise it returns
// ErrWouldBlock, and the next FillReadBuf waits for all n bytes, as with Options.Exact;
// or, when n bytes can never follow, io.ErrUnexpectedEOF or the stream's error. A parser
// that knows how much will follow, such as a payload behind its header, calls it before
// it allocates memory for the payload or reads a part of it.
func (r *ReadHalf) Want(n int) error {
	switch {
	case r.Buffered() >= n:
		return nil
	case r.err == io.EOF && r.Buffered() > 0:
		return io.ErrUnexpectedEOF
	case r.err != nil:
		return r.err
	}
	return r.wouldBlock(n, true)
}

// here returns the unread bytes of the current segment.
func (r *ReadHalf) here() []byte { return r.segs[r.seg].Bytes()[r.off:] }

// advance moves pos by n bytes, which lie in the current segment.
func (r *ReadHalf) advance(n int) {
	r.pos += n
	if r.off += n; r.off == r.segs[r.seg].Len() && r.seg < len(r.segs)-1 {
		r.seg, r.off = r.seg+1, 0
	}
}

// consumed drops what was read, unless Rollback may need it.
func (r *ReadHalf) consumed() {
	if !r.marked {
		r.drop()
	}
}

// Peek returns the buffered bytes in one piece and does not consume them. If there is no
// memory to join the segments, it returns the first part. The slice is valid until the
// next call.
func (r *ReadHalf) Peek() []byte {
	if r.Buffered() == 0 {
		return nil
	}
	if len(r.here()) < r.Buffered() {
		// The joined segment has room for as much again. Otherwise a caller that peeks
		// after each fill would copy everything each time.
		_ = r.join(pooled(min(2*r.have, r.opts.Max), 2*r.have+r.opts.Size)) // without memory, it is the first part
	}
	return r.here()
}

// Discard consumes n of the buffered bytes. It fails if there are fewer.
func (r *ReadHalf) Discard(n int) error {
	switch {
	case n > 0 && r.closed:
		return r.err
	case n < 0 || n > r.Buffered():
		return fmt.Errorf("compat: discard %d of %d bytes", n, r.Buffered())
	}
	for left := n; left > 0; {
		c := min(left, len(r.here()))
		r.advance(c)
		left -= c
	}
	r.consumed()
	return nil
}

// drop forgets what was read, and releases its memory.
func (r *ReadHalf) drop() {
	if len(r.segs) == 0 || r.closed {
		return
	}
	r.have -= r.pos
	switch {
	case r.have > 0:
		for _, b := range r.segs[:r.seg] {
			b.Release()
		}
		r.segs = append(r.segs[:0], r.segs[r.seg:]...)
		r.segs[0].Advance(r.off)
	case r.fixed:
		r.segs[0].Reset(0)
	default:
		for _, b := range r.segs {
			b.Release()
		}
		r.segs = nil
	}
	r.rewind()
}

func (r *ReadHalf) rewind() { r.pos, r.seg, r.off = 0, 0, 0 }

// Checkpoint marks what Rollback goes back to. What is read from now on stays buffered
// until Commit.
func (r *ReadHalf) Checkpoint() {
	r.drop()
	r.marked, r.block, r.sure, r.want = true, false, false, 0
}

// Commit ends the checkpoint: what was read since is dropped.
func (r *ReadHalf) Commit() {
	r.marked = false
	r.drop()
}

// Rollback goes back to the checkpoint, which stays: what was read since will be read
// again.
func (r *ReadHalf) Rollback() {
	if !r.marked {
		return
	}
	r.counts.Rollbacks++
	if r.block {
		r.want += r.pos // the parser will ask for it from the checkpoint on
	}
	r.rewind()
}

// need returns how many bytes must be buffered before the parser can get further.
// Without a checkpoint, the parser can take more than the maximum piece by piece.
func (r *ReadHalf) need() int {
	if !r.sure || !r.block {
		return r.Buffered() + 1
	}
	want := max(r.Buffered()+1, r.want)
	if !r.marked {
		want = max(r.Buffered()+1, min(want, r.opts.Max))
	}
	return want
}

// FillReadBuf waits for more bytes and returns how many it has buffered. After Want, and
// with Options.Exact, it waits for all the bytes that the parser asked for. It is called
// from a task, and suspends it.
//
// When no bytes came and none will, it returns io.EOF or the stream's error. When the
// buffer has reached its maximum, it returns ErrTooLarge, and nothing is lost. When the
// sync stream is closed meanwhile, it returns ErrClosed. A second task that fills at the
// same time gets runtime.ErrBusy.
func (r *ReadHalf) FillReadBuf() (int, error) {
	need, err := r.begin()
	if err != nil {
		return 0, err
	}
	before := r.Buffered()
	for err == nil && !r.closed && r.Buffered() < need {
		err = r.more(need)
	}
	return r.end(before, err)
}

// begin returns how many bytes a fill must wait for, or why it must not start. If it
// succeeds, the caller must call end.
func (r *ReadHalf) begin() (need int, err error) {
	if err := checkLoop(r.src, "fill"); err != nil {
		return 0, err
	}
	r.counts.Fills++
	need = r.need()
	switch {
	case r.filling:
		return 0, &runtime.OpError{Op: "fill", Err: fmt.Errorf("%w: the buffer is being filled already", runtime.ErrBusy)}
	case r.err != nil:
		return 0, r.err
	case need+r.pos > r.opts.Max:
		return 0, fmt.Errorf("compat: %d bytes are wanted at once, the maximum is %d: %w", need+r.pos, r.opts.Max, ErrTooLarge)
	}
	r.filling = true
	return need, nil
}

// end returns the result of a fill that ended with err. An error that followed bytes is
// returned once those bytes have been read.
func (r *ReadHalf) end(before int, err error) (int, error) {
	r.block, r.filling = false, false
	if r.closed {
		r.release()
		return 0, r.err
	}
	if err != nil && !passing(err) {
		r.err = err
	}
	if n := r.Buffered() - before; n > 0 {
		return n, nil
	}
	return 0, err
}

// passing reports whether a later call may succeed after err: a deadline can be moved,
// room can be made, and a kill ends one task.
func passing(err error) bool {
	for _, target := range []error{ErrTooLarge, runtime.ErrNoBuffers, loop.ErrOffLoop, runtime.ErrCanceled, os.ErrDeadlineExceeded} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// more waits for bytes and buffers them. need is how many must be buffered in the end.
func (r *ReadHalf) more(need int) (err error) {
	if len(r.segs) == 0 && !r.fixed {
		b, err := r.src.ReadBuf()
		if err != nil {
			return err
		}
		return r.adopt(b)
	}
	if r.src.Buffered() == 0 {
		if err := r.settle(need); err != nil {
			return err
		}
	}
	if err := r.makeRoom(need); err != nil {
		return err
	}
	n, last := 0, r.last()
	if room := r.limitedRoom(); !r.fixed && need-r.Buffered() >= directMin && len(room) == len(last.Room()) && r.src.Buffered() == 0 {
		n, err = r.src.ReadInto(last)
	} else {
		n, err = r.src.Read(room)
		last.Extend(n)
		r.counts.BytesCopied += int64(n)
	}
	r.have += n
	return err
}

// take puts what is buffered, and what was read since the checkpoint, back into the
// stream.
func (r *ReadHalf) take() {
	for len(r.segs) > 0 {
		r.src.Unread(r.last()) // in front of the segments behind it
		r.segs = r.segs[:len(r.segs)-1]
	}
	r.close()
}

// close makes all later calls fail, and releases the memory. While a task fills, the
// memory is released when the fill ends.
func (r *ReadHalf) close() {
	r.closed, r.err = true, closedErr("read")
	if !r.filling {
		r.release()
	}
}

func (r *ReadHalf) release() {
	for _, b := range r.segs {
		b.Release()
	}
	r.segs, r.marked, r.have = nil, false, 0
	r.rewind()
}

// held returns the size of the memory that the half holds, in bytes.
func (r *ReadHalf) held() (n int) {
	for _, b := range r.segs {
		n += b.Friend(key).Cap()
	}
	return n
}
