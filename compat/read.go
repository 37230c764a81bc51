package compat

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/noria-go/noria/runtime"
)

// directMin is what must be missing for bytes to be received straight into the
// buffer: below it, ending the multishot receive costs more than a copy.
const directMin = 32 << 10

// A ReadHalf is the reading half of a sync stream: an io.Reader that never
// waits. It belongs to the stream's loop.
type ReadHalf struct {
	src    Stream
	opts   Options
	fixed  bool
	buf    *runtime.Buffer // nil: it holds nothing
	pos    int             // consumed since the checkpoint, and kept
	marked bool
	want   int // what the library asked for when it was told ErrWouldBlock
	block  bool
	err    error // why no more will come
	counts *Counts
}

// Buffered returns how many bytes can be read now.
func (r *ReadHalf) Buffered() int {
	if r.buf == nil {
		return 0
	}
	return r.buf.Holds() - r.pos // also while it is being received into
}

// Held returns the size of the memory that the half holds, in bytes.
func (r *ReadHalf) Held() int {
	if r.buf == nil {
		return 0
	}
	return r.buf.Cap()
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
		r.want, r.block = len(p), true
		r.counts.WouldBlock++
		return 0, ErrWouldBlock
	}
	n := copy(p, r.buf.Bytes()[r.pos:])
	r.counts.BytesCopied += int64(n)
	r.consume(n)
	return n, nil
}

// Peek returns what is buffered without consuming it. The slice is good until
// the next call.
func (r *ReadHalf) Peek() []byte {
	if r.buf == nil {
		return nil
	}
	return r.buf.Bytes()[r.pos:]
}

// Discard consumes n of the bytes that are buffered.
func (r *ReadHalf) Discard(n int) error {
	if n < 0 || n > r.Buffered() {
		return fmt.Errorf("compat: discard %d of %d bytes", n, r.Buffered())
	}
	r.consume(n)
	return nil
}

func (r *ReadHalf) consume(n int) {
	r.counts.BytesRead += int64(n)
	r.pos += n
	if !r.marked {
		r.drop()
	}
}

// drop forgets what was consumed, and gives the memory back once that is all.
func (r *ReadHalf) drop() {
	if r.buf == nil {
		return
	}
	if r.pos < r.buf.Len() {
		r.buf.Advance(r.pos)
	} else if r.fixed {
		r.buf.Reset(0)
	} else {
		r.buf.Release()
		r.buf = nil
	}
	r.pos = 0
}

// Checkpoint keeps what is read from now on until Commit, so that Rollback can
// give it once more.
func (r *ReadHalf) Checkpoint() {
	r.drop()
	r.marked, r.block, r.want = true, false, 0
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
	r.pos = 0
}

