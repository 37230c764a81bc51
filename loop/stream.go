package loop

import (
	"context"
	"math"
	"net"
	"time"

	"github.com/noria-go/noria/runtime"
)

// Limits of a stream, unless StreamOptions says otherwise.
const (
	defaultInboxLimit = 256 << 10
	defaultQueueLimit = 64 << 10
	defaultLinger     = 5 * time.Second

	maxKeepAlive = 32767 // seconds, the most that Linux takes
)

// StreamOptions are the options of a Stream. The zero value is ready to use.
type StreamOptions struct {
	// InboxLimit is how many bytes may arrive ahead of the reader before the stream
	// stops receiving. One delivery may exceed it. 0 means 256 KiB.
	InboxLimit int

	// QueueLimit is how many bytes may wait to be sent before a write waits. One write
	// of buffers may exceed it. 0 means 64 KiB.
	QueueLimit int

	// Linger is how long Close tries to send what was written. 0 means five seconds;
	// negative means that Close does not try.
	Linger time.Duration

	// IdleTimeout is how long a stream may stay without a byte in either direction.
	// After it reads fail with os.ErrDeadlineExceeded, and so do writes that would have
	// to wait. 0 means no limit.
	IdleTimeout time.Duration

	// KeepAlive is the time, in whole seconds, after which the system probes an idle
	// peer (SO_KEEPALIVE). 0 means that it does not.
	KeepAlive time.Duration

	// UserTimeout is how long sent bytes may stay unacknowledged before the system ends
	// the connection (TCP_USER_TIMEOUT). 0 means the system's default.
	UserTimeout time.Duration

	// SendBuffer and RecvBuffer are the sizes of the socket's buffers, in bytes
	// (SO_SNDBUF, SO_RCVBUF). 0 means that the system decides.
	SendBuffer, RecvBuffer int
}

func (o StreamOptions) withDefaults() StreamOptions {
	if o.InboxLimit <= 0 {
		o.InboxLimit = defaultInboxLimit
	}
	if o.QueueLimit <= 0 {
		o.QueueLimit = defaultQueueLimit
	}
	if o.Linger == 0 {
		o.Linger = defaultLinger
	}
	return o
}

// A Stream is a connection on a loop. For the tasks of that loop it is an ordinary
// blocking net.Conn, which can be given to a protocol library. Other methods move
// buffers and copy nothing: ReadBuf and WriteBuf.
//
// A stream receives ahead of its reader, up to InboxLimit bytes. While nothing arrives
// it holds no buffer. It sends behind its writer, up to QueueLimit bytes: Write returns
// when the bytes are queued. They leave at the end of the loop's turn, with all that was
// written to the stream in that turn. An error of sending shows in a later call. Flush
// waits until the kernel has taken all bytes. Close does too, for as long as Linger.
//
// A stream may have TLS (see package tcp). The methods are the same: the stream decrypts
// what arrives before it is read, and encrypts what is queued when it is sent.
//
// Several tasks may use a stream at once; the bytes of one Write stay together. A
// goroutine's calls fail with ErrOffLoop, except on a stream that allows goroutines: one
// whose handler a server runs on a goroutine, or one that a goroutine has dialed. There a
// task of the loop carries out each call, which costs two switches between threads.
type Stream struct {
	// The fields that each read and write touches come first: they share cache lines.
	loop    *Loop
	h       runtime.Handle
	closing bool // Close was called
	closed  bool // the socket is closed
	opts    StreamOptions
	moved   int64    // when a byte was last received or sent; kept only with IdleTimeout
	layer   *layered // nil: the socket carries the stream's own bytes
	in      inbox
	out     outbox

	peer  runtime.Addr
	local runtime.Addr
	addrs *[2]net.Addr    // local and remote, in place of the socket's: see SetAddrs
	owner context.Context // not nil: goroutines may call, until the task of owner is killed

	closeOp  runtime.Op
	closers  waitList // tasks in Close
	closeErr error
	linger   timer

	onEnd func()
	onEOF func() error

	idle    timer
	idleErr error
}

