package deflate

// minHistory is the smallest capacity of a history in bytes.
const minHistory = 512

// A history is the window: the last bytes of the messages, to which a match may
// refer. It grows up to its maximum and is a ring from then on.
type history struct {
	buf  []byte // cap is at most max
	next int    // index of the oldest byte, which the next one replaces, once len is max
	max  int
}

func (h *history) len() int { return len(h.buf) }

func (h *history) forget() { h.buf, h.next = h.buf[:0], 0 }

// add appends p and forgets what exceeds the maximum.
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
	for len(p) > 0 { // the ring is full: overwrite the oldest bytes
		n := copy(h.buf[h.next:], p)
		if h.next += n; h.next == h.max {
			h.next = 0
		}
		p = p[n:]
	}
}

// grow makes room for n bytes in total. The capacity at least doubles, up to the
// maximum.
func (h *history) grow(n int) {
	if n <= cap(h.buf) {
		return
	}
	bigger := make([]byte, len(h.buf), min(max(n, 2*cap(h.buf), minHistory), h.max))
	copy(bigger, h.buf)
	h.buf = bigger
}

// read copies to dst the bytes that begin back bytes before the end, and returns
// how many. back must be at most len().
func (h *history) read(dst []byte, back int) int {
	at := len(h.buf) - back
	if len(h.buf) == h.max { // a full ring; until then next is 0
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
