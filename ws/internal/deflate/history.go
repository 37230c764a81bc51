package deflate

// minHistory is what a history starts with, in bytes.
const minHistory = 512

// A history is the last bytes that went by: what a match may refer to. It grows
// as they come, and from its maximum on is a ring.
type history struct {
	buf  []byte // len is how much is known; cap is at most max
	next int    // where the next byte goes, once len is max
	max  int
}

func (h *history) len() int { return len(h.buf) }

func (h *history) forget() { h.buf, h.next = h.buf[:0], 0 }

// add appends p.
func (h *history) add(p []byte) {
	if len(p) >= h.max {
		p = p[len(p)-h.max:]
		h.forget()
	}
	if room := h.max - len(h.buf); room > 0 {
		n := min(room, len(p))
		h.grow(len(h.buf) + n)
		h.buf = append(h.buf, p[:n]...)
		p = p[n:]
	}
	for len(p) > 0 { // the ring is full: over the oldest
		n := copy(h.buf[h.next:], p)
		if h.next += n; h.next == h.max {
			h.next = 0
		}
		p = p[n:]
	}
}

// grow makes room for n bytes in all: twice what is there, up to the maximum.
func (h *history) grow(n int) {
	if n <= cap(h.buf) {
		return
	}
	bigger := make([]byte, len(h.buf), min(max(n, 2*cap(h.buf), minHistory), h.max))
	copy(bigger, h.buf)
	h.buf = bigger
}

// read copies to dst what begins back bytes before the end, and returns how
// much it was. back is at most len().
func (h *history) read(dst []byte, back int) int {
	at := len(h.buf) - back
	if len(h.buf) == h.max { // a ring; next is 0 while it is not full
		if at += h.next; at >= h.max {
			at -= h.max
		}
	}
	n := copy(dst[:min(len(dst), back)], h.buf[at:])
	if n < back && n < len(dst) {
		n += copy(dst[n:min(len(dst), back)], h.buf[:h.next])
	}
	return n
}
