package loop

import (
	"errors"
	"io"
	"os"

	"github.com/noria-go/noria/runtime"
)

// An inbox is the receiving half of a Stream.
type inbox struct {
	bufs     ring[*runtime.Buffer]
	bytes    int
	total    int64      // bytes received since the stream was made
	stopping bool       // op is being cancelled: the inbox is full, or ReadInto wants the socket
	into     bool       // op is the receive of a ReadInto
	op       runtime.Op // otherwise a recv-many
	readers  waitList
	err      error // what reads fail with once the inbox is empty
	wanted   int   // how many ReadIntos wait for the socket, and one if openLater does
	deadline deadline
}

// Limits of the number of buffers in an inbox. The smallest takes half a kilobyte of
// memory, and a peer can have it hold a single byte.
const (
	minBuffer  = 512
	fewBuffers = 16 // may always be there
)

// reaches reports whether the inbox takes as much memory as limit bytes do.
func (in *inbox) reaches(limit int) bool {
	return in.bytes >= limit || in.bufs.len() >= max(limit/minBuffer, fewBuffers)
}

func (in *inbox) drop() {
	for in.bufs.len() > 0 {
		in.bufs.pop().Friend(key).Disclaim()
	}
	in.bytes = 0
}

func (in *inbox) pop() *runtime.Buffer {
	b := in.bufs.pop()
	in.bytes -= b.Friend(key).Len()
	b.Friend(key).HandOn()
	return b
}

// arm starts to receive, unless the stream receives already or must not.
func (s *Stream) arm() {
	in := &s.in
	if in.op.InFlight() || in.into || in.wanted > 0 || in.err != nil || s.closing || in.reaches(s.opts.InboxLimit) {
		return
	}
	in.op.Code, in.op.Buf, in.stopping = runtime.OpRecvMany, nil, false
	s.loop.rt.Submit(&in.op)
}

// received takes a completion of in.op.
func (s *Stream) received(op *runtime.Op) {
	in := &s.in
	if op.Code == runtime.OpRecv { // of ReadInto, which takes the result from the op
		if op.N > 0 {
			s.touch()
		}
		in.readers.wakeAll()
		return
	}
	if s.layer != nil {
		s.receivedSealed(op)
		return
	}
	if op.More {
		in.bufs.push(op.Buf)
		in.bytes += op.N
		in.total += int64(op.N)
		s.touch()
		if in.reaches(s.opts.InboxLimit) && !in.stopping {
			in.stopping = true
			s.loop.rt.Cancel(op)
		}
		in.readers.wakeOne()
		return
	}
	if in.err == nil && !errors.Is(op.Err, runtime.ErrCanceled) {
		in.err = s.ended(op.Err)
	}
	in.readers.wakeAll()
}

// ended returns the error that reads fail with after receiving has ended with err: err,
// or what OnEOF's function returns.
func (s *Stream) ended(err error) error {
	if err == io.EOF && s.onEOF != nil {
		var why error
		if failed := s.loop.contain("OnEOF's function", func() { why = s.onEOF() }); failed != nil {
			why = failed
		}
		if why != nil {
			return &runtime.OpError{Op: "recv", Handle: s.h, Err: why}
		}
	}
	return err
}

// beginRead returns the calling task, or the error that a read must fail with.
func (s *Stream) beginRead() (*Task, error) {
	t := s.loop.current()
	if t == nil {
		return nil, ErrOffLoop
	}
	if s.closing {
		return nil, &runtime.OpError{Op: "recv", Handle: s.h, Err: runtime.ErrClosed}
	}
	if s.in.deadline.passed(s.loop) {
		return nil, &runtime.OpError{Op: "recv", Handle: s.h, Err: os.ErrDeadlineExceeded}
	}
	return t, nil
}

// await waits until the inbox holds bytes. It fails when none will come, and when t must
// not wait any longer.
func (s *Stream) await(t *Task) error {
	in := &s.in
	for in.bufs.len() == 0 {
		if err := s.readErr(); err != nil {
			if s.reopen() {
				continue
			}
			return err
		}
		s.arm()
		// A killed task fails even if bytes have arrived meanwhile; they are kept.
		// Otherwise it would never end while its peer keeps sending.
		if err := t.waitOn(&in.readers, noContext); err != nil {
			if in.bufs.len() > 0 {
				in.readers.wakeOne() // t may have been woken for these bytes
			}
			return &runtime.OpError{Op: "recv", Handle: s.h, Err: err}
		}
	}
	return nil
}

