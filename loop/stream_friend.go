package loop

import (
	"context"
	"net"
	"os"
	"time"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/runtime"
)

// Friend returns what the servers and adapters of this module may do with a stream.
// See package internal/friend.
func (s *Stream) Friend(friend.Key) *streamFriend { return (*streamFriend)(s) }

// A streamFriend is a Stream for code that writes frames in place, that must not wait,
// or that lies beneath the stream as TLS does.
type streamFriend Stream

// SetLayer puts l, which is TLS, between the stream and its socket, once what is
// in the inbox is for l to read. It is called on the loop, while no task uses the
// stream.
func (f *streamFriend) SetLayer(l layer) { (*Stream)(f).setLayer(l) }

// Layer returns what SetLayer was given; nil if there is none.
func (f *streamFriend) Layer() any {
	if f.layer == nil {
		return nil
	}
	return f.layer.layer
}

// Transmit queues a copy of p beneath the layer. It never waits, and fails once
// the stream has failed, or too much is queued there that the peer does not take.
func (f *streamFriend) Transmit(p []byte) error { return (*Stream)(f).transmit(p) }

// ReadableWhen returns a Source that is ready when ready reports true or the stream is
// readable: for code that keeps bytes in front of the stream's. ready is called on the
// loop and must not block; a change of its result wakes no task.
func (f *streamFriend) ReadableWhen(ready func() bool) Source {
	return &when{ready, (*readable)(f)}
}

// SetOption sets an option of the socket. It is called on the loop.
func (f *streamFriend) SetOption(opt runtime.Option, value int) error {
	return f.loop.rt.SetOption(f.h, opt, value)
}

// Handle returns the stream's handle, which stays the stream's own.
func (f *streamFriend) Handle() runtime.Handle { return f.h }

// ReadErr returns the error that a read would fail with if the inbox were empty; nil
// if it would wait. It does not wait, on the loop.
func (f *streamFriend) ReadErr() error {
	s := (*Stream)(f)
	if !s.loop.onThread() {
		return s.elsewhere("recv", s.readErr)
	}
	return s.readErr()
}

// Received returns how many bytes have arrived since the stream was made.
func (f *streamFriend) Received() int64 {
	return f.in.total
}

// ReadAhead starts to receive, as a read does, and does not wait. It is called on the
// loop.
func (f *streamFriend) ReadAhead() {
	s := (*Stream)(f)
	s.loop.mustBeOn("ReadAhead")
	s.arm()
}

// WriteErr returns the error that a write would fail with, ErrBusy if it would wait, and
// nil if the queue has room. It never waits. Off the loop it returns ErrOffLoop.
func (f *streamFriend) WriteErr() error {
	s := (*Stream)(f)
	if !s.loop.onThread() {
		return s.offLoop("send")
	}
	if err := s.writeErr(); err != nil {
		return err
	}
	switch {
	case s.out.bytes < s.opts.QueueLimit && !s.out.busy:
		return nil
	case s.out.deadline.passed(s.loop):
		return &runtime.OpError{Op: "send", Handle: s.h, Err: os.ErrDeadlineExceeded}
	case s.idleEr != nil:
		return s.idleWriteErr()
	}
	return errQueueFull
}

