package ws

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/internal/list"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws/internal/deflate"
	"github.com/noria-go/noria/ws/internal/frame"
	"github.com/noria-go/noria/ws/internal/utf8check"
)

// A Conn is a WebSocket connection, after the opening handshake. See the
// package's documentation for who may call what.
type Conn struct {
	stream *loop.Stream
	one    [1]*runtime.Buffer // what enqueue hands to stream
	loop   *loop.Loop
	local  *local
	opts   *Options // with defaults
	client bool     // this end is the client: it masks what it sends
	quick  bool     // nothing is asked of it that quick.go does not do

	request     *Request
	response    http.Header // a server's
	subprotocol string
	deflate     *deflater // nil: messages are not compressed

	// Receiving: see receive.go.
	frames    frameReader
	readable  [1]loop.Source // a slice of it is given to WaitAny: no allocation
	head      frame.Header   // of the frame that is being received
	inFrame   bool
	at        int64 // bytes of its payload that have come
	inMsg     bool  // between the first and the last frame of a message
	typ       Type  // of that message
	packed    bool  // it is compressed
	length    int64 // of that message so far, as it comes
	text      utf8check.Checker
	msg       *Message   // what there is of the message that is being received
	stash     []*Message // received ahead of a Receive
	reader    *Reader    // reads the current message
	streaming bool       // it was begun by a Reader
	busy      bool       // somebody waits for more
	closing   bool       // and that is Close, which drops what comes
	paused    bool       // more is here, and others are to have a turn first
	early     bool       // it is received ahead of who wants it, a Receive or a Reader
	long      bool       // and is longer than a Receive takes: it is left to them
	readErr   error      // what ended receiving
	over      loop.Event
	control   [frame.MaxControl]byte

	// Sending: see send.go, remote.go and control.go.
	writable  loop.Source
	writer    *Writer // whose message goes on
	unlocked  loop.Event
	vacant    loop.Event // nothing is queued: a Budget does not hold it back
	behind    bool       // what other threads have queued waits for that Writer
	leaving   bool       // and so does the Close frame of a server that stops
	ending    bool       // and Close, that was called: nothing else follows it
	waited    bool       // what others have queued has waited for a turn of the loop, to find room
	short     bool       // and it waits for room in the Budget now
	remote    atomic.Pointer[remote]
	charged   int64 // to the Budget
	written   int64 // bytes of frames that were queued
	pongEnd   int64 // written, after the last pong
	pongs     int   // bytes of pongs that may be queued still
	pending   []byte
	pongDue   bool
	sentClose StatusCode // 0: no Close frame was sent
	code      StatusCode // of the first Close frame; StatusAbnormalClosure: it ended without one
	answered  bool       // sentClose, by gotClose
	gotClose  *CloseError
	failed    error // why nothing can be sent any more
	closed    bool
	gone      atomic.Bool // closed, for other threads

	// Pinging: see ping.go.
	alive    loop.Timer
	lastSeen int64 // bytes received when it was last looked
	pinged   bool  // and not heard of since
	pings    []*ping
	quiet    *loop.Event // see nextQuiet
	pingSeq  uint64

	held    list.List[Message]      // received, and with the handler
	foreign atomic.Pointer[Message] // released by other threads, not yet unlinked
}

// newConn makes a Conn over s, on the loop.
func newConn(s *loop.Stream, opts *Options, client bool) *Conn {
	c := &Conn{stream: s, loop: s.Loop(), opts: opts, client: client}
	c.local = localOf(c.loop)
	c.frames.stream = s
	c.frames.dec.Client = client
	c.readable[0], c.writable = s.Readable(), s.Writable()
	c.stream.Friend(friend.Key{}).SetQueueLimit(opts.SendQueue)
	c.stream.Friend(friend.Key{}).OnEnd(c.transportEnded)
	if opts.Budget != nil {
		c.stream.Friend(friend.Key{}).OnSent(c.onSent)
	}
	c.quick = opts.Budget == nil && opts.Hooks.MessageReceived == nil && opts.Hooks.MessageSent == nil && !opts.DebugMessages
	c.keepAlive()
	return c
}

