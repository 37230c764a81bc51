package loop

import (
	"errors"
	"fmt"
	"os"

	"github.com/noria-go/noria/runtime"
)

const slab = 32 << 10 // size of the buffers that small writes are copied into

// An outbox is the sending half of a Stream.
type outbox struct {
	sendQueue
	bytes    int             // not sent yet; with a layer, sealed and unsealed bytes
	tail     *runtime.Buffer // the queue's last buffer, while Write may append to it; or nil
	op       runtime.Op      // a send
	dirty    bool            // in Loop.dirty
	shut     bool            // CloseWrite was called
	busy     bool            // a Write has queued a part and waits for room
	err      error           // why nothing can be sent any more
	writers  waitList
	deadline deadline
	onSent   func()
}

func (out *outbox) idle() bool { return out.bytes == 0 && !out.op.InFlight() }

// A sendQueue holds buffers that are to be sent, in order.
type sendQueue struct {
	queue []*runtime.Buffer // from head on; the op in flight uses this memory
	head  int
}

func (q *sendQueue) empty() bool { return q.head == len(q.queue) }

// advance drops the buffers that lie within the first n bytes. It returns how many of the
// n bytes are in the buffer after them.
func (q *sendQueue) advance(n int) int {
	for q.head < len(q.queue) {
		b := q.queue[q.head]
		if size := b.Friend(key).Len(); n < size {
			break
		} else {
			n -= size
		}
		q.queue[q.head] = nil
		q.head++
		b.Friend(key).Disclaim()
	}
	if q.head == len(q.queue) {
		q.queue, q.head = q.queue[:0], 0
		if cap(q.queue) > runtime.MaxVec {
			q.queue = nil
		}
	} else if q.head >= runtime.MaxVec {
		q.queue = append(q.queue[:0], q.queue[q.head:]...)
		q.head = 0
	}
	return n
}

func (q *sendQueue) drop() {
	for _, b := range q.queue[q.head:] {
		b.Friend(key).Disclaim()
	}
	q.queue, q.head = nil, 0
}

// dropQueued releases what was written and is not sent.
func (s *Stream) dropQueued() {
	s.out.drop()
	s.out.bytes, s.out.tail = 0, nil
	if s.layer != nil {
		s.layer.dropSealed()
	}
}

// markDirty has the stream flushed at the end of the loop's turn.
func (s *Stream) markDirty() {
	if !s.out.dirty {
		s.out.dirty = true
		s.loop.dirty = append(s.loop.dirty, s)
	}
}

// send submits what is queued, unless a send is in flight: two could reorder bytes.
func (s *Stream) send() {
	out := &s.out
	if out.op.InFlight() || s.closeOp.Code != 0 {
		return // once the close is submitted, the backend refuses sends
	}
	q := &out.sendQueue
	if s.layer != nil {
		q = s.seal()
	}
	if q.empty() {
		return
	}
	out.tail = nil // the length of a submitted buffer must not change
	if n := min(len(q.queue)-q.head, runtime.MaxVec); n == 1 {
		out.op.Code, out.op.Buf, out.op.Bufs = runtime.OpSend, q.queue[q.head], nil
	} else {
		out.op.Code, out.op.Buf, out.op.Bufs = runtime.OpSendVec, nil, q.queue[q.head:q.head+n]
	}
	s.loop.rt.Submit(&out.op)
}

// sent takes the completion of a send.
func (s *Stream) sent(op *runtime.Op) {
	out := &s.out
	op.Buf, op.Bufs = nil, nil
	if op.Err != nil {
		if out.err == nil && (!s.closing || !errors.Is(op.Err, runtime.ErrCanceled)) {
			out.err = op.Err
		}
		op.Skip = 0
		s.dropQueued()
		s.afterSend()
		return
	}
	out.bytes -= op.N
	s.touch()
	q := &out.sendQueue
	if s.layer != nil {
		q = &s.layer.sealed
		s.layer.bytes -= op.N
	}
	op.Skip = q.advance(op.N + op.Skip)
	s.afterSend()
}

func (s *Stream) afterSend() {
	out := &s.out
	s.send()
	s.tellSent()
	if out.writers.Len() > 0 && (out.bytes <= s.opts.QueueLimit/2 || out.err != nil) {
		out.writers.wakeAll()
	}
	if s.closing && s.closeOp.Code == 0 && out.idle() {
		s.closeNow()
	}
}

// beginWrite waits until the calling task may add to the queue, and returns the task.
func (s *Stream) beginWrite() (*Task, error) {
	t := s.loop.current()
	if t == nil {
		return nil, ErrOffLoop
	}
	if s.out.deadline.passed(s.loop) {
		return nil, &runtime.OpError{Op: "send", Handle: s.h, Err: os.ErrDeadlineExceeded}
	}
	return t, s.room(t, false)
}

