package loop

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/noria-go/noria/runtime"
)

// A layer lies between a stream's queues and its socket. What arrives passes through it
// on the way into the inbox, and what is queued passes through it when it is sent. TLS is
// a layer. The loop calls the methods inside and outside of tasks, so none may wait. A
// layer writes to the socket with Transmit.
type layer interface {
	// Feed takes b, the next bytes that have arrived.
	Feed(b *runtime.Buffer)

	// FeedEOF says that the peer has ended the connection after those bytes.
	FeedEOF()

	// Open returns the next bytes of the stream, or nil if more must arrive first. It does
	// not take long: several calls may be needed for what was fed. A call after one that
	// failed with ErrNoBuffers tries again and loses nothing.
	Open() (*runtime.Buffer, error)

	// Seal transmits p, the next bytes of the stream, at most sealUnit of them.
	Seal(p []byte) error

	// Goodbye transmits the end of the stream.
	Goodbye() error

	// Drop releases what was fed and not opened.
	Drop()
}

const (
	// sealUnit is how many bytes are given to Seal at most: as many as a TLS record
	// holds.
	sealUnit = 16 << 10

	// sealAtOnce is how many sealed bytes may wait before the stream seals no more: the
	// rest stays unsealed until these are sent.
	sealAtOnce = 128 << 10

	// maxAnswers is how many bytes of answers a layer may transmit on top of a full
	// queue. (TLS answers a key update with some 27 bytes.) A peer that provokes more
	// and takes none is attacking.
	maxAnswers = 16 << 10

	// openTime is how long one turn of the loop opens what has arrived, for all streams
	// together. The rest waits for later turns, in order, and its streams receive nothing
	// more until then. (Decrypting a megabyte of TLS key updates takes 0.1 s.)
	openTime = 10 * time.Millisecond

	// maxSealed is how many sealed bytes there are at most after a Seal, answers aside:
	// sealing a unit adds less than 4 KiB.
	maxSealed = sealAtOnce + sealUnit + 4<<10
)

// layered is a layer and the state that a stream with a layer has in addition.
type layered struct {
	layer

	end     error // how receiving from the socket has ended
	later   bool  // a later turn opens what was fed: see openTime
	starved bool  // the inbox's err is ErrNoBuffers: what was fed waits for memory

	sealed  sendQueue       // what the op sends, in place of the outbox
	bytes   int             // in sealed
	limit   int             // of bytes, for answers: bytes after the last Seal, and maxAnswers
	tail    *runtime.Buffer // the last buffer of sealed, while it may be appended to; or nil
	skip    int             // bytes of the outbox's first buffer that are sealed
	goodbye bool            // Goodbye was called
}

func (ly *layered) dropSealed() {
	ly.sealed.drop()
	ly.bytes, ly.tail, ly.skip = 0, nil, 0
}

// setLayer puts l between the queues and the socket. It feeds to l what is in the inbox;
// what is in the outbox is sent as it is.
func (s *Stream) setLayer(l layer) {
	in, out := &s.in, &s.out
	ly := &layered{layer: l, sealed: out.sendQueue, bytes: out.bytes, limit: out.bytes + maxAnswers}
	out.sendQueue, out.tail = sendQueue{}, nil
	for in.bufs.len() > 0 {
		l.Feed(in.pop())
	}
	if in.err != s.idleErr {
		ly.end, in.err = in.err, s.idleErr
		if ly.end == io.EOF {
			l.FeedEOF()
		}
	}
	s.layer = ly
	s.open()
}

// receivedSealed is received for a stream with a layer.
func (s *Stream) receivedSealed(op *runtime.Op) {
	in, ly := &s.in, s.layer
	switch {
	case op.More:
		in.total += int64(op.N)
		s.touch()
		op.Buf.Friend(key).HandOn()
		ly.Feed(op.Buf)
	case errors.Is(op.Err, runtime.ErrCanceled):
		in.readers.wakeAll()
		return
	default:
		if ly.end = s.ended(op.Err); ly.end == io.EOF {
			ly.FeedEOF()
		}
	}
	switch {
	case ly.later:
	case s.loop.opening < openTime:
		s.open()
	default:
		s.leaveToLater()
	}
}

// leaveToLater has what is here opened in a later turn.
func (s *Stream) leaveToLater() {
	s.layer.later = true
	s.in.wanted++
	s.stopReceiving()
	s.loop.nextTurn.push(s.openLater)
}

// openLater opens what an earlier turn had no time for.
func (s *Stream) openLater() {
	switch {
	case s.closing:
	case s.loop.opening >= openTime:
		s.loop.nextTurn.push(s.openLater)
	default:
		s.layer.later = false
		s.in.wanted--
		s.open()
		s.arm()
	}
}

// open moves what the layer can open into the inbox.
func (s *Stream) open() {
	in, ly := &s.in, s.layer
	had := in.bufs.len()
	if ly.starved {
		ly.starved, in.err = false, s.idleErr
	}
	var err error
	// A panic is possible: crypto/tls calls the user's session cache.
	if failed := s.loop.contain("the stream's layer", func() { err = s.openAll() }); failed != nil {
		err = &runtime.OpError{Op: "recv", Handle: s.h, Err: failed}
	}
	if err == nil && ly.end != io.EOF && !ly.later {
		err = ly.end
	}
	if err != nil && in.err == nil {
		in.err, ly.starved = err, errors.Is(err, runtime.ErrNoBuffers)
	}
	switch {
	case in.err != nil:
		in.readers.wakeAll()
	case in.bufs.len() > had:
		in.readers.wakeOne()
	}
	if in.err != nil || in.reaches(s.opts.InboxLimit) {
		s.stopReceiving()
	}
}

