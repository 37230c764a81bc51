package ws

import (
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws/internal/frame"
)

// A frameReader splits the received bytes into frames, in the buffers that the kernel
// filled. It knows nothing of messages, and never waits: if a frame is incomplete, it
// says so, and the connection calls it again when more bytes have arrived. It holds at
// most one buffer, and none while the connection waits.
type frameReader struct {
	stream interface{ TryReadBuf() *runtime.Buffer }
	dec    frame.Decoder
	cur    *runtime.Buffer
	in     []byte // the unread rest of cur
	size   int    // of cur, in bytes

	// credit is how many ownerships of cur messages have given back. The next messages
	// take those, so that a buffer full of short messages does not cost two atomic
	// operations for each.
	credit int
}

// more takes the next buffer that has arrived, and reports whether there was one.
func (r *frameReader) more() bool {
	r.drop()
	b := r.stream.TryReadBuf()
	if b == nil {
		return false
	}
	r.cur, r.in = b, b.Bytes()
	r.size = len(r.in)
	return true
}

// header reads the next frame's header, and reports whether all of it has arrived.
func (r *frameReader) header(h *frame.Header) (bool, error) {
	for {
		if len(r.in) > 0 {
			n, ok, err := r.dec.Next(r.in, h)
			r.in = r.in[n:]
			if ok || err != nil {
				return ok, err
			}
		}
		if !r.more() {
			return false, nil
		}
	}
}

// payload returns the next bytes of the payload of frame h, unmasked: at least one, and
// at most h.Len-at. at is how many bytes of the payload were read before.
func (r *frameReader) payload(h *frame.Header, at int64) (segment, bool) {
	if len(r.in) == 0 && !r.more() {
		return segment{}, false
	}
	var s segment
	r.take(&s, int(min(h.Len-at, int64(len(r.in)))))
	if h.Masked {
		frame.Mask(s.data, h.Mask, at)
	}
	return s, true
}

// take sets s to the next n bytes, which must have arrived. The segment that ends the
// buffer takes over the frameReader's own ownership. take sets s field by field: copying
// a segment that was just made stalls the processor, which cannot forward two stores to
// one load.
func (r *frameReader) take(s *segment, n int) {
	s.off = r.size - len(r.in)
	s.data = r.in[:n:n]
	if n < len(r.in) {
		r.in = r.in[n:]
		s.buf = r.own()
		return
	}
	for ; r.credit > 0; r.credit-- {
		r.cur.Release()
	}
	s.buf, r.cur, r.in = r.cur, nil, nil
}

// own returns the current buffer and makes the caller one of its owners.
func (r *frameReader) own() *runtime.Buffer {
	if r.credit > 0 {
		r.credit--
		return r.cur
	}
	return r.cur.Retain()
}

// control is payload for control frames: it copies the bytes to p, which must have room
// for the rest of the payload, and returns how many there were.
func (r *frameReader) control(p []byte, h *frame.Header, at int64) int {
	if len(r.in) == 0 && !r.more() {
		return 0
	}
	n := copy(p, r.in)
	r.in = r.in[n:]
	if h.Masked {
		frame.Mask(p[:n], h.Mask, at)
	}
	return n
}

// release ends the ownership that a segment had of b.
func (r *frameReader) release(b *runtime.Buffer) {
	if b == r.cur {
		r.credit++
		return
	}
	b.Release()
}

// drop releases the current buffer with its unread bytes.
func (r *frameReader) drop() {
	if r.cur == nil {
		return
	}
	for ; r.credit > 0; r.credit-- {
		r.cur.Release()
	}
	r.cur.Release()
	r.cur, r.in = nil, nil
}
