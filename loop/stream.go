package loop

import (
	"context"
	"fmt"
	"net"
	"os"
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
	l.live[s] = struct{}{}
	s.moved = l.rt.Now()
	if s.opts.IdleTimeout > 0 {
		s.idle.fire = s.checkIdle
		l.timers.set(&s.idle, later(s.moved, s.opts.IdleTimeout))
	}
	return s
}

// touch notes that bytes have moved. The loop's clock is from before it waited
// for them, so it will not do; only streams that need the time ask for it.
func (s *Stream) touch() {
	if s.opts.IdleTimeout > 0 {
		s.moved = s.loop.rt.Now()
	}
}

// checkIdle ends a stream on which nothing moves. The timer is moved only
// when it fires, so that traffic pays nothing for it.
func (s *Stream) checkIdle() {
	until := later(s.moved, s.opts.IdleTimeout)
	if s.loop.rt.Now() < until {
		s.loop.timers.set(&s.idle, until)
		return
	}
	s.idleEr = &runtime.OpError{Op: "recv", Handle: s.h, Err: fmt.Errorf("idle for %v: %w", s.opts.IdleTimeout, os.ErrDeadlineExceeded)}
	if s.in.err == nil { // else it has ended already
		s.in.err = s.idleEr
	}
	s.in.readers.wakeAll()
	s.out.writers.wakeAll()
}

// Loop returns the stream's loop.
func (s *Stream) Loop() *Loop { return s.loop }

// Handle returns the stream's handle, for operations that Stream does not
// have. It stays the stream's own.
func (s *Stream) Handle() runtime.Handle { return s.h }

// AllowGoroutines lets ordinary goroutines use the stream. Their calls end
// when ctx is killed, if it is a task's.
func (s *Stream) AllowGoroutines(ctx context.Context) {
	s.local, _ = s.loop.rt.LocalAddr(s.h)
	s.owner = ctx
}

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