func (s *Stream) stopReceiving() {
	if in := &s.in; in.op.InFlight() && !in.stopping {
		in.stopping = true
		s.loop.rt.Cancel(&in.op)
	}
}

// openAll opens all that is here, as far as the turn has time.
func (s *Stream) openAll() error {
	l := s.loop
	for begun := l.rt.Now(); ; {
		b, err := s.layer.Open()
		now := l.rt.Now()
		l.opening += time.Duration(now - begun)
		begun = now
		if b == nil {
			return err
		}
		s.in.bufs.push(b)
		s.in.bytes += b.Friend(key).Len()
		if l.opening >= openTime && !s.layer.later {
			s.leaveToLater()
			return nil
		}
	}
}

// reopen tries again to open what there was no memory for. It reports whether a read
// would now find bytes or another error.
func (s *Stream) reopen() bool {
	if s.layer == nil || !s.layer.starved {
		return false
	}
	s.open()
	return !s.layer.starved || s.in.bufs.len() > 0
}

// seal seals what is in the outbox, up to sealAtOnce bytes, and returns the queue to
// send.
func (s *Stream) seal() *sendQueue {
	out, ly := &s.out, s.layer
	for !out.empty() && ly.bytes < sealAtOnce && out.err == nil {
		out.tail = nil
		p := s.nextUnit()
		ly.limit = maxSealed + maxAnswers
		err := s.sealing(func() error { return ly.Seal(p) })
		ly.limit = ly.bytes + maxAnswers
		if err != nil {
			s.sealFailed(err)
			break
		}
		out.bytes -= len(p)
		ly.skip = out.advance(ly.skip + len(p))
	}
	if out.empty() && (out.shut || s.closing) && !ly.goodbye && out.err == nil {
		ly.goodbye = true
		if err := s.sealing(ly.Goodbye); err != nil && !s.closing {
			s.sealFailed(err)
		}
	}
	ly.tail = nil
	return &ly.sealed
}

// sealing calls f, which seals, and returns a panic of it as an error: crypto/tls calls
// the user's Config.Rand.
func (s *Stream) sealing(f func() error) (err error) {
	if failed := s.loop.contain("the stream's layer", func() { err = f() }); failed != nil {
		err = failed
	}
	return err
}

// nextUnit returns the outbox's next bytes, at most sealUnit: a part of a buffer, or a
// copy of several short buffers.
func (s *Stream) nextUnit() []byte {
	out, skip := &s.out, s.layer.skip
	first := out.queue[out.head].Friend(key).Bytes()[skip:]
	if len(first) >= sealUnit || out.head+1 == len(out.queue) {
		return first[:min(len(first), sealUnit)]
	}
	if s.loop.unit == nil {
		s.loop.unit = make([]byte, sealUnit)
	}
	n := 0
	for _, b := range out.queue[out.head:] {
		n += copy(s.loop.unit[n:], b.Friend(key).Bytes()[skip:])
		skip = 0
		if n == sealUnit {
			break
		}
	}
	return s.loop.unit[:n]
}

// sealFailed ends sending with err. What is sealed already is still sent: it may be the
// alert that tells the peer why.
func (s *Stream) sealFailed(err error) {
	out := &s.out
	out.err = opErr("send", s.h, err)
	out.drop()
	out.bytes, out.tail, s.layer.skip = s.layer.bytes, nil, 0
	out.writers.wakeAll()
}

// transmit queues a copy of p beneath the layer. It never waits.
func (s *Stream) transmit(p []byte) error {
	out, ly := &s.out, s.layer
	if out.err != nil {
		return out.err
	}
	if ly.bytes+len(p) > ly.limit && out.bytes+len(p) > s.opts.QueueLimit+maxAnswers {
		s.opts.Linger = -1 // Close must not wait for this peer
		s.sealFailed(fmt.Errorf("%w: the peer provokes more answers than it takes: %d bytes wait", runtime.ErrBusy, ly.bytes))
		return out.err
	}
	s.markDirty()
	unsealed := out.bytes - ly.bytes // p seals a part of it, and the rest is likely to follow
	out.bytes += len(p)
	ly.bytes += len(p)
	if ly.tail != nil {
		p = p[ly.tail.Append(p):]
	}
	if len(p) == 0 {
		return nil
	}
	b, err := s.loop.pool.Get(max(len(p), min(unsealed+unsealed/16+32, slab)))
	if err != nil { // then in Go's memory: what was accepted must be sent
		b, ly.tail = runtime.NewShared(append([]byte(nil), p...)), nil
	} else {
		b.Append(p)
		ly.tail = b
	}
	ly.sealed.queue = append(ly.sealed.queue, b)
	return nil
}

// closeWriteLayer is the rest of CloseWrite for a stream with a layer: it sends the
// layer's goodbye and leaves the socket open in both directions.
func (s *Stream) closeWriteLayer() error {
	s.send()
	err := s.Flush()
	if err != nil && !s.layer.goodbye {
		s.out.shut = false // CloseWrite may be tried again
	}
	return err
}
