package compat

import (
	"fmt"
	"math/bits"

	"github.com/noria-go/noria/runtime"
)

// A ReadHalf's memory: how its segments are received, grow, shrink, and are joined.

func (r *ReadHalf) last() *runtime.Buffer { return r.segs[len(r.segs)-1] }

// adopt makes a received buffer a segment, as far as the maximum allows. A buffer with
// other owners, such as what TakeOver was given as unread, is copied, because a segment
// may be changed. If there is no memory for the copy, the bytes go back into the stream.
func (r *ReadHalf) adopt(b *runtime.Buffer) error {
	n := min(b.Len(), r.opts.Max)
	if b.Friend(key).Shared() {
		own, err := r.src.Loop().Pool().Friend(key).Copy(0, b.Bytes()[:n])
		if err != nil {
			r.src.Unread(b)
			return err
		}
		r.counts.BytesCopied += int64(n)
		if b = b.Friend(key).Rest(n); b != nil {
			r.src.Unread(b)
		}
		r.hold(own)
		return nil
	}
	if n < b.Len() { // the maximum is smaller than a receive buffer
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
	r.counts.PeakBuffer = max(r.counts.PeakBuffer, r.held())
}

// settle moves a few bytes out of a large buffer into a small one, before a task waits
// with them: a partial message must not hold a receive buffer, nor a buffer that grew
// for the message before it.
func (r *ReadHalf) settle(need int) error {
	if r.fixed || r.held() <= 2*r.have+r.opts.Size {
		return nil
	}
	size := max(r.have+1, r.opts.Size)
	if total := need + r.pos; r.sure && total > size {
		size = max(size, min(total, 2*r.have))
	}
	return r.join(min(size, r.opts.Max))
}

// makeRoom sees to it that at least one byte can be added.
func (r *ReadHalf) makeRoom(need int) error {
	if r.have >= r.opts.Max {
		return fmt.Errorf("compat: %d bytes are buffered and more are wanted, the maximum is %d: %w", r.have, r.opts.Max, ErrTooLarge)
	}
	if len(r.segs) > 0 {
		if len(r.limitedRoom()) > 0 {
			return nil
		}
		if r.fixed { // move the bytes to the front, where others were read
			b := r.segs[0]
			data := b.Bytes()
			b.Reset(0)
			b.Append(data) // the two may overlap, which copy allows
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

// limitedRoom returns the room in the last segment, without what lies beyond the
// maximum or the size of a fixed buffer: the pool may have given more memory.
func (r *ReadHalf) limitedRoom() []byte {
	b := r.last()
	limit := r.opts.Max - r.have
	if r.fixed {
		limit = r.opts.Size - b.Friend(key).Headroom() - b.Len()
	}
	room := b.Room()
	return room[:max(0, min(len(room), limit))]
}

// growth returns the size of the next segment: as many bytes as are held, or step, but
// no more than the parser is known to want or the maximum allows.
func (r *ReadHalf) growth(need int) int {
	size := r.step
	if size == 0 {
		size = max(r.have, r.opts.Size)
	}
	limit := size + r.opts.Size // with more, the half would hold more than the package comment says
	if missing := need + r.pos - r.have; r.sure && missing > 0 && missing <= limit {
		size = missing
	}
	return pooled(min(size, r.opts.Max-r.have), limit)
}

// pooled returns size, or less if the pool would round it up to more than limit. The
// pool's sizes are powers of two, except for the largest.
func pooled(size, limit int) int {
	const rounded = 8 << 20
	if pow := 1 << bits.Len(uint(size-1)); size <= rounded && pow > limit {
		return pow / 2
	}
	return size
}

// join moves what the segments hold into one of the given size.
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
	r.counts.PeakBuffer = max(r.counts.PeakBuffer, b.Friend(key).Cap())
	return nil
}