// taken is called after a read has taken bytes from the inbox. It receives again once
// half of the inbox is free, and passes what is left to the next reader.
func (s *Stream) taken() {
	if !s.in.reaches(s.opts.InboxLimit/2) && s.in.stopping {
		s.arm()
	}
	if s.in.bufs.len() > 0 {
		s.in.readers.wakeOne()
	}
}

// ReadBuf waits for bytes and returns a buffer of them, which the caller then owns. A
// task of the loop calls it, or a goroutine if the stream allows goroutines. After the
// last byte it returns io.EOF, each time.
func (s *Stream) ReadBuf() (*runtime.Buffer, error) {
	t, err := s.beginRead()
	if err == ErrOffLoop {
		return fromElsewhere(s, "recv", s.ReadBuf)
	}
	if err == nil {
		err = s.await(t)
	}
	if err != nil {
		return nil, err
	}
	b := s.in.pop()
	s.taken()
	return b, nil
}

// TryReadBuf is ReadBuf that never waits. It returns nil if the inbox is empty. It is
// called on the loop; elsewhere it returns nil.
func (s *Stream) TryReadBuf() *runtime.Buffer {
	if !s.loop.onLoop() || s.closing || s.in.bufs.len() == 0 && (s.in.err == nil || !s.reopen() || s.in.bufs.len() == 0) {
		return nil
	}
	b := s.in.pop()
	s.taken()
	return b
}

// readErr returns the error that a read fails with while the inbox is empty, or nil if
// it would wait.
func (s *Stream) readErr() error {
	switch {
	case s.closing:
		return &runtime.OpError{Op: "recv", Handle: s.h, Err: runtime.ErrClosed}
	case s.in.err != nil:
		return s.in.err
	case s.in.deadline.passed(s.loop):
		return &runtime.OpError{Op: "recv", Handle: s.h, Err: os.ErrDeadlineExceeded}
	}
	return nil
}

// Unread puts b back in front of the bytes that are to be read next, and takes it. It is
// called on the loop and does not wait, or by a goroutine if the stream allows
// goroutines.
func (s *Stream) Unread(b *runtime.Buffer) {
	if !s.loop.onLoop() {
		if err := s.elsewhere("unread", func() error { s.Unread(b); return nil }); err != nil {
			s.loop.opts.Logger.Error("noria: bytes given to Unread are lost", "error", err)
			b.Release()
		}
		return
	}
	s.loop.owns(b)
	if n := b.Len(); n > 0 && !s.closing {
		b.Friend(key).Claim(runtime.OpRecv)
		s.in.bufs.unpop(b)
		s.in.bytes += n
		s.in.readers.wakeOne()
		return
	}
	b.Release()
}

// Buffered returns how many bytes can be read without waiting. It is called on the loop
// and does not wait, or by a goroutine if the stream allows goroutines.
func (s *Stream) Buffered() int {
	if !s.loop.onLoop() {
		n, _ := fromElsewhere(s, "buffered", func() (int, error) { return s.in.bytes, nil }) // 0 if the loop has ended
		return n
	}
	return s.in.bytes
}

// Read waits for at least one byte, and copies to p what has arrived and fits. A task of
// the loop calls it, or a goroutine if the stream allows goroutines.
func (s *Stream) Read(p []byte) (int, error) {
	t, err := s.beginRead()
	if err == ErrOffLoop {
		return fromElsewhere(s, "recv", func() (int, error) { return s.Read(p) })
	}
	if err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if err := s.await(t); err != nil {
		return 0, err
	}
	n := s.copyOut(p)
	s.taken()
	return n, nil
}

// copyOut copies bytes from the inbox to p and drops them from the inbox.
func (s *Stream) copyOut(p []byte) (n int) {
	in := &s.in
	for n < len(p) && in.bufs.len() > 0 {
		first := in.bufs.peek(0)
		b := (*first).Friend(key)
		c := copy(p[n:], b.Bytes())
		n += c
		if c == b.Len() {
			in.bufs.pop()
			b.Disclaim()
		} else {
			*first = b.Own() // a buffer that was given to Unread may have other owners
			(*first).Friend(key).Skip(c)
		}
		in.bytes -= c
	}
	return n
}

