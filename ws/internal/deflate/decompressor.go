package deflate

import (
	"errors"
	"math"
	"sync"
)

// A Decompressor inflates the messages of one side of a connection. Only one
// goroutine may use it at a time. Between two messages it holds the window, if there
// is context takeover, and nothing else.
//
// The caller passes each piece of a message's payload to Inflate as it arrives, and
// sets last with the final one. When Inflate has filled dst, the caller calls it again
// with the rest of the piece:
//
//	d.Begin(limit)
//	for !done {
//		dst := … // memory of any size
//		written, read, done, err := d.Inflate(dst, src, last)
//		…        // dst[:written] is the next part of the message
//		src = src[read:]
//		if len(src) == 0 && !last && written < len(dst) {
//			src, last = … // the next piece
//		}
//	}
type Decompressor struct {
	takeover bool
	window   history // used with takeover
	z        *inflater
	room     int64 // how many more bytes the message may inflate to
	tail     int   // how many bytes of the tail have been read
	err      error
}

// NewDecompressor returns a Decompressor for messages made with this window and, if
// takeover is set, with references into earlier messages.
func NewDecompressor(windowBits int, takeover bool) *Decompressor {
	return &Decompressor{takeover: takeover, window: history{max: 1 << checkBits(windowBits)}}
}

var inflaters = sync.Pool{New: func() any { return &inflater{scratch: history{max: 1 << MaxWindowBits}} }}

// Begin begins a message that may inflate to limit bytes; 0 means no limit. It
// abandons a message that has not ended. With takeover every later Inflate then
// fails, because the window lacks what later messages refer to.
func (d *Decompressor) Begin(limit int64) {
	if d.z != nil && d.takeover && d.err == nil {
		d.err = errors.New("deflate: an earlier message was abandoned")
	}
	d.release()
	if limit <= 0 {
		limit = math.MaxInt64
	}
	d.room, d.tail = limit, 0
}

// Unlimit removes the limit that Begin set.
func (d *Decompressor) Unlimit() { d.room = math.MaxInt64 }

// Inflate inflates src into dst and returns how many bytes of each it used. If last
// is set, src is the rest of the message. Inflate returns when src is used up, when
// dst is full and there is more, or, with done set, when the message has ended.
// Begin must then be called before the next message.
//
// The error is ErrCorrupt, or ErrTooLarge as soon as one byte more than the limit
// would be written. The bytes written are valid even then. Every later call returns
// the same error.
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

// end reads the tail after the message's last byte. It does not if the message has
// ended without it: the message is empty, it ends with a final block, or its sender
// did not remove the tail.
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
		return n, false, ErrCorrupt // the message ends in the middle of a block
	}
	return n, true, nil
}

// Between reports whether d is between two messages: none has begun, or the last
// one has ended.
func (d *Decompressor) Between() bool { return d.z == nil }

// Held returns how many bytes of memory d keeps until its next message.
func (d *Decompressor) Held() int { return cap(d.window.buf) }

// Close frees what d holds. It may be called more than once. d is unusable
// afterwards.
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
