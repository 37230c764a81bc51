package loop

import (
	"context"
	"net"
	"time"

	"github.com/noria-go/noria/runtime"
)

// Limits of a stream, unless StreamOptions says otherwise.
const (
	defaultInboxLimit = 256 << 10
	defaultQueueLimit = 64 << 10
	defaultLinger     = 5 * time.Second
)

// StreamOptions are limits of a Stream. The zero value is good.
type StreamOptions struct {
	// InboxLimit is how many bytes may have arrived without being read before
	// the stream stops receiving; 0 means 256 KiB. One delivery more
	// may be there.
	InboxLimit int

	// QueueLimit is how many bytes may wait to be sent before a write waits;
	// 0 means 64 KiB. One write of buffers more may be there.
	QueueLimit int

	// Linger is how long Close tries to send what was written; 0 means
	// five seconds, negative means not at all.
	Linger time.Duration

	// IdleTimeout ends a stream on which nothing has moved in either direction
	// for this long: reading fails with os.ErrDeadlineExceeded, and so does
	// what waits for the peer to take what was written. 0 means never.
	IdleTimeout time.Duration

	// KeepAlive makes the system probe an idle peer after this time, in whole
	// seconds (SO_KEEPALIVE). 0 means not at all.
	KeepAlive time.Duration

	// UserTimeout is how long sent bytes may stay unacknowledged before the system
	// ends the connection (TCP_USER_TIMEOUT). 0 means the system's default.
	UserTimeout time.Duration

	// SendBuffer and RecvBuffer are the sizes of the system's buffers, in bytes
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

// A Stream is a connection on a loop. For the tasks of that loop it is an
// ordinary blocking net.Conn, which a protocol library can be given as it is;
// and it has calls that move buffers in place of copying bytes: ReadBuf and
// WriteBuf.
//
// Receiving runs ahead of the reader by InboxLimit bytes, in buffers of the
// runtime; while nothing arrives a stream holds none. Sending runs behind the
// writer by QueueLimit bytes: Write returns when the bytes are queued, they
// leave at the end of the loop's turn together with whatever else was written
// in it, one send at a time, and an error shows in a later call. Flush waits
// until the kernel has them all. Close flushes too, for as long as Linger.
//
// A stream may have TLS beneath it (see package tcp), with the same methods: then
// what arrives is decrypted before it is read, and what is queued is encrypted when
// it is sent.
//
// Several tasks may use a stream at once; the bytes of one Write stay
// together. Used from a goroutine it fails with ErrOffLoop, unless
// AllowGoroutines was called: then each call is carried out by a task, which
// costs two switches between threads.
type Stream struct {
	loop    *Loop // what each read and write needs comes first: see Op
	h       runtime.Handle
	closing bool // Close was called
	closed  bool // and is done
	opts    StreamOptions
	moved   int64    // when bytes last did, either way
	layer   *layered // nil: the socket carries the stream's own bytes
	in      inbox
	out     outbox

	peer  runtime.Addr
	local runtime.Addr
	addrs *[2]net.Addr    // in place of those: see SetAddrs
	owner context.Context // whose calls may come from goroutines

	closeOp runtime.Op
	closers waitList
	closeEr error
	linger  timer

	onEnd func()
	onEOF func() error

	idle   timer
	idleEr error
}

var _ net.Conn = (*Stream)(nil)

// NewStream makes a Stream of a connected socket's handle, which becomes the
// stream's own. It is called on the loop.
func (l *Loop) newStream(h runtime.Handle, opts StreamOptions) *Stream {
	s := &Stream{loop: l, h: h, opts: opts.withDefaults()}
	s.peer, _ = l.rt.PeerAddr(h) // one that has gone already has no address
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

// setOptions sets the options of the socket that StreamOptions has. It does not matter
// if the system refuses one, such as those of TCP for a unix socket.
func (s *Stream) setOptions() {
	for _, o := range []struct {
		opt   runtime.Option
		value int
	}{
		{runtime.OptKeepAlive, int(s.opts.KeepAlive / time.Second)},
		{runtime.OptUserTimeout, int(s.opts.UserTimeout / time.Millisecond)},
		{runtime.OptSendBuffer, s.opts.SendBuffer},
		{runtime.OptRecvBuffer, s.opts.RecvBuffer},
	} {
		if o.value > 0 {
			_ = s.loop.rt.SetOption(s.h, o.opt, o.value)
		}
	}
}

// Loop returns the stream's loop.
func (s *Stream) Loop() *Loop { return s.loop }

// elsewhere carries out a call that came from outside the loop's tasks.
func (s *Stream) elsewhere(op string, f func() error) error {
	if s.owner == nil {
		return s.offLoop(op)
	}
	if s.loop.onThread() {
		return &runtime.OpError{Op: op, Handle: s.h, Err: errNoTask}
	}
	return s.loop.call(s.owner, op, func(context.Context) error { return f() })
}

// fromElsewhere is elsewhere for a call that returns a value. A method that is called
// on the loop must not pay for the function that it would give to fromElsewhere: so it
// assigns nothing to what that function captures, which would move to the heap.
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

// LocalAddr returns the address of this end.
func (s *Stream) LocalAddr() net.Addr {
	if s.addrs != nil {
		return s.addrs[0]
	}
	if s.owner == nil && s.loop.onThread() && s.local == (runtime.Addr{}) && !s.closing {
		s.local, _ = s.loop.rt.LocalAddr(s.h)
	}
	return s.local.NetAddr()
}

// RemoteAddr returns the address of the other end.
func (s *Stream) RemoteAddr() net.Addr {
	if s.addrs != nil {
		return s.addrs[1]
	}
	return s.peer.NetAddr()
}
