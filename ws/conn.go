package ws

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/noria-go/noria/internal/list"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws/internal/deflate"
	"github.com/noria-go/noria/ws/internal/frame"
	"github.com/noria-go/noria/ws/internal/utf8check"
)

// A Conn is a WebSocket connection, after the opening handshake. The package comment says
// how its methods may be called concurrently.
type Conn struct {
	stream *loop.Stream
	one    [1]*runtime.Buffer // the argument of enqueue
	loop   *loop.Loop
	local  *local
	opts   *Options // with defaults
	client bool     // this end is the client and masks what it sends
	quick  bool     // no option that quickReceive and quickSend do not know

	request     *Request
	response    http.Header // of the server; a client's connection has it
	subprotocol string
	deflate     *deflater // nil: messages are not compressed

	// Receiving: see receive.go.
	frames     frameReader
	readable   [1]loop.Source // an array, so that WaitAny gets a slice without an allocation
	head       frame.Header   // of the frame that is being received
	inFrame    bool           // head is valid
	at         int64          // bytes of the frame's payload that were read
	inMsg      bool           // between the first and the last frame of a message
	typ        Type           // of that message
	packed     bool           // that message is compressed
	length     int64          // payload of its frames so far, in bytes, compressed
	text       utf8check.Checker
	msg        *Message   // the message that has arrived in part
	stash      []*Message // complete messages that no call has received yet
	reader     *Reader    // reads the current message
	streaming  bool       // the current message is for a Reader: MaxMessage does not bound it
	busy       bool       // a call that receives is waiting
	discarding bool       // that call is Close, which drops what arrives
	paused     bool       // more can be inflated, once other tasks have had a turn
	early      bool       // assemble runs before a call has asked for the message
	long       bool       // that message exceeds MaxMessage: Receive will refuse it, but NextReader may read it
	readErr    error      // why nothing more is received
	over       loop.Event // readErr is set
	control    [frame.MaxControl]byte

	// Sending: see send.go, policy.go, sendframe.go and crossthread.go.
	writable  loop.Source
	writer    *Writer    // its message is being sent, and others wait
	unlocked  loop.Event // writer is nil
	vacant    loop.Event // nothing is queued, so that the Budget admits a message
	behind    bool       // the cross-thread queue waits for writer
	leaving   bool       // the Close frame of a server that stops waits for writer
	closing   bool       // Close was called: it may wait for writer, and no other message is sent
	waited    bool       // the cross-thread queue has waited a turn of the loop for room
	short     bool       // the cross-thread queue waits for room in the Budget
	cross     atomic.Pointer[crossQueue]
	charged   int64      // bytes charged to the Budget
	written   int64      // bytes of frames that were queued so far
	pongEnd   int64      // written, after the last pong
	pongs     int        // bytes of pongs that may still be queued
	pending   []byte     // the payload of the ping to answer, if pongDue
	pongDue   bool       // a pong waits for the earlier ones to leave
	sentClose StatusCode // of the Close frame that was sent; 0: none was
	code      StatusCode // of the first Close frame either way; StatusAbnormalClosure: there was none
	answered  bool       // sentClose came first, and gotClose answers it
	gotClose  *CloseError
	failed    error       // why nothing can be sent any more
	closed    bool        // the transport is closed
	gone      atomic.Bool // closed, for other threads

	// Pinging: see ping.go.
	alive    loop.Timer
	lastSeen int64 // bytes received, when alive last fired
	pinged   bool  // keep-alive has sent a ping, and nothing has arrived since
	silent   uint8 // how many times in a row alive has fired and found nothing new
	pings    []*ping
	quiet    *loop.Event // see nextQuiet
	pingSeq  uint64

	// Messages that the handler has: see reclaim.go.
	held          list.List[Message]
	crossReleased atomic.Pointer[Message] // released by other threads, not yet unlinked
}