// agree switches compression on.
func (c *Conn) agree(p *deflate.Params) {
	if p == nil {
		return
	}
	c.quick = false
	c.deflate = newDeflater(c.opts.Compression, *p, !c.client)
	c.frames.dec.Rsv = frame.Rsv1
}

// Request returns what the client asked for in the opening handshake. It must
// not be changed.
func (c *Conn) Request() *Request { return c.request }

// Response returns the headers of the server's response, on the client's side.
func (c *Conn) Response() http.Header { return c.response }

// Subprotocol returns the subprotocol that was agreed on, or "".
func (c *Conn) Subprotocol() string { return c.subprotocol }

// Compressed reports whether compression was agreed on.
func (c *Conn) Compressed() bool { return c.deflate != nil }

// RemoteAddr returns the address of the other end.
func (c *Conn) RemoteAddr() net.Addr { return c.stream.RemoteAddr() }

// LocalAddr returns the address of this end; nil once the loop has ended.
func (c *Conn) LocalAddr() net.Addr {
	if !c.loop.Friend(friend.Key{}).OnLoop() {
		a, _ := fromElsewhere(context.Background(), c, "address", func(context.Context) (net.Addr, error) { return c.stream.LocalAddr(), nil })
		return a
	}
	return c.stream.LocalAddr()
}

// Loop returns the loop that the connection belongs to.
func (c *Conn) Loop() *loop.Loop { return c.loop }

// Readable returns the connection as a Source for loop.WaitAny, for the
// tasks of its loop: it has something when a message has arrived, or receiving
// would fail. Take it with TryReceive, or with Receive.
func (c *Conn) Readable() loop.Source {
	return c.stream.Friend(friend.Key{}).ReadableWhen(c.hasMessage)
}

// Queued returns how many bytes were sent and are not with the kernel yet. It
// is called on the loop.
func (c *Conn) Queued() int { return c.stream.Queued() }

// SetReadDeadline sets when receiving ends with os.ErrDeadlineExceeded, also
// for a call that waits already; the zero time means never. Nothing is lost by
// it: a later Receive goes on. While Close waits for the peer it is net.ErrClosed, and
// changes nothing: that has a time of its own.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if !c.loop.Friend(friend.Key{}).OnLoop() {
		return c.elsewhere(context.Background(), "set read deadline", func(context.Context) error { return c.SetReadDeadline(t) })
	}
	if c.closing {
		return errClosed
	}
	return c.stream.SetReadDeadline(t)
}

// elsewhere carries out a call that came from another thread.
func (c *Conn) elsewhere(ctx context.Context, what string, f func(ctx context.Context) error) error {
	err := c.loop.Friend(friend.Key{}).Call(ctx, "ws: "+what, f)
	if errors.Is(err, runtime.ErrCanceled) || errors.Is(err, context.Canceled) {
		if cerr := ctxErr(ctx); cerr != nil { // what cancelled the call, and it may have been a deadline
			return cerr
		}
	}
	return err
}

// fromElsewhere is elsewhere for a call that returns a value. A method that is called
// on the loop must not pay for the function that it would give to fromElsewhere: so it
// assigns nothing to what that function captures, which would move to the heap.
func fromElsewhere[T any](ctx context.Context, c *Conn, what string, f func(ctx context.Context) (T, error)) (v T, err error) {
	err = c.elsewhere(ctx, what, func(ctx context.Context) (err error) {
		v, err = f(ctx)
		return err
	})
	return v, err
}

// post has the loop call f, outside any task. It fails only if the loop has ended.
func (c *Conn) post(f func()) error { return c.loop.Friend(friend.Key{}).Post(f) }

// ended is ctx.Err, also when the loop's clock was faster than ctx's timer.
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
