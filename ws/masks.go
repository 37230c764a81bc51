package ws

import "crypto/rand"

// masks are a client's masking keys. They must not be predictable by whoever
// chooses the payload (RFC 6455, section 10.3), so they are crypto/rand's, taken
// a few hundred at a time.
type masks struct {
	buf  [1 << 10]byte
	left int
}

func (m *masks) next() (key [4]byte) {
	if m.left == 0 {
		_, _ = rand.Read(m.buf[:]) // it never fails: see crypto/rand
		m.left = len(m.buf)
	}
	m.left -= 4
	return [4]byte(m.buf[m.left:])
}
