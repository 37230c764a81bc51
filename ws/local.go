package ws

import (
	"crypto/rand"

	"github.com/noria-go/noria/internal/list"
	"github.com/noria-go/noria/loop"
)

// A local is what the connections of one loop share. Only that loop uses it.
type local struct {
	loop     *loop.Loop
	messages list.Stack[Message] // free, for reuse
	spare    int                 // how many messages has
	masks    masks
	scratch  []byte // the compressor's output
}

// maxSpareMessages is how many free Messages a loop keeps for reuse.
const maxSpareMessages = 1024

type localKey struct{}

// localOf returns l's local. It must be called on the loop.
func localOf(l *loop.Loop) *local {
	return l.Friend(key).Local(localKey{}, func() any { return &local{loop: l} }).(*local)
}

func (l *local) newMessage(c *Conn, t Type) *Message {
	m := l.messages.Pop()
	if m == nil {
		m = &Message{local: l}
	} else {
		l.spare--
		m.gone = false
	}
	m.typ, m.size, m.conn = t, 0, c
	c.link(m)
	return m
}

// masks makes a client's masking keys. An author of the payload must not be able to
// predict them (RFC 6455, section 10.3), so they come from crypto/rand, a few hundred at
// a time.
type masks struct {
	buf  [1 << 10]byte
	left int
}

func (m *masks) next() (key [4]byte) {
	if m.left == 0 {
		_, _ = rand.Read(m.buf[:]) // documented never to fail
		m.left = len(m.buf)
	}
	m.left -= 4
	return [4]byte(m.buf[m.left:])
}
