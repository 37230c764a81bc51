package compat

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// directMin is what must be missing for bytes to be received straight into the
// buffer: below it, ending the multishot receive costs more than a copy.
const directMin = 32 << 10

// A ReadHalf is the reading half of a sync stream: an io.Reader that never
// waits. It belongs to the stream's loop.
//
// What it holds are segments: the buffer that was received first, and then, as
// more is wanted at once, further ones, each as large as doubling (or a step)
// says. So growing copies nothing, and never has the old and the new at once.
type ReadHalf struct {
	src    *loop.Stream
	opts   Options
	fixed  bool              // one segment, of Options.Size
	segs   []*runtime.Buffer // none: it holds nothing
	have   int               // bytes in segs
	pos    int               // of those, consumed since the checkpoint, and kept
	seg    int               // where pos is: which segment,
	off    int               // and how far into it
	marked bool
	want   int // what the library asked for when it was told ErrWouldBlock
	block  bool
	sure   bool  // want is what it needs, and no more
	err    error // why no more will come
	counts *Counts

	// Whoever fills has segs to itself, since the last of them may be in flight:
	// what is closed meanwhile is released when the filling has come back.
	filling bool
	closed  bool
}

// Buffered returns how many bytes can be read now.
func (r *ReadHalf) Buffered() int {
	if r.closed {
		return 0
	}
	return r.have - r.pos
}

// Held returns the size of the memory that the half holds, in bytes.
func (r *ReadHalf) Held() (n int) {
	for _, b := range r.segs {
		n += b.Cap()
	}
	return n
}

// EOF reports whether the peer has ended its side and all was read.
func (r *ReadHalf) EOF() bool { return r.err == io.EOF && r.Buffered() == 0 }

// Read copies what is buffered to p. If nothing is, it returns ErrWouldBlock,
// or why no more will come: io.EOF, or the stream's error.
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
	r.consumed(n)
	return n, nil
}

func (r *ReadHalf) wouldBlock(want int, sure bool) error {
	// Far above any maximum, and so that what was read can still be added.
	r.want, r.block, r.sure = min(want, math.MaxInt/2), true, sure
	r.counts.WouldBlock++
	return ErrWouldBlock
}

// Want returns nil if n bytes can be read now, and otherwise ErrWouldBlock, or
// why so many will never come; filling waits for all of them then, as with
// Options.Exact. It is for code that knows how much will follow, such as a
// payload behind its header: nothing is allocated, or read in part, before all
// is there.
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

// here returns what is left of the segment that is being read.
func (r *ReadHalf) here() []byte { return r.segs[r.seg].Bytes()[r.off:] }

func (r *ReadHalf) advance(n int) {
	r.pos += n
	if r.off += n; r.off == r.segs[r.seg].Len() && r.seg < len(r.segs)-1 {
		r.seg, r.off = r.seg+1, 0
	}
}

func (r *ReadHalf) consumed(n int) {
	r.counts.BytesRead += int64(n)
	if !r.marked {
		r.drop()
	}
}

// Peek returns what is buffered without consuming it, joined if it must be; if
// there is no memory for that, the first part. The slice is good until the next
// call.
func (r *ReadHalf) Peek() []byte {
	if r.Buffered() == 0 {
		return nil
	}
	if len(r.here()) < r.Buffered() {
		// With room for as much again: what looks after each fill would copy
		// everything each time. Without memory, it is the first part.
		_ = r.join(r.pooled(min(2*r.have, r.opts.Max), 2*r.have+r.opts.Size))
	}
	return r.here()
}

// Discard consumes n of the bytes that are buffered.
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
	r.consumed(n)
	return nil
}

// drop forgets what was consumed, and gives its memory back.
func (r *ReadHalf) drop() {
	if len(r.segs) == 0 || r.closed {
		return
	}
	r.have -= r.pos
	switch {
	case r.have > 0:
		runtime.Drop(r.segs[:r.seg]...)
		r.segs = append(r.segs[:0], r.segs[r.seg:]...)
		r.segs[0].Advance(r.off)
	case r.fixed:
		r.segs[0].Reset(0)
	default:
		runtime.Drop(r.segs...)
		r.segs = nil
	}
	r.rewind()
}

func (r *ReadHalf) rewind() { r.pos, r.seg, r.off = 0, 0, 0 }

// Checkpoint keeps what is read from now on until Commit, so that Rollback can
// give it once more.
func (r *ReadHalf) Checkpoint() {
	r.drop()
	r.marked, r.block, r.sure, r.want = true, false, false, 0
}

