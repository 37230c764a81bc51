package ws

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/internal/list"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws/internal/frame"
)

// A Type says what a message is: TypeText or TypeBinary.
type Type uint8

const (
	// TypeText is UTF-8, which is checked when it is received.
	TypeText Type = Type(frame.Text)
	// TypeBinary is anything.
	TypeBinary Type = Type(frame.Binary)
)

func (t Type) String() string { return frame.Opcode(t).String() }

// check panics if t is no type of a message.
func (t Type) check(what string) {
	if t != TypeText && t != TypeBinary {
		panic(fmt.Sprintf("ws: %s of a message of type %v, want TypeText or TypeBinary", what, t))
	}
}

const (
	// smallPiece is up to how many bytes a piece of a message is copied behind
	// the one before it, in place of becoming a segment of its own.
	smallPiece = 4 << 10

	// headroom is left in front of what is copied, for a header.
	headroom = 16
)

// A Message is one message, and owns its bytes. Whoever has it sends it on,
// once, or calls Release; after either it must not be touched. A handler that
// hands a message to somebody else than Send, to be used when the handler has
// perhaps returned, calls Keep first.
//
// The bytes of a long message lie in several segments. Bytes joins them, with
// one copy, the first time it is called; Segments does not.
//
// A Message is for one caller at a time.
type Message struct {
	typ   Type
	gone  bool // it was sent or released
	size  int
	first segment
	rest  []segment

	conn     *Conn              // received it, and takes it back if its handler does not
	local    *local             // where the Message itself goes back to; nil: nowhere
	node     list.Node[Message] // of Conn.held
	unused   list.Link[Message] // of local.messages
	nextAway *Message           // see Conn.returned
	away     atomic.Int32       // see awayReleased
	from     string             // the stack that received it, if somebody wants to know
}

// NewMessage returns a message that owns p: it must not be changed from now
// on. t is TypeText or TypeBinary. It may be called from anywhere.
func NewMessage(t Type, p []byte) *Message {
	t.check("NewMessage")
	m := &Message{typ: t, size: len(p)}
	if len(p) > 0 {
		m.first = segment{buf: runtime.NewShared(p), data: p[:len(p):len(p)]}
	}
	return m
}

// Type returns what the message is.
func (m *Message) Type() Type { return m.typ }

// Len returns how many bytes of payload the message has.
func (m *Message) Len() int { return m.size }

// Bytes returns the payload. It is good until the message is sent or released.
// The bytes of a message that was received may be changed; those that
// NewMessage was given must not.
func (m *Message) Bytes() []byte {
	m.check("Bytes")
	if len(m.rest) > 0 {
		m.join()
	}
	return m.first.data
}

// Segments returns the payload as it lies there, in order: see Bytes.
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

// Release gives the memory back. It may be called from any goroutine.
func (m *Message) Release() {
	m.check("Release")
	m.gone = true
	if m.local != nil && m.local.loop.Friend(friend.Key{}).OnLoop() {
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

// Keep takes the message out of its connection's hands: it is not reclaimed
// when the handler returns, and whoever has it must see to it that it is sent
// or released. It is called where the message was received, before the handler
// returns, and returns m.
func (m *Message) Keep() *Message {
	m.check("Keep")
	if c := m.conn; c != nil && !c.loop.Friend(friend.Key{}).OnLoop() {
		// If the loop has ended, nobody looks at its list any more.
		_ = c.elsewhere(context.Background(), "keep", func(context.Context) error { m.unhold(); return nil })
		return m
	}
	m.unhold()
	return m
}

// unhold takes the message out of its handler's hands: that the handler returns
// is nothing to it any more.
func (m *Message) unhold() {
	if c := m.conn; c != nil {
		c.unlink(m)
		m.conn = nil
	}
}

// portable returns a message with m's bytes that any loop may send, and takes m:
// a caller that uses it again is told so, where that is done. Buffers belong to
// their loops, so what was received is copied.
func (m *Message) portable() *Message {
	shared := m.conn == nil && m.local == nil
	m.eachSegment(func(s *segment) { shared = shared && s.buf.Friend(friend.Key{}).Home() == nil })
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

// check panics if the message is not the caller's any more.
func (m *Message) check(what string) {
	if m.gone {
		panic("ws: " + what + " of a message that was sent or released")
	}
	if m.away.Load() != 0 {
		m.forgotten(what)
	}
}

func (m *Message) forgotten(what string) {
	panic(fmt.Sprintf("ws: %s of a message (%s) whose handler has returned: it was reclaimed; a handler that hands a message on calls Keep", what, m.typ))
}

// free gives everything back, on the loop.
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

// recycle keeps the Message itself, which holds no buffer any more, for the
// next one of its loop.
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

// A segment is a part of a message: data lies in buf, of which the segment is
// an owner. off is where, counted from the first byte that buf holds.
type segment struct {
	buf  *runtime.Buffer
	data []byte
	off  int
}

// sole reports whether nobody else looks at the segment's buffer.
func (s *segment) sole() bool { return !s.buf.Friend(friend.Key{}).Shared() }

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

// add appends s, whose owner the message becomes.
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

// append copies p behind the last segment, or into a new one that has room for
// more of the kind. It reports false if there is no memory for that.
func (m *Message) append(p []byte) bool {
	if t := m.tail(); t.sole() && t.last() && len(t.buf.Room()) >= len(p) {
		t.buf.Append(p)
		t.data = t.buf.Bytes()[t.off:]
		return true
	}
	// Twice what is there, so that many small pieces make few segments.
	size := min(max(2*len(p), m.size), 32<<10)
	b, err := m.local.loop.Pool().Get(size)
	if err != nil {
		return false
	}
	b.Append(p)
	m.rest = append(m.rest, segment{buf: b, data: b.Bytes()})
	return true
}

// settle is called before the connection waits with an incomplete message: it
// must not hold much more memory than has come, and no receive buffer for a few
// bytes. A slab that append has made for more of the kind may have as much room
// as the message has bytes: to cut that down would make a segment of each piece.
func (m *Message) settle() {
	t, pool := m.tail(), m.local.loop.Pool()
	if t.buf == nil || t.buf.Friend(friend.Key{}).Home() == nil {
		return
	}
	room := len(t.data)
	if t.buf.Friend(friend.Key{}).FromPool() {
		room = m.size
	}
	if t.buf.Friend(friend.Key{}).Cap() <= len(t.data)+room+512 {
		return
	}
	b, err := pool.Friend(friend.Key{}).Copy(headroom, t.data)
	if err != nil {
		return // it stays where it is
	}
	m.conn.frames.release(t.buf)
	*t = segment{buf: b, data: b.Bytes()}
}

// join makes one segment of all.
func (m *Message) join() {
	var b *runtime.Buffer
	if m.local != nil && m.local.loop.Friend(friend.Key{}).OnLoop() {
		b, _ = m.local.loop.Pool().Get(headroom + m.size) // without: see below
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