var _ net.Conn = (*Stream)(nil)

// newStream makes a Stream of a connected socket's handle, which becomes the stream's
// own. It is called on the loop.
func (l *Loop) newStream(h runtime.Handle, opts StreamOptions) *Stream {
	s := &Stream{loop: l, h: h, opts: opts.withDefaults()}
	s.peer, _ = l.rt.PeerAddr(h) // fails if the peer has closed the connection already
	s.in.op.Handle, s.out.op.Handle = h, h
	s.in.op.Done, s.out.op.Done = s.received, s.sent
	s.out.op.Friend(key).ClaimsBuffers()
	s.setOptions()
	l.live[s] = struct{}{}
	s.moved = l.rt.Now()
	if s.opts.IdleTimeout > 0 {
		s.idle.fire = s.checkIdle
		l.timers.set(&s.idle, later(s.moved, s.opts.IdleTimeout))
	}
	return s
}

// setOptions sets the socket's options. The system may refuse one, such as an option of
// TCP on a unix socket: then the stream goes without.
func (s *Stream) setOptions() {
	for _, o := range []struct {
		opt   runtime.Option
		value int
	}{
		{runtime.OptKeepAlive, units(s.opts.KeepAlive, time.Second, maxKeepAlive)},
		{runtime.OptUserTimeout, units(s.opts.UserTimeout, time.Millisecond, math.MaxInt32)},
		{runtime.OptSendBuffer, s.opts.SendBuffer},
		{runtime.OptRecvBuffer, s.opts.RecvBuffer},
	} {
		if o.value > 0 {
			_ = s.loop.rt.SetOption(s.h, o.opt, o.value)
		}
	}
}

// units returns how many units d is, rounded up, and at most most. Rounded down, a short
// time would be 0, which switches the option off.
func units(d, unit time.Duration, most int) int {
	if d <= 0 {
		return 0
	}
	return int(min((d-1)/unit+1, time.Duration(most)))
}

// Loop returns the stream's loop. It may be called from anywhere.
func (s *Stream) Loop() *Loop { return s.loop }

// elsewhere carries out a call that does not come from a task of the loop: by a task, if
// it comes from a goroutine and the stream allows that.
func (s *Stream) elsewhere(op string, f func() error) error {
	if s.owner == nil {
		return s.offLoop(op)
	}
	if s.loop.onLoop() {
		return &runtime.OpError{Op: op, Handle: s.h, Err: errNoTask}
	}
	return s.loop.call(s.owner, op, func(context.Context) error { return f() })
}

// fromElsewhere is elsewhere for a call that returns a value. Its callers must not assign
// to a variable that f captures: the variable would move to the heap, which the calls
// from tasks would pay for.
func fromElsewhere[T any](s *Stream, op string, f func() (T, error)) (v T, err error) {
	err = s.elsewhere(op, func() (err error) {
		v, err = f()
		return err
	})
	return v, err
}

func (s *Stream) offLoop(op string) error {
	return &runtime.OpError{Op: op, Handle: s.h, Err: ErrOffLoop}
}

// LocalAddr returns the address of this end. It is called on the loop, and from
// goroutines if the stream allows them. It does not wait.
func (s *Stream) LocalAddr() net.Addr {
	if s.addrs != nil {
		return s.addrs[0]
	}
	if s.owner == nil && s.loop.onLoop() && s.local == (runtime.Addr{}) && !s.closing {
		s.local, _ = s.loop.rt.LocalAddr(s.h)
	}
	return s.local.NetAddr()
}

// RemoteAddr returns the address of the peer. It may be called from anywhere.
func (s *Stream) RemoteAddr() net.Addr {
	if s.addrs != nil {
		return s.addrs[1]
	}
	return s.peer.NetAddr()
}