// Commit ends the checkpoint: what was read since is gone.
func (r *ReadHalf) Commit() {
	r.marked = false
	r.drop()
}

// Rollback goes back to the checkpoint, which stays: everything that was read
// since will be read again. What the library was missing is counted from
// there.
func (r *ReadHalf) Rollback() {
	if !r.marked {
		return
	}
	r.counts.Rollbacks++
	if r.block {
		r.want += r.pos
	}
	r.rewind()
}

// need returns how many bytes must be buffered for going back to be worth it.
// Without a checkpoint, what does not fit can be read piece by piece.
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

// FillReadBuf waits until there is more to read and returns how many bytes
// came: with Options.Exact not before all is there that the library asked for.
// It returns io.EOF, or the stream's error, when nothing came and nothing will;
// and ErrTooLarge, with nothing lost, when the buffer is full; and ErrClosed when
// the sync stream is closed meanwhile. It is called from a task, which it
// suspends; a second one that fills at the same time gets runtime.ErrBusy.
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

// begin checks that filling makes sense; if it does, it is followed by end.
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

// end turns how filling went into what FillReadBuf returns. An error that
// came after bytes waits until those were read.
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

// passing reports whether err says nothing about later calls: a deadline can
// be moved, room be made, and another task not be killed.
func passing(err error) bool {
	for _, target := range []error{ErrTooLarge, runtime.ErrNoBuffers, loop.ErrOffLoop, runtime.ErrCanceled, os.ErrDeadlineExceeded} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// more waits for bytes and buffers them. need says how many will be wanted.
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

func (r *ReadHalf) last() *runtime.Buffer { return r.segs[len(r.segs)-1] }

// FillReadBufThen is FillReadBuf for callbacks on the loop: it returns at once
// and calls done, later and on the loop, with what FillReadBuf would return.
// Nothing else may use the half until then.
func (r *ReadHalf) FillReadBufThen(done func(n int, err error)) {
	need, err := r.begin()
	if err != nil {
		r.src.Loop().Friend(friend.Key{}).NextTurn(func() { done(0, err) })
		return
	}
	before := r.Buffered()
	var step func()
	step = func() {
		for err == nil && !r.closed && r.Buffered() < need {
			b := r.src.TryReadBuf()
			if b == nil {
				if err = r.src.ReadErr(); err == nil {
					if err = r.rested(need); err == nil {
						r.src.Loop().Friend(friend.Key{}).Notify(r.src.Readable(), step)
						return
					}
				}
				break
			}
			err = r.absorb(b, need)
		}
		done(r.end(before, err))
	}
	r.src.Loop().Friend(friend.Key{}).NextTurn(step)
}

// rested is settle, if there is anything to be settled.
func (r *ReadHalf) rested(need int) error {
	if len(r.segs) == 0 {
		return nil
	}
	return r.settle(need)
}

// absorb buffers as much of b as there is room for.
func (r *ReadHalf) absorb(b *runtime.Buffer, need int) error {
	if len(r.segs) == 0 && !r.fixed {
		return r.adopt(b)
	}
	if err := r.makeRoom(need); err != nil {
		r.src.Unread(b)
		return err
	}
	n := copy(r.limitedRoom(), b.Bytes())
	r.last().Extend(n)
	r.have += n
	r.counts.BytesCopied += int64(n)
	if b = b.Friend(friend.Key{}).Rest(n); b != nil {
		r.src.Unread(b)
	}
	return nil
}

// adopt takes the very buffer that was received, as far as the maximum allows.
// One that has other owners, which was put back by somebody, is copied: it
// could not be changed. If there is no memory for that, nothing is lost.
func (r *ReadHalf) adopt(b *runtime.Buffer) error {
	n := min(b.Len(), r.opts.Max)
	if b.Shared() {
		own, err := r.src.Loop().Pool().Copy(0, b.Bytes()[:n])
		if err != nil {
			r.src.Unread(b)
			return err
		}
		r.counts.BytesCopied += int64(n)
		if b = b.Friend(friend.Key{}).Rest(n); b != nil {
			r.src.Unread(b)
		}
		r.hold(own)
		return nil
	}
	if n < b.Len() { // only a maximum smaller than one receive buffer gets here
		behind := runtime.NewShared(append([]byte(nil), b.Bytes()[n:]...))
		r.counts.BytesCopied += int64(behind.Len())
		b.Truncate(n)
		r.src.Unread(behind)
	}
	r.hold(b)
	return nil
}

// hold adds a segment.
func (r *ReadHalf) hold(b *runtime.Buffer) {
	r.segs = append(r.segs, b)
	r.have += b.Len()
	if r.seg == len(r.segs)-2 && r.off == r.segs[r.seg].Len() {
		r.seg, r.off = r.seg+1, 0
	}
	r.counts.PeakBuffer = max(r.counts.PeakBuffer, r.Held())
}

// settle moves a few bytes that lie in a large buffer into a small one, before
// waiting with them: half a message must not hold a receive buffer, nor one
// that was grown for its predecessor.
func (r *ReadHalf) settle(need int) error {
	if r.fixed || r.Held() <= 2*r.have+r.opts.Size {
		return nil
	}
	size := max(r.have+1, r.opts.Size)
	if total := need + r.pos; r.sure && total > size {
		size = max(size, min(total, 2*r.have))
	}
	return r.join(min(size, r.opts.Max))
}

// makeRoom sees to it that at least a byte can be added.
func (r *ReadHalf) makeRoom(need int) error {
	if r.have >= r.opts.Max {
		return fmt.Errorf("compat: %d bytes are buffered and more are wanted, the maximum is %d: %w", r.have, r.opts.Max, ErrTooLarge)
	}
	if len(r.segs) > 0 {
		if len(r.limitedRoom()) > 0 {
			return nil
		}
		if r.fixed { // what was read left headroom
			b := r.segs[0]
			data := b.Bytes()
			b.Reset(0)
			b.Append(data) // it may overlap: copy can do that
			r.counts.BytesCopied += int64(len(data))
			return nil
		}
	}
	size := r.opts.Size
	if !r.fixed {
		size = r.growth(need)
	}
	b, err := getBuf(r.src, size)
	if err != nil {
		return err
	}
	r.hold(b)
	return nil
}

// limitedRoom is the room that a fixed buffer's size, or the maximum, leaves:
// the memory behind it may be more.
func (r *ReadHalf) limitedRoom() []byte {
	b := r.last()
	limit := r.opts.Max - r.have
	if r.fixed {
		limit = r.opts.Size - b.Headroom() - b.Len()
	}
	room := b.Room()
	return room[:max(0, min(len(room), limit))]
}

// growth returns the size of the next segment: as much as there is, or a step;
// no more than what is wanted, if that is known, and the maximum.
func (r *ReadHalf) growth(need int) int {
	size := r.opts.Step
	if r.opts.Growth == Doubling {
		size = max(r.have, r.opts.Size)
	}
	limit := size + r.opts.Size // beyond it, more would be held than is promised
	if missing := need + r.pos - r.have; r.sure && missing > 0 && missing <= limit {
		size = missing
	}
	return r.pooled(min(size, r.opts.Max-r.have), limit)
}

// pooled is size, or what is left of it if the pool would make more of it than
// limit: its sizes are powers of two, but for the largest.
func (r *ReadHalf) pooled(size, limit int) int {
	const rounded = 8 << 20
	if pow := 1 << bits.Len(uint(size-1)); size <= rounded && pow > limit {
		return pow / 2
	}
	return size
}

// join puts what the segments hold into one of this size.
func (r *ReadHalf) join(size int) error {
	b, err := getBuf(r.src, size)
	if err != nil {
		return err
	}
	for _, seg := range r.segs {
		b.Append(seg.Bytes())
		seg.Release()
	}
	r.counts.BytesCopied += int64(r.have)
	r.segs, r.seg, r.off = append(r.segs[:0], b), 0, r.pos
	r.counts.PeakBuffer = max(r.counts.PeakBuffer, b.Cap())
	return nil
}

// take puts what is buffered, and what was read since the checkpoint, back into
// the stream.
func (r *ReadHalf) take() {
	for len(r.segs) > 0 {
		r.src.Unread(r.last()) // in front of what is behind it
		r.segs = r.segs[:len(r.segs)-1]
	}
	r.close()
}

// close refuses everything from now on. The memory goes back, at once or when
// the filling that goes on has come back.
func (r *ReadHalf) close() {
	r.closed, r.err = true, closedErr("read")
	if !r.filling {
		r.release()
	}
}

func (r *ReadHalf) release() {
	runtime.Drop(r.segs...)
	r.segs, r.marked, r.have = nil, false, 0
	r.rewind()
}
