package ws

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/noria-go/noria/internal/list"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws/internal/frame"
)

// A Type is the type of a message: TypeText or TypeBinary.
type Type uint8

const (
	// TypeText is UTF-8. The connection checks what it receives, and not what it sends.
	TypeText Type = Type(frame.Text)
	// TypeBinary is arbitrary bytes.
	TypeBinary Type = Type(frame.Binary)
)

func (t Type) String() string { return frame.Opcode(t).String() }

// check panics if t is not the type of a message.
func (t Type) check(what string) {
	if t != TypeText && t != TypeBinary {
		panic(fmt.Sprintf("ws: %s of a message of type %v, want TypeText or TypeBinary", what, t))
	}
}

const (
	// smallPiece is the largest piece of a message, in bytes, that is copied behind the
	// piece before it. A larger piece becomes a segment of its own.
	smallPiece = 4 << 10

	// headroom is how many bytes are left free in front of copied bytes, for a frame
	// header.
	headroom = 16
)

// A Message is one message, and owns its bytes. Its owner must either send it, once, or
// call Release, and must not use it afterwards. A handler that passes a message to code
// that may use it after the handler has returned must call Keep first.
//
// The bytes of a long message lie in several segments. The first call of Bytes joins
// them with one copy; Segments does not.
//
// Only one goroutine or task at a time may use a Message.
type Message struct {
	typ   Type
	gone  bool // sent or released
	size  int
	first segment
	rest  []segment

	conn         *Conn              // received it, and reclaims it; nil after Keep
	local        *local             // reuses the Message itself; nil: not reused
	node         list.Node[Message] // in Conn.held
	unused       list.Link[Message] // in local.messages
	nextReleased *Message           // in Conn.crossReleased
	away         atomic.Int32       // 0, awayReleased or awayReclaimed
	from         string             // the stack that received it, with Options.DebugMessages
}

// NewMessage returns a message that owns p, without a copy: the caller must not change p
// from now on. It may be called from anywhere and does not wait. It panics if t is
// neither TypeText nor TypeBinary.
func NewMessage(t Type, p []byte) *Message {
	t.check("NewMessage")
	m := &Message{typ: t, size: len(p)}
	if len(p) > 0 {
		m.first = segment{buf: runtime.NewShared(p), data: p[:len(p):len(p)]}
	}
	return m
}

// Type returns the message's type.
func (m *Message) Type() Type { return m.typ }

// Len returns how many bytes of payload the message has.
func (m *Message) Len() int { return m.size }

// Bytes returns the payload, which is valid until the message is sent or released. The
// caller may change the bytes of a message that it received, but not those that it gave
// to NewMessage.
func (m *Message) Bytes() []byte {
	m.check("Bytes")
	if len(m.rest) > 0 {
		m.join()
	}
	return m.first.data
}

// Segments returns the payload in pieces, in order, without a copy. They are valid, and
// may be changed, like the result of Bytes.
func (m *Message) Segments() [][]byte {
	m.check("Segments")
	if m.size == 0 {
		return nil
	}
	all := make([][]byte, 0, 1+len(m.rest))
	all = append(all, m.first.data)
	for i := range m.rest {
		all = append(all, m.rest[i].data)
	}
	return all
}

// Release returns the message's memory. It may be called from anywhere and does not wait.
func (m *Message) Release() {
	m.check("Release")
	m.gone = true
	if m.local != nil && m.local.onLoop() {
		m.free()
		return
	}
	if !m.away.CompareAndSwap(0, awayReleased) {
		m.forgotten("Release")
	}
	m.eachSegment(func(s *segment) { s.buf.Release() })
	if c := m.conn; c != nil {
		c.returned(m)
	}
}

// Keep makes the message independent of its handler: the connection does not reclaim it
// when the handler returns, and its owner must send or release it. The handler calls Keep
// before it returns. On a goroutine the call waits for the loop. It returns m.
func (m *Message) Keep() *Message {
	m.check("Keep")
	if c := m.conn; c != nil && !c.onLoop() {
		// This fails only if the loop has ended, and then its list is not used any more.
		_ = c.callLoop(context.Background(), "keep", func(context.Context) error { m.unhold(); return nil })
		return m
	}
	m.unhold()
	return m
}

// unhold takes the message off the list of those that its handler has.
func (m *Message) unhold() {
	if c := m.conn; c != nil {
		c.unlink(m)
		m.conn = nil
	}
}

// portable returns a message with m's bytes that any loop may send, and takes m, so that
// a further use of m panics. A buffer belongs to its loop, so the bytes of a message that
// was received are copied.
func (m *Message) portable() *Message {
	shared := m.conn == nil && m.local == nil
	m.eachSegment(func(s *segment) { shared = shared && s.buf.Friend(key).Home() == nil })
	if shared {
		n := &Message{typ: m.typ, size: m.size, first: m.first, rest: m.rest}
		m.gone, m.first, m.rest = true, segment{}, nil
		return n
	}
	all := make([]byte, 0, m.size)
	m.eachSegment(func(s *segment) { all = append(all, s.data...) })
	t := m.typ
	m.Release()
	return NewMessage(t, all)
}