// room waits until t may add to the queue. resumes says that t is in the Write that has
// queued a part: the other writers wait for it.
func (s *Stream) room(t *Task, resumes bool) error {
	out := &s.out
	for {
		if err := s.writeErr(); err != nil {
			return err
		}
		if out.bytes < s.opts.QueueLimit && (resumes || !out.busy) {
			return nil
		}
		if err := s.awaitSent(t); err != nil {
			return err
		}
	}
}

// awaitSent submits what is queued, and waits until a completion leaves at most half of
// QueueLimit queued, sending fails, or another writer is done. It may return early: the
// caller must look again. It fails if t must not wait.
func (s *Stream) awaitSent(t *Task) error {
	if err := s.outOfTime(); err != nil {
		return err
	}
	s.send()
	if s.out.err != nil { // the layer could not seal: maybe no send is in flight that would wake t
		return s.out.err
	}
	if err := t.waitOn(&s.out.writers, noContext); err != nil {
		return &runtime.OpError{Op: "send", Handle: s.h, Err: err}
	}
	return nil
}

// writeErr returns the error that every write fails with from now on, or nil.
func (s *Stream) writeErr() error {
	switch {
	case s.closing:
		return &runtime.OpError{Op: "send", Handle: s.h, Err: runtime.ErrClosed}
	case s.out.shut:
		return &runtime.OpError{Op: "send", Handle: s.h, Err: fmt.Errorf("CloseWrite was called: %w", runtime.ErrClosed)}
	}
	return s.out.err
}

// outOfTime returns an error if a writer must not wait for room because the write
// deadline or the idle timeout has passed.
func (s *Stream) outOfTime() error {
	switch {
	case s.out.deadline.passed(s.loop):
		return &runtime.OpError{Op: "send", Handle: s.h, Err: os.ErrDeadlineExceeded}
	case s.idleErr != nil:
		return &runtime.OpError{Op: "send", Handle: s.h, Err: errors.Unwrap(s.idleErr)}
	}
	return nil
}

