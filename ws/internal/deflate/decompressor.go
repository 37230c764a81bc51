package deflate

import (
	"errors"
	"math"
	"sync"
)

// A Decompressor inflates the messages that one side of a connection sends. It
// must not be used by two goroutines at once. Between two messages it holds the
// window, if there is context takeover, and nothing else.
//
// Each piece of a message's payload is given to Inflate as it comes, the last
// one with last set; an Inflate that has filled dst is called again with what
// is left of the piece:
//
//	d.Begin(limit)
//	for !done {
//		dst := … // memory, as much as is wanted
//		written, read, done, err := d.Inflate(dst, src, last)
//		…        // dst[:written] is the message's next part
//		src = src[read:]
//		if len(src) == 0 && !last && written < len(dst) {
//			src, last = … // the next piece
//		}
//	}
type Decompressor struct {
	takeover bool
	window   history // with takeover
	z        *inflater
	room     int64 // bytes that the message may still inflate to
	tail     int   // bytes of the tail that have been read
	err      error
}

// NewDecompressor returns a Decompressor of messages made with this window and,
// if takeover is set, with references into earlier messages.
func NewDecompressor(windowBits int, takeover bool) *Decompressor {
	return &Decompressor{takeover: takeover, window: history{max: 1 << checkBits(windowBits)}}
}

var inflaters = sync.Pool{New: func() any { return &inflater{scratch: history{max: 1 << MaxWindowBits}} }}

// Begin begins a message that may inflate to limit bytes; 0 means no limit. A
// message that has not ended is given up, and with takeover that cannot be gone
// on from: what the other side refers to is missing.
func (d *Decompressor) Begin(limit int64) {
	if d.z != nil && d.takeover && d.err == nil {
		d.err = errors.New("deflate: a message was given up half-way")
	}
	d.release()
	if limit <= 0 {
		limit = math.MaxInt64
	}
	d.room, d.tail = limit, 0
}

// Unlimit takes away the limit that Begin was given.
func (d *Decompressor) Unlimit() { d.room = math.MaxInt64 }

// Inflate inflates src into dst and returns how much of each it used. With last
// set, src is the rest of the message. It returns when src is used up, when dst
// is full and there is more, or when the message has ended: done. Begin begins
// the next.
//
// The error is ErrCorrupt, or ErrTooLarge as soon as one byte more than the
// limit would be written. What was written before is valid; the same error
// comes from then on.
func (d *Decompressor) Inflate(dst, src []byte, last bool) (written, read int, done bool, err error) {
	if d.err != nil {
		return 0, 0, false, d.err
	}
	if d.z == nil {
		d.z = inflaters.Get().(*inflater)
		d.z.reset()
	}
	window := &d.window
	if !d.takeover {
		window = &d.z.scratch
	}
	limited := int64(len(dst)) >= d.room
	if limited {
		dst = dst[:d.room]
	}
	written, read, err = d.z.inflate(dst, 0, src, window)
	if err == nil && last && !d.z.full {
		written, done, err = d.end(dst, written, window)
	}
	d.room -= int64(written)
	if err == nil && limited && d.z.full {
		err = ErrTooLarge
	}
	if err != nil {
		d.err = err
		d.release()
		return written, read, false, err
	}
	if !done || d.takeover {
		window.add(dst[:written])
	}
	if done {
		d.release()
	}
	return written, read, done, nil
}

// end reads the tail after the message's last byte, unless the message has
// ended without: it is empty, it ends with a final block, or its sender left
// the tail where it was.
func (d *Decompressor) end(dst []byte, n int, window *history) (int, bool, error) {
	if d.tail == 0 && d.z.between() {
		return n, true, nil
	}
	n, read, err := d.z.inflate(dst, n, []byte(tail[d.tail:]), window)
	d.tail += read
	switch {
	case err != nil || d.z.full:
		return n, false, err
	case !d.z.between():
		return n, false, ErrCorrupt // it ends in the middle of a block
	}
	return n, true, nil
}

// Between says whether no message has begun, or the last one has ended.
func (d *Decompressor) Between() bool { return d.z == nil }

// Held returns how many bytes of memory d holds until its next message.
func (d *Decompressor) Held() int { return cap(d.window.buf) }

// Close gives back what d holds. It may be called again; d is of no more use.
func (d *Decompressor) Close() {
	if d.err == nil {
		d.err = errors.New("deflate: the decompressor is closed")
	}
	d.release()
	d.window.buf = nil
}

func (d *Decompressor) release() {
	if d.z != nil {
		inflaters.Put(d.z)
		d.z = nil
	}
}
