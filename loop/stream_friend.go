package loop

import (
	"context"
	"net"
	"time"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/runtime"
)

// Friend returns the stream with the methods that only the servers and adapters of this
// module may call. See package internal/friend.
func (s *Stream) Friend(friend.Key) *streamFriend { return (*streamFriend)(s) }

// A streamFriend is a Stream for code that builds frames in the queue itself, that must
// not wait, or that lies beneath the stream as TLS does. Its methods are called on the
// loop and do not wait, unless a comment says otherwise.
type streamFriend Stream

// SetLayer puts l, such as TLS, between the stream and its socket. l gets what is in the
// inbox; what is in the outbox is sent as it is. It is called on the loop, while no other
// task uses the stream.
func (f *streamFriend) SetLayer(l layer) { (*Stream)(f).setLayer(l) }

// Layer returns the argument of SetLayer, or nil if there is none.
func (f *streamFriend) Layer() any {
	if f.layer == nil {
		return nil
	}
	return f.layer.layer
}

// Transmit queues a copy of p beneath the layer. It is called by the layer, on the loop.
// It never waits. It fails if sending has failed, and if the peer provokes more answers
// than it takes.
func (f *streamFriend) Transmit(p []byte) error { return (*Stream)(f).transmit(p) }

// ReadableWhen returns a Source that is ready when ready reports true or the stream is
// readable. It is for code that keeps bytes of its own in front of the stream's. ready is
// called on the loop and must not block; a change of its result wakes no task.
func (f *streamFriend) ReadableWhen(ready func() bool) Source {
	return &when{ready, (*readable)(f)}
}

// SetOption sets an option of the socket. It is called on the loop.
func (f *streamFriend) SetOption(opt runtime.Option, value int) error {
	return f.loop.rt.SetOption(f.h, opt, value)
}

// Elsewhere has a task of the stream's loop carry out fn and waits for it, if goroutines
// may use the stream (see AllowGoroutines). It is called off the loop.
func (f *streamFriend) Elsewhere(op string, fn func() error) error {
	return (*Stream)(f).elsewhere(op, fn)
}

// Handle returns the stream's handle, which stays the stream's own. It may be called from
// anywhere.
func (f *streamFriend) Handle() runtime.Handle { return f.h }

// ReadErr returns the error that a read would fail with if the inbox were empty, or nil
// if it would wait. It is called on the loop and does not wait, or by a goroutine if the
// stream allows goroutines.
func (f *streamFriend) ReadErr() error {
	s := (*Stream)(f)
	if !s.loop.onLoop() {
		return s.elsewhere("recv", s.readErr)
	}
	return s.readErr()
}

// Received returns how many bytes have arrived since the stream was made.
func (f *streamFriend) Received() int64 {
	return f.in.total
}

// ReadAhead starts to receive, as a read does, and does not wait. It is called on the
// loop, and panics elsewhere.
func (f *streamFriend) ReadAhead() {
	s := (*Stream)(f)
	s.loop.mustBeOn("ReadAhead")
	s.arm()
}

// WriteErr returns nil if the stream can send and the queue has room, otherwise the error
// that a write would fail with, or ErrBusy if it would wait. It is called on the loop and
// never waits; elsewhere it returns ErrOffLoop.
func (f *streamFriend) WriteErr() error {
	s := (*Stream)(f)
	if !s.loop.onLoop() {
		return s.offLoop("send")
	}
	if err := s.writeErr(); err != nil {
		return err
	}
	if s.out.bytes < s.opts.QueueLimit && !s.out.busy {
		return nil
	}
	if err := s.outOfTime(); err != nil {
		return err
	}
	return errQueueFull
}

// Enqueue queues bufs, in order and together, and takes them, even when it fails. It is
// called on the loop and never waits. It fails only when the stream is closed or broken.
// QueueLimit does not bind it: the caller asks WriteErr before, or has a limit of its
// own. If a Write waits for room, bufs go between its parts.
func (f *streamFriend) Enqueue(bufs ...*runtime.Buffer) error {
	s := (*Stream)(f)
	err := error(nil)
	if !s.loop.onLoop() {
		err = s.offLoop("send")
	} else {
		err = s.writeErr()
	}
	if err != nil {
		for _, b := range bufs {
			b.Release()
		}
		return err
	}
	s.enqueue(bufs...)
	return nil
}

// Grow appends n bytes, at most 64 KiB, to the queue and returns them. The caller must
// fill them in before it calls another method of the stream, and before it suspends. The
// bytes that one turn of the loop appends lie side by side and leave in one piece. more is
// how many bytes are likely to follow in this turn. Grow is called on the loop and never
// waits; QueueLimit does not bind it.
func (f *streamFriend) Grow(n, more int) ([]byte, error) {
	s := (*Stream)(f)
	if !s.loop.onLoop() {
		return nil, s.offLoop("send")
	}
	if err := s.writeErr(); err != nil {
		return nil, err
	}
	out := &s.out
	b := out.tail
	if b == nil || b.Friend(key).Room() < n {
		var err error
		if b, err = s.loop.pool.Get(max(n, min(n+more, slab))); err != nil {
			return nil, &runtime.OpError{Op: "send", Handle: s.h, Err: err}
		}
		out.queue = append(out.queue, b)
		out.tail = b
	}
	s.markDirty()
	out.bytes += n
	return b.Friend(key).Grow(n), nil
}