// WriteBuf queues bufs, in order and together. It takes them, even when it fails. While
// QueueLimit bytes are queued it waits first. A task of the loop calls it, or a goroutine
// if the stream allows goroutines. An error of sending shows in a later call.
func (s *Stream) WriteBuf(bufs ...*runtime.Buffer) error {
	_, err := s.beginWrite()
	if err == ErrOffLoop {
		return s.writeBufElsewhere(append([]*runtime.Buffer(nil), bufs...))
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

func (s *Stream) writeBufElsewhere(bufs []*runtime.Buffer) error {
	taken := false
	err := s.elsewhere("send", func() error {
		taken = true
		return s.WriteBuf(bufs...)
	})
	if !taken {
		for _, b := range bufs {
			b.Release()
		}
	}
	return err
}

// TryWriteBuf is WriteBuf that never waits and that leaves bufs with the caller when it
// fails. It is called on the loop. If WriteBuf would wait it fails with ErrBusy, or with
// os.ErrDeadlineExceeded if the write deadline or the idle timeout has passed.
func (s *Stream) TryWriteBuf(bufs ...*runtime.Buffer) error {
	if !s.loop.onLoop() {
		return s.offLoop("send")
	}
	if err := s.writeErr(); err != nil {
		return err
	}
	if s.out.bytes >= s.opts.QueueLimit || s.out.busy {
		if err := s.outOfTime(); err != nil {
			return err
		}
		return &runtime.OpError{Op: "send", Handle: s.h, Err: fmt.Errorf("%w: %d bytes are queued", runtime.ErrBusy, s.out.bytes)}
	}
	s.enqueue(bufs...)
	return nil
}

func (s *Stream) enqueue(bufs ...*runtime.Buffer) {
	if len(bufs) == 1 {
		s.loop.owns(bufs[0])
		bufs[0].Friend(key).Claim(runtime.OpSend)
	} else {
		s.claimAll(bufs)
	}
	out := &s.out
	out.tail = nil
	s.markDirty()
	for _, b := range bufs {
		n := b.Friend(key).Len()
		if n == 0 {
			b.Friend(key).Disclaim()
			continue
		}
		out.queue = append(out.queue, b)
		out.bytes += n
	}
}

// claimAll claims bufs. If one cannot be claimed, it releases the others and panics.
func (s *Stream) claimAll(bufs []*runtime.Buffer) {
	n := 0
	defer func() {
		if n == len(bufs) {
			return
		}
		for _, b := range bufs[:n] {
			b.Friend(key).Disclaim()
		}
		for _, b := range bufs[n+1:] {
			b.Release()
		}
	}()
	for ; n < len(bufs); n++ {
		s.loop.owns(bufs[n])
		bufs[n].Friend(key).Claim(runtime.OpSend)
	}
}

var errQueueFull = &runtime.OpError{Op: "send", Err: fmt.Errorf("%w: the queue is full", runtime.ErrBusy)}

// Write copies p into the queue, and waits while the queue is full. A task of the loop
// calls it, or a goroutine if the stream allows goroutines. An error of sending shows in
// a later call.
func (s *Stream) Write(p []byte) (n int, err error) {
	t, err := s.beginWrite()
	if err == ErrOffLoop {
		return fromElsewhere(s, "send", func() (int, error) { return s.Write(p) })
	}
	if err != nil || len(p) == 0 {
		return 0, err
	}
	out := &s.out
	out.busy = true
	for {
		c, err := s.copyIn(p[n:], s.opts.QueueLimit)
		n += c
		if err == nil && n == len(p) {
			break
		}
		switch {
		case err == nil:
			err = s.room(t, true)
		case out.bytes > 0 && errors.Is(err, runtime.ErrNoBuffers):
			// The pool has no memory. Sending what is queued gives some back.
			if err = s.awaitSent(t); err == nil {
				err = s.writeErr()
			}
		}
		if err != nil {
			s.writeDone()
			return n, err
		}
	}
	s.writeDone()
	return n, nil
}

func (s *Stream) writeDone() {
	s.out.busy = false
	if s.out.bytes < s.opts.QueueLimit {
		s.out.writers.wakeAll()
	}
}

// copyIn appends as much of p to the queue as limit allows.
func (s *Stream) copyIn(p []byte, limit int) (n int, err error) {
	out := &s.out
	s.markDirty()
	for n < len(p) && out.bytes < limit {
		if out.tail == nil || out.tail.Friend(key).Room() == 0 {
			size := min(len(p)-n, slab)
			if out.tail != nil {
				size = max(size, 4<<10) // more small writes are likely to follow
			}
			b, err := s.loop.pool.Get(size)
			if err != nil {
				return n, &runtime.OpError{Op: "send", Handle: s.h, Err: err}
			}
			out.queue = append(out.queue, b)
			out.tail = b
		}
		c := out.tail.Append(p[n:])
		n += c
		out.bytes += c
	}
	return n, nil
}

func (s *Stream) tellSent() {
	if tell := s.out.onSent; tell != nil {
		s.loop.contain("OnSent's function", tell)
	}
}

// Queued returns how many bytes the kernel has not taken yet. It is called on the loop
// and does not wait, or by a goroutine if the stream allows goroutines.
func (s *Stream) Queued() int {
	if !s.loop.onLoop() {
		n, _ := fromElsewhere(s, "queued", func() (int, error) { return s.out.bytes, nil }) // 0 if the loop has ended
		return n
	}
	return s.out.bytes
}

// Flush waits until the kernel has taken all that was written, and returns the error of
// sending if it cannot. A task of the loop calls it, or a goroutine if the stream allows
// goroutines.
func (s *Stream) Flush() error {
	t := s.loop.current()
	if t == nil {
		return s.elsewhere("flush", s.Flush)
	}
	out := &s.out
	for {
		switch {
		case s.closing:
			return &runtime.OpError{Op: "flush", Handle: s.h, Err: runtime.ErrClosed}
		case out.err != nil:
			return out.err
		case out.idle():
			return nil
		}
		if err := s.awaitSent(t); err != nil {
			return &runtime.OpError{Op: "flush", Handle: s.h, Err: errors.Unwrap(err)}
		}
	}
}

// CloseWrite sends what is queued, waits until the kernel has taken it, and sends FIN:
// the peer then reads io.EOF. Reads still work. A task of the loop calls it, or a
// goroutine if the stream allows goroutines. With TLS it sends a close_notify alert in
// place of FIN, since TLS may still have to answer what it reads.
func (s *Stream) CloseWrite() error {
	t := s.loop.current()
	if t == nil {
		return s.elsewhere("shutdown", s.CloseWrite)
	}
	if err := s.writeErr(); err != nil {
		return err
	}
	s.out.shut = true
	if s.layer != nil {
		return s.closeWriteLayer()
	}
	if err := s.Flush(); err != nil {
		s.out.shut = false // CloseWrite may be tried again
		return err
	}
	o := s.loop.newOperation(t, runtime.OpShutdown, s.h)
	defer s.loop.freeOperation(o)
	o.Flags = runtime.DirWrite
	return o.do(noContext, runtime.Forever)
}

// Writable returns a Source for WaitAny that is ready when a write would not wait: the
// queue has room, or the write would fail. It may be called from anywhere; tasks of the
// loop use the Source.
func (s *Stream) Writable() Source { return (*writable)(s) }

type writable Stream

func (r *writable) home() *Loop { return r.loop }

func (r *writable) poll(w *waiter) bool {
	s := (*Stream)(r)
	if s.writeErr() != nil || s.out.bytes < s.opts.QueueLimit && !s.out.busy || s.out.deadline.passed(s.loop) || s.idleErr != nil {
		return true
	}
	if w != nil {
		s.out.writers.add(w)
	}
	return false
}

func (r *writable) unpoll(w *waiter) { r.out.writers.remove(w) }