// newConn makes a Conn over s. It must be called on the loop.
func newConn(s *loop.Stream, opts *Options, client bool) *Conn {
	c := &Conn{stream: s, loop: s.Loop(), opts: opts, client: client}
	c.local = localOf(c.loop)
	c.frames.stream = s
	c.frames.dec.Client = client
	c.readable[0], c.writable = s.Readable(), s.Writable()
	c.stream.Friend(key).SetQueueLimit(opts.SendQueue)
	c.stream.Friend(key).OnEnd(c.transportEnded)
	if opts.Budget != nil {
		c.stream.Friend(key).OnSent(c.onSent)
	}
	c.quick = opts.Budget == nil && opts.Hooks.MessageReceived == nil && opts.Hooks.MessageSent == nil && !opts.DebugMessages
	c.keepAlive()
	return c
}

// agree turns compression on with the parameters of the opening handshake; nil means
// that none were agreed on.
func (c *Conn) agree(p *deflate.Params) {
	if p == nil {
		return
	}
	c.quick = false
	c.deflate = newDeflater(c.opts.Compression, *p, !c.client)
	c.frames.dec.Rsv = frame.Rsv1
}

// Request returns the client's request of the opening handshake, on the server's side,
// and nil on the client's. The caller must not change it.
func (c *Conn) Request() *Request { return c.request }

// Response returns the headers of the server's response, on the client's side, and nil
// on the server's.
func (c *Conn) Response() http.Header { return c.response }

// Subprotocol returns the subprotocol that both ends agreed on, or "".
func (c *Conn) Subprotocol() string { return c.subprotocol }

// Compressed reports whether both ends agreed on compression.
func (c *Conn) Compressed() bool { return c.deflate != nil }

// RemoteAddr returns the address of the other end.
func (c *Conn) RemoteAddr() net.Addr { return c.stream.RemoteAddr() }

// LocalAddr returns the address of this end, or nil if the loop has ended; it may be
// called from anywhere, and on another thread it waits for the loop.
func (c *Conn) LocalAddr() net.Addr {
	if !c.onLoop() {
		a, _ := valueFromLoop(context.Background(), c, "address", func(context.Context) (net.Addr, error) { return c.stream.LocalAddr(), nil })
		return a
	}
	return c.stream.LocalAddr()
}

// Loop returns the loop that the connection belongs to.
func (c *Conn) Loop() *loop.Loop { return c.loop }

// Readable returns a Source for loop.WaitAny, for tasks of the connection's loop only. It
// is ready when a message has arrived or receiving would fail. TryReceive or Receive then
// returns the message or the error.
func (c *Conn) Readable() loop.Source {
	return c.stream.Friend(key).ReadableWhen(c.hasMessage)
}

// Queued returns how many bytes were sent and wait for the kernel to take them; it must
// be called on the connection's loop.
func (c *Conn) Queued() int { return c.stream.Queued() }

// SetReadDeadline sets the time at which receiving fails with os.ErrDeadlineExceeded, for
// calls that wait already and for later ones; it may be called from anywhere, and on
// another thread it waits for the loop. The zero time means never. A deadline loses
// nothing: once it is moved, a later Receive continues. While Close waits for the peer,
// SetReadDeadline fails with net.ErrClosed. There is no write deadline: the context of
// each call and Options.WriteTimeout bound sending.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if !c.onLoop() {
		return c.callLoop(context.Background(), "set read deadline", func(context.Context) error { return c.SetReadDeadline(t) })
	}
	if c.discarding {
		return errClosed
	}
	return c.stream.SetReadDeadline(t)
}

// ctxErr is ctx.Err, but does not wait for ctx's timer if its deadline has passed: the
// loop's clock may be ahead of that timer.
func ctxErr(ctx context.Context) error {
	if d, ok := ctx.Deadline(); ok && ctx.Err() == nil && !time.Now().Before(d) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

var past = time.Unix(1, 0) // a deadline that has passed

func timeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