// check panics if the caller does not own the message any more.
func (m *Message) check(what string) {
	if m.gone {
		panic("ws: " + what + " of a message that was sent or released")
	}
	if m.away.Load() != 0 {
		m.forgotten(what)
	}
}

func (m *Message) forgotten(what string) {
	panic(fmt.Sprintf("ws: %s of a message (%s) whose handler has returned: it was reclaimed; a handler that passes a message on must call Keep", what, m.typ))
}

// free is Release on the loop.
func (m *Message) free() {
	c := m.conn
	if c != nil {
		c.unlink(m)
		if b := m.first.buf; b != nil {
			c.frames.release(b)
			m.first.buf = nil
		}
	}
	if m.first.buf != nil || len(m.rest) > 0 {
		m.eachSegment(func(s *segment) { s.buf.Release() })
	}
	m.recycle()
}

// recycle keeps m, which holds no buffer any more, for reuse by its loop.
func (m *Message) recycle() {
	m.gone = true
	l := m.local
	if l == nil {
		return
	}
	m.first, m.conn, m.from = segment{}, nil, ""
	if m.rest != nil {
		clear(m.rest)
		m.rest = m.rest[:0]
		if cap(m.rest) > 64 {
			m.rest = nil
		}
	}
	if l.spare >= maxSpareMessages {
		return
	}
	l.spare++
	l.messages.Push(&m.unused, m)
}

// A segment is a part of a message: data lies in buf, off bytes behind the first byte
// that buf holds. The segment is one of buf's owners.
type segment struct {
	buf  *runtime.Buffer
	data []byte
	off  int
}

// sole reports whether the segment's buffer has no other owner.
func (s *segment) sole() bool { return !s.buf.Friend(key).Shared() }

// last reports whether the segment's buffer ends with it.
func (s *segment) last() bool { return s.off+len(s.data) == s.buf.Len() }

func (m *Message) eachSegment(f func(*segment)) {
	if m.first.buf != nil {
		f(&m.first)
	}
	for i := range m.rest {
		if m.rest[i].buf != nil {
			f(&m.rest[i])
		}
	}
}

// add appends s, and takes over its ownership of the buffer.
func (m *Message) add(s segment) {
	n := len(s.data)
	m.size += n
	switch {
	case m.first.buf == nil:
		m.first = s
		return
	case n <= smallPiece && m.append(s.data):
		m.conn.frames.release(s.buf)
	default:
		m.rest = append(m.rest, s)
	}
}

func (m *Message) tail() *segment {
	if n := len(m.rest); n > 0 {
		return &m.rest[n-1]
	}
	return &m.first
}

// append copies p behind the last segment, or into a new segment with room for further
// pieces. It reports false if there is no memory for a new one.
func (m *Message) append(p []byte) bool {
	if t := m.tail(); t.sole() && t.last() && len(t.buf.Room()) >= len(p) {
		t.buf.Append(p)
		t.data = t.buf.Bytes()[t.off:]
		return true
	}
	// A size that grows with the message, so that many small pieces make few segments.
	size := min(max(2*len(p), m.size), 32<<10)
	b, err := m.local.loop.Pool().Get(size)
	if err != nil {
		return false
	}
	b.Append(p)
	m.rest = append(m.rest, segment{buf: b, data: b.Bytes()})
	return true
}

// settle is called before the connection waits for the rest of the message. It copies
// the last segment to a smaller buffer if the segment would hold much more memory than
// has arrived, such as a whole receive buffer for a few bytes. A segment made by append
// may have as much room as the message has bytes: cutting it down would turn each further
// piece into a segment.
func (m *Message) settle() {
	t, pool := m.tail(), m.local.loop.Pool()
	if t.buf == nil || t.buf.Friend(key).Home() == nil {
		return
	}
	room := len(t.data)
	if t.buf.Friend(key).FromPool() {
		room = m.size
	}
	if t.buf.Friend(key).Cap() <= len(t.data)+room+512 {
		return
	}
	b, err := pool.Friend(key).Copy(headroom, t.data)
	if err != nil {
		return // no memory: the segment stays where it is
	}
	m.conn.frames.release(t.buf)
	*t = segment{buf: b, data: b.Bytes()}
}

// join copies all segments into one.
func (m *Message) join() {
	var b *runtime.Buffer
	if m.local != nil && m.local.onLoop() {
		b, _ = m.local.loop.Pool().Get(headroom + m.size) // nil: the garbage collector's memory serves
	}
	var all []byte
	if b != nil {
		b.Reset(headroom)
		all = b.Room()[:0]
	} else {
		all = make([]byte, 0, m.size)
	}
	m.eachSegment(func(s *segment) {
		all = append(all, s.data...)
		s.buf.Release()
	})
	if b != nil {
		b.Extend(m.size)
	} else {
		b = runtime.NewShared(all)
	}
	m.first = segment{buf: b, data: b.Bytes()}
	clear(m.rest)
	m.rest = m.rest[:0]
}
