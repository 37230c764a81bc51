package ws

import (
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws/internal/frame"
)

// An engine cuts what has arrived into frames, and makes frames of what is to
// be sent. It knows nothing of messages, and it never waits: where there is not
// enough it says so, and is asked again when more has arrived.
type engine interface {
	// header reads the next frame's header.
	header(h *frame.Header) (ok bool, err error)

	// payload returns the next bytes of the payload of frame h, unmasked: at
	// least one, at most h.Len-at, of which at came before.
	payload(h *frame.Header, at int64) (s segment, ok bool)

	// control is payload for control frames: it copies to p, which has room for
	// all that is left of the payload.
	control(p []byte, h *frame.Header, at int64) int

	// drop gives back what was received and not read.
	drop()

	// write queues m, which it takes, as one frame. (It makes the header itself:
	// one that is passed through an interface is an allocation.)
	write(c *Conn, m *Message) error
}

// native is the engine that works in the buffers that the kernel filled. It
// holds at most one of them, and none while it waits.
type native struct {
	stream interface{ TryReadBuf() *runtime.Buffer }
	dec    frame.Decoder
	cur    *runtime.Buffer
	in     []byte // the rest of cur
	size   int    // of cur

	// credit are owners of cur beside the native itself which messages gave back
	// and the next one can have: so a buffer full of short messages is not
	// counted up and down, atomically, once for each.
	credit int
}

// more takes the next buffer that has arrived.
func (e *native) more() bool {
	e.drop()
	b := e.stream.TryReadBuf()
	if b == nil {
		return false
	}
	e.cur, e.in = b, b.Bytes()
	e.size = len(e.in)
	return true
}

func (e *native) header(h *frame.Header) (bool, error) {
	for {
		if len(e.in) > 0 {
			n, ok, err := e.dec.Next(e.in, h)
			e.in = e.in[n:]
			if ok || err != nil {
				return ok, err
			}
		}
		if !e.more() {
			return false, nil
		}
	}
}

func (e *native) payload(h *frame.Header, at int64) (segment, bool) {
	if len(e.in) == 0 && !e.more() {
		return segment{}, false
	}
	var s segment
	e.take(&s, int(min(h.Len-at, int64(len(e.in)))))
	if h.Masked {
		frame.Mask(s.data, h.Mask, at)
	}
	return s, true
}

// take makes s the next n bytes, of which there are as many. What is read last
// goes along with the buffer. It sets field by field: to copy a segment that was
// just made stalls the processor, which cannot forward two stores to one load.
func (e *native) take(s *segment, n int) {
	s.off = e.size - len(e.in)
	s.data = e.in[:n:n]
	if n < len(e.in) {
		e.in = e.in[n:]
		s.buf = e.own()
		return
	}
	for ; e.credit > 0; e.credit-- {
		e.cur.Release()
	}
	s.buf, e.cur, e.in = e.cur, nil, nil
}

// own returns the current buffer, of which the caller is an owner now.
func (e *native) own() *runtime.Buffer {
	if e.credit > 0 {
		e.credit--
		return e.cur
	}
	return e.cur.Retain()
}

func (e *native) control(p []byte, h *frame.Header, at int64) int {
	if len(e.in) == 0 && !e.more() {
		return 0
	}
	n := copy(p, e.in)
	e.in = e.in[n:]
	if h.Masked {
		frame.Mask(p[:n], h.Mask, at)
	}
	return n
}

// release ends the ownership that a segment had of b.
func (e *native) release(b *runtime.Buffer) {
	if b == e.cur {
		e.credit++
		return
	}
	b.Release()
}

// write copies a short message behind what is queued, and queues the buffers of a
// longer one, or of one that begins the queue and has its buffer to itself.
func (e *native) write(c *Conn, m *Message) error {
	h := c.header(m)
	if m.size <= smallMessage && (c.sink.TailRoom() > 0 || len(m.rest) > 0 || m.first.buf == nil || !m.first.sole()) {
		return c.writeSmall(&h, m)
	}
	return c.writeBuffers(&h, m)
}

func (e *native) drop() {
	if e.cur == nil {
		return
	}
	for ; e.credit > 0; e.credit-- {
		e.cur.Release()
	}
	e.cur.Release()
	e.cur, e.in = nil, nil
}