// Enqueue queues bufs, in order and together, and takes them, even when it fails. It
// fails only when the stream is closed or broken. It never waits and has no limit:
// the caller has asked WriteErr, or has its own limit. If a Write waits for room, the
// buffers go between its parts. It is called on the loop.
func (f *streamFriend) Enqueue(bufs ...*runtime.Buffer) error {
	s := (*Stream)(f)
	err := error(nil)
	if !s.loop.onThread() {
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

// Grow returns the queue's next n bytes, at most 64 KiB. The caller must fill them in
// before anything else happens on the stream. The bytes that one turn of the loop puts
// there lie side by side and leave in one piece. more is how many bytes are likely to
// follow in this turn. Like Enqueue, it never waits and has no limit.
func (f *streamFriend) Grow(n, more int) ([]byte, error) {
	s := (*Stream)(f)
	if !s.loop.onThread() {
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

// TryGrow is Grow if that is cheap: if the piece that Grow started in this turn has room
// for n more bytes and the queue is below its limit. Otherwise it returns nil and has
// done nothing.
func (f *streamFriend) TryGrow(n int) []byte {
	s := (*Stream)(f)
	if !s.loop.onThread() {
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

// TailRoom returns how many bytes Grow could return without starting a new piece; 0 if
// this turn has put nothing there, or off the loop.
func (f *streamFriend) TailRoom() int {
	s := (*Stream)(f)
	if !s.loop.onThread() || s.out.tail == nil {
		return 0
	}
	return s.out.tail.Friend(key).Room()
}

// OnSent has fn called on the loop, outside any task, whenever Queued has fallen. fn must
// not block; nil ends it. It is called on the loop.
func (f *streamFriend) OnSent(fn func()) {
	s := (*Stream)(f)
	s.loop.mustBeOn("OnSent")
	s.out.onSent = fn
}

// OnEnd has fn called on the loop, outside any task, when the stream has been closed or
// its loop has ended. Earlier functions are called first. It is called on the loop.
func (f *streamFriend) OnEnd(fn func()) {
	s := (*Stream)(f)
	s.loop.mustBeOn("OnEnd")
	if before := s.onEnd; before != nil {
		s.onEnd = func() {
			defer fn() // also if the other one panics
			before()
		}
		return
	}
	s.onEnd = fn
}

// OnEOF has fn called on the loop when the peer has ended the stream, after its last
// bytes have arrived. If fn returns an error, reads fail with it in place of io.EOF.
// It is for a stream that carries another connection's bytes, which may have ended
// with an error. It is called on the loop, before the first read; fn must not block. If
// fn panics, reads fail with the *PanicError.
func (f *streamFriend) OnEOF(fn func() error) {
	s := (*Stream)(f)
	s.loop.mustBeOn("OnEOF")
	s.onEOF = fn
}

// FailSends makes writes fail with err from now on, unless sending has failed already. It
// is for a stream that carries another connection's bytes, when that connection takes no
// more: its error tells a writer more than that of the stream's own socket. It is called
// on the loop.
func (f *streamFriend) FailSends(err error) {
	s := (*Stream)(f)
	s.loop.mustBeOn("FailSends")
	if s.out.err == nil {
		s.out.err = &runtime.OpError{Op: "send", Handle: s.h, Err: err}
		s.out.writers.wakeAll()
	}
}

// SetAddrs sets the results of LocalAddr and RemoteAddr, for a stream that carries
// another connection's bytes. It is called on the loop, before other code has the
// stream.
func (f *streamFriend) SetAddrs(local, remote net.Addr) {
	s := (*Stream)(f)
	s.loop.mustBeOn("SetAddrs")
	s.addrs = &[2]net.Addr{local, remote}
}

// SetLinger changes StreamOptions.Linger. It is called on the loop.
func (f *streamFriend) SetLinger(d time.Duration) {
	s := (*Stream)(f)
	s.loop.mustBeOn("SetLinger")
	if s.opts.Linger = d; d == 0 {
		s.opts.Linger = defaultLinger
	}
}

// SetQueueLimit changes StreamOptions.QueueLimit. It is called on the loop.
func (f *streamFriend) SetQueueLimit(bytes int) {
	s := (*Stream)(f)
	s.loop.mustBeOn("SetQueueLimit")
	if s.opts.QueueLimit = bytes; bytes <= 0 {
		s.opts.QueueLimit = defaultQueueLimit
	}
}

// AllowGoroutines lets ordinary goroutines use the stream: a task of the loop carries
// out each of their calls, which costs two switches between threads. The calls end
// when the task of ctx is killed. It is called on the loop.
func (f *streamFriend) AllowGoroutines(ctx context.Context) {
	s := (*Stream)(f)
	s.local, _ = s.loop.rt.LocalAddr(s.h)
	s.owner = ctx
}