// SetAddrs has LocalAddr and RemoteAddr return these: for a stream that carries the
// bytes of another connection. It is called on the loop, before others have the stream.
func (s *Stream) SetAddrs(local, remote net.Addr) {
	s.loop.mustBeOn("SetAddrs")
	s.addrs = &[2]net.Addr{local, remote}
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

// SetOption sets an option of the socket.
func (s *Stream) SetOption(opt runtime.Option, value int) error {
	if !s.loop.onThread() {
		return s.elsewhere("set option", func() error { return s.SetOption(opt, value) })
	}
	return s.loop.rt.SetOption(s.h, opt, value)
}

// SetQueueLimit changes StreamOptions.QueueLimit. It is called on the loop.
func (s *Stream) SetQueueLimit(bytes int) {
	s.loop.mustBeOn("SetQueueLimit")
	if s.opts.QueueLimit = bytes; bytes <= 0 {
		s.opts.QueueLimit = defaultQueueLimit
	}
}

// SetLinger changes StreamOptions.Linger. It is called on the loop.
func (s *Stream) SetLinger(d time.Duration) {
	s.loop.mustBeOn("SetLinger")
	if s.opts.Linger = d; d == 0 {
		s.opts.Linger = defaultLinger
	}
}

// SetDeadline sets both deadlines: see SetReadDeadline and SetWriteDeadline.
func (s *Stream) SetDeadline(d time.Time) error {
	if !s.loop.onThread() {
		return s.elsewhere("set deadline", func() error { return s.SetDeadline(d) })
	}
	if err := s.SetReadDeadline(d); err != nil {
		return err
	}
	return s.SetWriteDeadline(d)
}

// SetReadDeadline sets when reading ends with os.ErrDeadlineExceeded, for
// calls that wait already and for later ones; the zero time means never. What
// arrives is kept all the same.
func (s *Stream) SetReadDeadline(d time.Time) error {
	if !s.loop.onThread() {
		return s.elsewhere("set read deadline", func() error { return s.SetReadDeadline(d) })
	}
	return s.setDeadline(&s.in.deadline, d, &s.in.readers)
}

// SetWriteDeadline is SetReadDeadline for writing. Bytes that are queued
// already are still sent.
func (s *Stream) SetWriteDeadline(d time.Time) error {
	if !s.loop.onThread() {
		return s.elsewhere("set write deadline", func() error { return s.SetWriteDeadline(d) })
	}
	return s.setDeadline(&s.out.deadline, d, &s.out.writers)
}

func (s *Stream) setDeadline(dl *deadline, d time.Time, waiters *waitList) error {
	if s.closing {
		return &runtime.OpError{Op: "set deadline", Handle: s.h, Err: runtime.ErrClosed}
	}
	dl.set(s.loop, d, waiters)
	return nil
}

// A deadline is one that is moved often and passes seldom: moving it later
// costs nothing, the timer finds out when it fires.
type deadline struct {
	when    int64 // 0: none
	timer   timer
	waiters *waitList
}

func (d *deadline) set(l *Loop, t time.Time, waiters *waitList) {
	if t.IsZero() {
		d.when = 0
		l.timers.stop(&d.timer)
		return
	}
	d.when = max(l.clockTime(t), 1)
	if d.timer.fire == nil {
		d.waiters = waiters
		d.timer.fire = func() {
			if d.when == 0 {
				return
			}
			if l.rt.Now() < d.when {
				l.timers.set(&d.timer, d.when)
				return
			}
			d.waiters.wakeAll()
		}
	}
	if d.timer.at == 0 || d.when < d.timer.when {
		l.timers.set(&d.timer, d.when)
	}
}

func (d *deadline) passed(l *Loop) bool { return d.when != 0 && l.rt.Now() >= d.when }

// Close ends the stream: waiting reads fail with ErrClosed, what was written
// is sent for as long as Linger allows, operations in flight are joined, and
// the socket is closed. It returns what went wrong with sending. A killed
// task may call it too: it always ends. From a function given to Post it only
// begins to close.
//
// From a goroutine it is net.Conn's, and does not wait for a peer that takes
// nothing: once the kernel's buffer is full it returns, and the loop goes on to
// send for as long as Linger. What then goes wrong nobody is told, as with
// package net; Flush waits, and says so.
func (s *Stream) Close() error {
	switch {
	case s.loop.onThread():
		return s.close(false)
	case s.owner == nil:
		return s.offLoop("close")
	}
	// Not a child of the owner: what closes must not be killed before it starts.
	return s.loop.call(context.Background(), "close", func(context.Context) error { return s.close(true) })
}

// close does that. haste says not to wait for the peer.
func (s *Stream) close(haste bool) error {
	first := !s.closing
	if first {
		s.beginClose()
	}
	if t := s.loop.current(); t != nil && (!haste || !s.stuck(t)) {
		w := &t.nodes[0]
		w.task = t
		for !s.closed {
			s.closers.add(w)
			t.park()
			s.closers.remove(w)
		}
	}
	if !first {
		return &runtime.OpError{Op: "close", Handle: s.h, Err: runtime.ErrClosed}
	}
	return s.closeEr
}

// stuck reports whether Close still has bytes to send and the kernel has taken
// none of them in a whole turn of the loop.
func (s *Stream) stuck(t *Task) bool {
	for !s.closed && s.closeOp.Code == 0 {
		before := s.out.bytes
		s.loop.makeReady(t)
		t.park()
		if s.out.bytes == before {
			return s.closeOp.Code == 0
		}
	}
	return false
}

func (s *Stream) beginClose() {
	s.closing = true
	s.loop.closings++
	s.in.readers.wakeAll()
	s.out.writers.wakeAll()
	s.loop.timers.stop(&s.in.deadline.timer)
	s.loop.timers.stop(&s.out.deadline.timer)
	s.loop.timers.stop(&s.idle)
	if s.opts.Linger >= 0 {
		s.send() // with a layer also its goodbye
	}
	if s.out.idle() || s.opts.Linger < 0 {
		s.closeNow()
		return
	}
	s.linger.fire = func() {
		s.closeEr = &runtime.OpError{Op: "close", Handle: s.h, Err: fmt.Errorf("%d bytes were not sent within %v: %w",
			s.out.bytes, s.opts.Linger, os.ErrDeadlineExceeded)}
		s.closeNow()
	}
	s.loop.timers.set(&s.linger, later(s.loop.rt.Now(), s.opts.Linger))
	if s.loop.stopBy != 0 {
		s.hurry()
	}
}

// hurry cuts the time that Close may take once the loop is stopping, or the
// task that closes would be abandoned.
func (s *Stream) hurry() {
	if s.linger.at == 0 {
		return
	}
	now := s.loop.rt.Now()
	s.loop.timers.set(&s.linger, min(s.linger.when, now+max(s.loop.stopBy-now, 0)/2))
}

func (s *Stream) closeNow() {
	s.loop.timers.stop(&s.linger)
	if s.closeEr == nil {
		s.closeEr = s.out.err
	}
	s.closeOp = runtime.Op{Code: runtime.OpClose, Handle: s.h, Done: func(*runtime.Op) {
		s.closed = true
		s.loop.closings--
		s.discard()
		s.closers.wakeAll()
	}}
	s.loop.rt.Submit(&s.closeOp)
}

// discard releases every buffer that the stream has.
func (s *Stream) discard() {
	delete(s.loop.live, s)
	s.in.drop()
	s.dropQueued()
	if s.layer != nil {
		s.layer.Drop()
	}
	s.tellSent()
	if end := s.onEnd; end != nil {
		s.onEnd = nil
		s.loop.runPost(end)
	}
}

// OnEnd has f called on the loop, outside any task, once the stream is no more:
// it was closed, or its loop has ended. Functions that were given before are
// called before it. It is called on the loop.
func (s *Stream) OnEnd(f func()) {
	s.loop.mustBeOn("OnEnd")
	if before := s.onEnd; before != nil {
		s.onEnd = func() {
			defer f() // also if the other one panics
			before()
		}
		return
	}
	s.onEnd = f
}

// OnEOF has f called on the loop when the peer has ended the stream, after its
// last bytes have arrived: the error that f returns, if any, is what reads fail
// with in place of io.EOF. It is for a stream that carries on another
// connection, which may have ended otherwise than well. It is called on the
// loop, before anything is read; f must not block. If it panics, reads fail with
// the *PanicError.
func (s *Stream) OnEOF(f func() error) {
	s.loop.mustBeOn("OnEOF")
	s.onEOF = f
}
