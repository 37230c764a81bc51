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
	total    int64
	stopping bool       // the op is being cancelled: too much is here, or ReadInto wants the socket
	into     bool       // a ReadInto is going on
	op       runtime.Op // a recv-many most of the time
	readers  waitList
	err      error
	wanted   int // how many ReadIntos wait for the socket
	deadline deadline
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

// arm starts receiving, unless that goes on or there is no reason to.
func (s *Stream) arm() {
	in := &s.in
	if in.op.InFlight() || in.into || in.wanted > 0 || in.err != nil || s.closing || in.bytes >= s.opts.InboxLimit {
		return
	}
	in.op.Code, in.op.Buf, in.stopping = runtime.OpRecvMany, nil, false
	s.loop.rt.Submit(&in.op)
}

// received takes a completion of in.op.
func (s *Stream) received(op *runtime.Op) {
	in := &s.in
	if op.Code == runtime.OpRecv { // of ReadInto, which looks at the op itself
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
		if in.bytes >= s.opts.InboxLimit && !in.stopping {
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

// ended returns what reads fail with from now on, after err: see OnEOF.
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

// beginRead returns the calling task if a read makes sense.
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

// await waits until the inbox holds something, and otherwise says why it never
// will, or not in time.
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
		// Killed, it must not go on because bytes have come meanwhile: with a
		// peer that never stops it would never end. They are kept.
		if err := t.waitOn(&in.readers, noContext); err != nil {
			if in.bufs.len() > 0 {
				in.readers.wakeOne() // it may have been woken for them
			}
			return &runtime.OpError{Op: "recv", Handle: s.h, Err: err}
		}
	}
	return nil
}

// taken goes on receiving when enough has been read.
func (s *Stream) taken() {
	if s.in.bytes < s.opts.InboxLimit/2 && s.in.stopping {
		s.arm()
	}
	if s.in.bufs.len() > 0 {
		s.in.readers.wakeOne() // the rest is for whoever else waits
	}
}

// ReadBuf waits for bytes and returns a buffer of them, which is the caller's
// now. It returns io.EOF after the last, also when called again.
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

// TryReadBuf is ReadBuf that never waits: nil if nothing is there. It may be
// called from a function given to Post; from outside the loop it finds nothing.
func (s *Stream) TryReadBuf() *runtime.Buffer {
	if !s.loop.onThread() || s.closing || s.in.bufs.len() == 0 && (s.in.err == nil || !s.reopen() || s.in.bufs.len() == 0) {
		return nil
	}
	b := s.in.pop()
	s.taken()
	return b
}

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

// Unread puts b, which becomes the stream's, in front of what is to be read.
func (s *Stream) Unread(b *runtime.Buffer) {
	if !s.loop.onThread() {
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

// Buffered returns how many bytes can be read without waiting.
func (s *Stream) Buffered() int {
	if !s.loop.onThread() {
		n, _ := fromElsewhere(s, "buffered", func() (int, error) { return s.in.bytes, nil }) // else nothing can be read
		return n
	}
	return s.in.bytes
}

// Read is net.Conn's: it waits for at least one byte and copies what is there
// and fits into p.
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

// copyOut moves bytes from the inbox to p.
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
			*first = b.Own() // what Unread put back may have other owners
			(*first).Friend(key).Skip(c)
		}
		in.bytes -= c
	}
	return n
}

// ReadInto receives into the room of b, which stays the caller's: for a
// message that is known to be large, and so needs no copy (with TLS it is one).
// It returns how many bytes were added, at least one, or an error and none.
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
	in.wanted++ // other readers do not begin anew meanwhile
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
			in.readers.wakeOne() // the rest is for whoever else waits
		}
		return n, nil
	}
	return s.recvInto(t, b)
}

// recvInto runs one OpRecv, with the socket to itself.
func (s *Stream) recvInto(t *Task, b *runtime.Buffer) (int, error) {
	in := &s.in
	in.op.Code, in.op.Buf = runtime.OpRecv, b
	s.loop.rt.Submit(&in.op) // it panics if b cannot be lent
	in.into = true
	var why error
	for in.op.InFlight() {
		// Also before the first wait: it may have come while the socket was not
		// ours yet, and does not come again.
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

// noInto says why a ReadInto must not wait any longer.
func (s *Stream) noInto(t *Task) error {
	switch {
	case s.closing:
		return runtime.ErrClosed
	case t.killed:
		return runtime.ErrCanceled
	case s.in.deadline.passed(s.loop):
		return os.ErrDeadlineExceeded
	}
	return s.in.err // it was idle for too long
}

// park waits for list and nothing else.
func (s *Stream) park(t *Task, list *waitList) {
	w := &t.nodes[0]
	w.task = t
	list.add(w)
	t.park()
	list.remove(w)
}

// WriteTo is io.WriterTo: io.Copy from a stream to another one of its loop, or
// back to itself, hands over the buffers and copies nothing. A type that embeds a
// Stream is written to with its own Write; if it has its own Read, it needs its
// own WriteTo too, or io.Copy reads past it.
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

// Readable returns the stream as a Source for WaitAny: it has something when
// a read would not wait.
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