// TryGrow is Grow for the cheap case: the buffer that Grow appends to has room for n more
// bytes, and less than QueueLimit is queued. Otherwise it returns nil and changes
// nothing.
func (f *streamFriend) TryGrow(n int) []byte {
	s := (*Stream)(f)
	if !s.loop.onLoop() {
		return nil
	}
	out := &s.out
	b := out.tail
	if b == nil || b.Friend(key).Room() < n || out.bytes >= s.opts.QueueLimit || out.busy || out.err != nil || out.shut || s.closing {
		return nil
	}
	out.bytes += n
	return b.Friend(key).Grow(n)
}

// TailRoom returns how many bytes Grow can append without a new buffer: 0 if it would
// need one, and off the loop.
func (f *streamFriend) TailRoom() int {
	s := (*Stream)(f)
	if !s.loop.onLoop() || s.out.tail == nil {
		return 0
	}
	return s.out.tail.Friend(key).Room()
}

// OnSent has fn called on the loop, outside any task, after each send and when the stream
// has been closed: Queued has fallen then. fn must not block; nil ends the calls. OnSent
// is called on the loop, and panics elsewhere.
func (f *streamFriend) OnSent(fn func()) {
	s := (*Stream)(f)
	s.loop.mustBeOn("OnSent")
	s.out.onSent = fn
}

// OnEnd has fn called on the loop, outside any task, when the stream has been closed or
// its loop has ended. Functions of earlier calls are called first. OnEnd is called on the
// loop, and panics elsewhere.
func (f *streamFriend) OnEnd(fn func()) {
	s := (*Stream)(f)
	s.loop.mustBeOn("OnEnd")
	if before := s.onEnd; before != nil {
		s.onEnd = func() {
			defer fn() // also if before panics
			before()
		}
		return
	}
	s.onEnd = fn
}

// OnEOF has fn called on the loop when the peer has ended the stream, after its last
// bytes have arrived. If fn returns an error, reads fail with it in place of io.EOF; if
// fn panics, with the *PanicError. fn must not block. OnEOF is for a stream that carries
// another connection's bytes, which may have ended with an error. It is called on the
// loop, before the first read, and panics elsewhere.
func (f *streamFriend) OnEOF(fn func() error) {
	s := (*Stream)(f)
	s.loop.mustBeOn("OnEOF")
	s.onEOF = fn
}

// FailSends makes writes fail with err from now on, unless sending has failed already. It
// is for a stream that carries another connection's bytes, when that connection takes no
// more: its error tells a writer more than that of the stream's own socket. FailSends is
// called on the loop, and panics elsewhere.
func (f *streamFriend) FailSends(err error) {
	s := (*Stream)(f)
	s.loop.mustBeOn("FailSends")
	if s.out.err == nil {
		s.out.err = &runtime.OpError{Op: "send", Handle: s.h, Err: err}
		s.out.writers.wakeAll()
	}
}

// SetAddrs sets the results of LocalAddr and RemoteAddr. It is for a stream that carries
// another connection's bytes. It is called on the loop, before other code has the stream,
// and panics elsewhere.
func (f *streamFriend) SetAddrs(local, remote net.Addr) {
	s := (*Stream)(f)
	s.loop.mustBeOn("SetAddrs")
	s.addrs = &[2]net.Addr{local, remote}
}

// SetLinger changes StreamOptions.Linger. It is called on the loop, and panics elsewhere.
func (f *streamFriend) SetLinger(d time.Duration) {
	s := (*Stream)(f)
	s.loop.mustBeOn("SetLinger")
	if s.opts.Linger = d; d == 0 {
		s.opts.Linger = defaultLinger
	}
}

// SetQueueLimit changes StreamOptions.QueueLimit. It is called on the loop, and panics
// elsewhere.
func (f *streamFriend) SetQueueLimit(bytes int) {
	s := (*Stream)(f)
	s.loop.mustBeOn("SetQueueLimit")
	if s.opts.QueueLimit = bytes; bytes <= 0 {
		s.opts.QueueLimit = defaultQueueLimit
	}
}

// AllowGoroutines lets goroutines use the stream: a task of the loop carries out each of
// their calls, which costs two switches between threads. If ctx comes from a task, a kill
// of that task ends the calls, otherwise the end of ctx does. AllowGoroutines is called on
// the loop.
func (f *streamFriend) AllowGoroutines(ctx context.Context) {
	s := (*Stream)(f)
	s.local, _ = s.loop.rt.LocalAddr(s.h)
	s.owner = ctx
}