// need returns how many bytes must be buffered for going back to be worth it.
// Without a checkpoint, what does not fit can be read piece by piece.
func (r *ReadHalf) need() int {
	if !r.opts.Exact || !r.block {
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
// and ErrTooLarge, with nothing lost, when the buffer is full. It is called
// from a task, which it suspends.
func (r *ReadHalf) FillReadBuf() (int, error) {
	r.counts.Fills++
	before := r.Buffered()
	need, err := r.begin()
	if err != nil {
		return 0, err
	}
	for err == nil && r.Buffered() < need {
		err = r.more(need)
	}
	return r.end(before, err)
}

// begin checks that filling makes sense.
func (r *ReadHalf) begin() (need int, err error) {
	need = r.need()
	if r.err != nil {
		return need, r.err
	}
	if need+r.pos > r.opts.Max {
		return need, fmt.Errorf("compat: %d bytes are wanted at once, the maximum is %d: %w", need+r.pos, r.opts.Max, ErrTooLarge)
	}
	return need, nil
}

// end turns how filling went into what FillReadBuf returns. An error that
// came after bytes waits until those were read.
func (r *ReadHalf) end(before int, err error) (int, error) {
	r.block = false
	if r.buf != nil {
		r.counts.PeakBuffer = max(r.counts.PeakBuffer, r.buf.Cap())
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
	for _, target := range []error{ErrTooLarge, runtime.ErrNoBuffers, runtime.ErrOffLoop, runtime.ErrCanceled, os.ErrDeadlineExceeded} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// more waits for bytes and buffers them. need says how many will be wanted.
func (r *ReadHalf) more(need int) error {
	if r.buf == nil && !r.fixed {
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
	if !r.fixed && need-r.Buffered() >= directMin && r.src.Buffered() == 0 {
		_, err := r.src.ReadInto(r.buf)
		return err
	}
	n, err := r.src.Read(r.limitedRoom())
	r.buf.Extend(n)
	r.counts.BytesCopied += int64(n)
	return err
}

// FillReadBufThen is FillReadBuf for callbacks on the loop: it returns at once
// and calls done, later and on the loop, with what FillReadBuf would return.
// Nothing else may use the half until then.
func (r *ReadHalf) FillReadBufThen(done func(n int, err error)) {
	r.counts.Fills++
	before := r.Buffered()
	need, err := r.begin()
	var step func()
	step = func() {
		for err == nil && r.Buffered() < need {
			b := r.src.TryReadBuf()
			if b == nil {
				if err = r.src.ReadErr(); err == nil {
					if err = r.rested(need); err == nil {
						r.src.Loop().Notify(r.src.Readable(), step)
						return
					}
				}
				break
			}
			err = r.absorb(b, need)
		}
		done(r.end(before, err))
	}
	r.src.Loop().NextTurn(step)
}

// rested is settle, if there is anything to be settled.
func (r *ReadHalf) rested(need int) error {
	if r.buf == nil {
		return nil
	}
	return r.settle(need)
}

// absorb buffers as much of b as there is room for.
func (r *ReadHalf) absorb(b *runtime.Buffer, need int) error {
	if r.buf == nil && !r.fixed {
		return r.adopt(b)
	}
	if err := r.makeRoom(need); err != nil {
		r.src.Unread(b)
		return err
	}
	n := copy(r.limitedRoom(), b.Bytes())
	r.buf.Extend(n)
	r.counts.BytesCopied += int64(n)
	if b = rest(b, n); b != nil {
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
		if b = rest(b, n); b != nil {
			r.src.Unread(b)
		}
		r.buf = own
		return nil
	}
	if n < b.Len() { // only a maximum smaller than one receive buffer gets here
		behind := runtime.NewShared(append([]byte(nil), b.Bytes()[n:]...))
		r.counts.BytesCopied += int64(behind.Len())
		b.Truncate(n)
		r.src.Unread(behind)
	}
	r.buf = b
	return nil
}

// settle moves a few bytes that lie in a large buffer into a small one, before
// waiting with them: half a message must not hold a receive buffer, nor one
// that was grown for its predecessor.
func (r *ReadHalf) settle(need int) error {
	if r.fixed || r.buf.Cap() <= 2*r.buf.Len()+r.opts.Size {
		return nil
	}
	size := max(r.buf.Len()+1, r.opts.Size)
	if total := need + r.pos; r.opts.Exact && total > size {
		size = max(size, min(total, 2*r.buf.Len())) // it will be moved once less
	}
	return r.move(min(size, r.opts.Max))
}

// makeRoom sees to it that at least a byte can be added.
func (r *ReadHalf) makeRoom(need int) error {
	if r.buf == nil { // of a SyncStream, the first time
		b, err := r.src.Loop().Pool().Get(r.opts.Size)
		r.buf = b
		return err
	}
	if r.buf.Len() >= r.opts.Max {
		return fmt.Errorf("compat: %d bytes are buffered and more are wanted, the maximum is %d: %w", r.buf.Len(), r.opts.Max, ErrTooLarge)
	}
	if len(r.limitedRoom()) > 0 {
		return nil
	}
	if r.buf.Headroom() > 0 && (r.fixed || r.buf.Headroom() >= r.buf.Len()) {
		data := r.buf.Bytes()
		r.buf.Reset(0)
		r.buf.Append(data) // it may overlap: copy can do that
		r.counts.BytesCopied += int64(len(data))
		return nil
	}
	return r.move(r.grown(need))
}

// limitedRoom is the room that a fixed buffer's size, or the maximum, leaves:
// the memory behind it may be more.
func (r *ReadHalf) limitedRoom() []byte {
	room := r.buf.Room()
	limit := r.opts.Max - r.buf.Len()
	if r.fixed {
		limit = min(limit, r.opts.Size-r.buf.Headroom()-r.buf.Len())
	}
	return room[:max(0, min(len(room), limit))]
}

// grown returns the next size of a full buffer: a step further, but no further
// than what is wanted, if that is known, and the maximum.
func (r *ReadHalf) grown(need int) int {
	size := r.buf.Len()
	next := size + r.opts.Step
	if r.opts.Growth == Doubling {
		next = max(2*size, r.opts.Size)
	}
	if total := need + r.pos; r.opts.Exact && total > size {
		next = min(next, total)
		if total-next < r.opts.Size && r.opts.Growth == Doubling {
			next = total // what is missing after this step is less than the smallest one
		}
	}
	return min(next, r.opts.Max)
}

// move puts what the buffer holds into one of this size.
func (r *ReadHalf) move(size int) error {
	b, err := r.src.Loop().Pool().Get(size)
	if err != nil {
		return err
	}
	n := b.Append(r.buf.Bytes())
	r.counts.BytesCopied += int64(n)
	r.counts.PeakBuffer = max(r.counts.PeakBuffer, b.Cap())
	r.buf.Release()
	r.buf = b
	return nil
}

// take puts what is buffered, and not read since the checkpoint, back into the
// stream.
func (r *ReadHalf) take() {
	r.pos, r.marked = 0, false
	if r.buf != nil {
		r.src.Unread(r.buf)
		r.buf = nil
	}
}

func (r *ReadHalf) release() {
	if r.buf != nil {
		r.buf.Release()
		r.buf = nil
	}
	r.pos, r.marked = 0, false
}
