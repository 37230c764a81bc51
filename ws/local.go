package ws

import (
	"crypto/rand"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/internal/list"
	"github.com/noria-go/noria/loop"
)

// A local is what the connections of one loop share.
type local struct {
	loop     *loop.Loop
	messages list.Stack[Message] // free ones
	spare    int                 // how many
	masks    masks
	scratch  []byte // for compressing
}

const maxSpareMessages = 1024

type localKey struct{}

// localOf is called on the loop.
func localOf(l *loop.Loop) *local {
	return l.Friend(friend.Key{}).Local(localKey{}, func() any { return &local{loop: l} }).(*local)
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