// ReadInto waits for bytes and receives them into the room of b, which stays the
// caller's. It is for a message that is known to be large: what has not arrived yet is
// not copied, unless the stream has TLS. A task of the loop calls it, or a goroutine if
// the stream allows goroutines. It returns how many bytes it has added to b: at least
// one, or none and an error.
func (s *Stream) ReadInto(b *runtime.Buffer) (int, error) {
	t, err := s.beginRead()
	if err == ErrOffLoop {
		return fromElsewhere(s, "recv", func() (int, error) { return s.ReadInto(b) })
	}
	if err != nil {
		return 0, err
	}
	room := b.Room()
	if len(room) == 0 {
		return 0, &runtime.OpError{Op: "recv", Handle: s.h, Err: errors.New("the buffer has no room")}
	}
	in := &s.in
	in.wanted++ // meanwhile other readers do not start to receive
	for in.op.InFlight() && in.bufs.len() == 0 && !in.into && s.layer == nil {
		if !in.stopping {
			in.stopping = true
			s.loop.rt.Cancel(&in.op)
		}
		s.park(t, &in.readers)
	}
	in.wanted--
	if in.bufs.len() > 0 || in.into || in.err != nil || s.layer != nil {
		if err := s.await(t); err != nil {
			return 0, err
		}
		n := s.copyOut(room)
		b.Extend(n)
		if in.bufs.len() > 0 {
			in.readers.wakeOne() // for what is left
		}
		return n, nil
	}
	return s.recvInto(t, b)
}

// recvInto runs one OpRecv into b. No other operation receives from the socket meanwhile.
func (s *Stream) recvInto(t *Task, b *runtime.Buffer) (int, error) {
	in := &s.in
	in.op.Code, in.op.Buf = runtime.OpRecv, b
	s.loop.rt.Submit(&in.op) // it panics if b cannot be lent
	in.into = true
	var why error
	for in.op.InFlight() {
		// Also before the first wait: the wake-up for it may have come while ReadInto
		// waited for the socket.
		if why == nil {
			if why = s.noInto(t); why != nil {
				s.loop.rt.Cancel(&in.op)
			}
		}
		s.park(t, &in.readers)
	}
	in.into, in.op.Buf = false, nil
	in.readers.wakeAll()
	err := in.op.Err
	switch {
	case err == nil:
		in.total += int64(in.op.N)
		return in.op.N, nil
	case errors.Is(err, runtime.ErrCanceled):
		if why == nil {
			why = runtime.ErrClosed
		}
		return 0, opErr("recv", s.h, why)
	default:
		in.err = s.ended(err)
		return 0, in.err
	}
}

// noInto returns why a ReadInto must not wait any longer, or nil.
func (s *Stream) noInto(t *Task) error {
	switch {
	case s.closing:
		return runtime.ErrClosed
	case t.killed:
		return t.killErr()
	case s.in.deadline.passed(s.loop):
		return os.ErrDeadlineExceeded
	}
	return s.in.err // the idle timeout has passed
}

// park suspends t until list wakes it. A kill does not end the wait.
func (s *Stream) park(t *Task, list *waitList) {
	w := &t.nodes[0]
	w.task = t
	list.add(w)
	t.park()
	list.remove(w)
}

// WriteTo writes to w what arrives, until the peer has ended the stream, and waits
// meanwhile. io.Copy calls it. A task of the loop calls it, or a goroutine if the stream
// allows goroutines. To a Stream of the same loop it hands over the buffers and copies
// nothing. A type that embeds a *Stream and has a Read of its own needs a WriteTo of its
// own too; otherwise io.Copy bypasses its Read.
func (s *Stream) WriteTo(w io.Writer) (n int64, err error) {
	to, direct := w.(*Stream)
	direct = direct && to.loop == s.loop
	for {
		b, err := s.ReadBuf()
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		size := b.Len()
		if direct {
			if err = to.WriteBuf(b); err != nil {
				return n, err
			}
			n += int64(size)
			continue
		}
		written, err := w.Write(b.Bytes())
		b.Release()
		n += int64(written)
		if err == nil && written < size {
			err = io.ErrShortWrite
		}
		if err != nil {
			return n, err
		}
	}
}

// Readable returns a Source for WaitAny that is ready when a read would not wait: bytes
// have arrived, or the read would fail. It may be called from anywhere; tasks of the loop
// use the Source.
func (s *Stream) Readable() Source { return (*readable)(s) }

type readable Stream

func (r *readable) home() *Loop { return r.loop }

func (r *readable) poll(w *waiter) bool {
	s := (*Stream)(r)
	in := &s.in
	if in.bufs.len() > 0 || s.readErr() != nil {
		return true
	}
	s.arm()
	if w != nil {
		in.readers.add(w)
	}
	return false
}

func (r *readable) unpoll(w *waiter) {
	if in := &r.in; !in.readers.remove(w) && in.bufs.len() > 0 {
		in.readers.wakeOne()
	}
}
