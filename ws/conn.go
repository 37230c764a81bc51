package ws

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws/internal/frame"
	"github.com/noria-go/noria/ws/internal/utf8check"
)

// A Conn is a WebSocket connection, after the opening handshake. See the
// package's documentation for who may call what.
type Conn struct {
	stream *runtime.Stream
	loop   *runtime.Loop
	local  *local
	opts   *Options // with defaults
	client bool     // this end is the client: it masks what it sends

	request     *Request
	subprotocol string

	// Receiving: see receive.go.
	eng      engine
	native   native
	readable runtime.Source
	head     frame.Header // of the frame that is being received
	inFrame  bool
	at       int64 // bytes of its payload that have come
	inMsg    bool  // between the first and the last frame of a message
	typ      Type  // of that message
	length   int64 // of that message so far
	text     utf8check.Checker
	msg      *Message // what Receive has of it so far
	busy     bool     // a Receive waits
	readErr  error    // what ended receiving
	over     runtime.Event
	control  [frame.MaxControl]byte

	// Sending: see send.go and control.go.
	writable  runtime.Source
	written   int64 // bytes of frames that were queued
	pongEnd   int64 // written, after the last pong
	pongs     int64 // bytes of pongs that may be queued still
	pending   []byte
	pongDue   bool
	sentClose StatusCode // 0: no Close frame was sent
	gotClose  *CloseError
	failed    error // why nothing can be sent any more
	closed    bool

	held    *Message                // received, and with the handler
	foreign atomic.Pointer[Message] // released by other threads, not yet unlinked
}

func (c *Conn) init(s *runtime.Stream, opts *Options, client bool) {
	c.stream, c.loop, c.opts, c.client = s, s.Loop(), opts, client
	c.local = localOf(c.loop)
	c.native.stream = s
	c.native.dec.Client = client
	c.eng = &c.native
	c.readable, c.writable = s.Readable(), s.Writable()
	s.SetQueueLimit(opts.SendQueue)
}

// Request returns what the client asked for in the opening handshake. It must
// not be changed.
func (c *Conn) Request() *Request { return c.request }

// Subprotocol returns the subprotocol that was agreed on, or "".
func (c *Conn) Subprotocol() string { return c.subprotocol }

// RemoteAddr returns the address of the other end.
func (c *Conn) RemoteAddr() net.Addr { return c.stream.RemoteAddr() }

// LocalAddr returns the address of this end.
func (c *Conn) LocalAddr() net.Addr { return c.stream.LocalAddr() }

// Loop returns the loop that the connection belongs to.
func (c *Conn) Loop() *runtime.Loop { return c.loop }

// Readable returns the connection as a Source for runtime.WaitAny: it has
// something when bytes have arrived, or when receiving would fail.
func (c *Conn) Readable() runtime.Source { return c.readable }

// Queued returns how many bytes were sent and are not with the kernel yet. It
// is called on the loop.
func (c *Conn) Queued() int { return c.stream.Queued() }

// SetReadDeadline sets when receiving ends with os.ErrDeadlineExceeded, also
// for a call that waits already; the zero time means never. Nothing is lost by
// it: a later Receive goes on.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.stream.SetReadDeadline(t) }

// elsewhere carries out a call that came from another thread.
func (c *Conn) elsewhere(ctx context.Context, what string, f func(ctx context.Context) error) error {
	return c.loop.Call(ctx, what, f)
}

// link notes that the handler has m.
func (c *Conn) link(m *Message) {
	m.prev, m.next = nil, c.held
	if c.held != nil {
		c.held.prev = m
	}
	c.held = m
}

func (c *Conn) unlink(m *Message) {
	if m.prev != nil {
		m.prev.next = m.next
	} else {
		c.held = m.next
	}
	if m.next != nil {
		m.next.prev = m.prev
	}
	m.prev, m.next = nil, nil
}

// returned takes note of a message that was released on another thread. Its
// place in the list of held ones is the loop's to change.
func (c *Conn) returned(m *Message) {
	for {
		top := c.foreign.Load()
		m.rest, m.nextAway = nil, top
		if c.foreign.CompareAndSwap(top, m) {
			return
		}
	}
}

// collect unlinks what other threads have released.
func (c *Conn) collect() {
	m := c.foreign.Swap(nil)
	for m != nil {
		next := m.nextAway
		c.unlink(m)
		m.conn, m.nextAway = nil, nil // and left to the garbage collector
		m = next
	}
}

// reclaim takes back the messages that the handler still has when it has
// returned.
func (c *Conn) reclaim() {
	if c.foreign.Load() != nil {
		c.collect()
	}
	if c.msg != nil {
		c.msg.free()
		c.msg = nil
	}
	n, first := 0, ""
	for m := c.held; m != nil; {
		next := m.next
		if m.away.CompareAndSwap(0, awayReclaimed) {
			if n++; n == 1 {
				first = fmt.Sprintf("%s of %d bytes", m.typ, m.size)
				if m.from != "" {
					first += ", received at\n" + m.from
				}
			}
			m.local = nil // whoever still has it must not find it in use again
			c.unlink(m)
			m.eachSegment(func(s *segment) { c.native.release(s.buf) })
			m.first, m.rest, m.conn = segment{}, nil, nil
		}
		m = next
	}
	if n > 0 {
		c.opts.Logger.Warn("noria: a handler returned without releasing what it received; it was reclaimed",
			"peer", c.RemoteAddr().String(), "messages", n, "first", first)
	}
}
