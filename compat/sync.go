package compat

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// A SyncStream is a stream for libraries that want io.Reader and io.Writer and
// must not wait: with two buffers of fixed size. Read and Write serve the
// buffers or return ErrWouldBlock; FillReadBuf and FlushWriteBuf, called from a
// task, move the data.
//
// What has to be buffered at once (what lies between a checkpoint and its
// commit) must fit: a message of 16 MB through 8 KiB is 2,048 round trips, and
// a header of 9 KiB does not fit at all. See GrowableSyncStream.
//
// All of it belongs to the stream's loop; only Close and Take may be called from
// any goroutine. One task may use the reading half while another uses the
// writing half, and a third one may call Close.
type SyncStream struct {
	s      *loop.Stream
	r      ReadHalf
	w      WriteHalf
	counts Counts
}

// A GrowableSyncStream is a SyncStream whose buffers grow with what arrives
// and what is written, up to Options.Max, and go back to the loop's pool when
// they are drained.
type GrowableSyncStream struct{ SyncStream }

// NewSyncStream returns a SyncStream over s, which it owns from now on.
func NewSyncStream(s *loop.Stream, opts Options) (*SyncStream, error) {
	opts, err := opts.check(false)
	if err != nil {
		return nil, err
	}
	ss := &SyncStream{}
	ss.init(s, opts, true)
	return ss, nil
}

// NewGrowableSyncStream returns a GrowableSyncStream over s, which it owns
// from now on.
func NewGrowableSyncStream(s *loop.Stream, opts Options) (*GrowableSyncStream, error) {
	opts, err := opts.check(true)
	if err != nil {
		return nil, err
	}
	gs := &GrowableSyncStream{}
	gs.init(s, opts, false)
	return gs, nil
}

func (ss *SyncStream) init(s *loop.Stream, opts Options, fixed bool) {
	ss.s = s
	ss.r = ReadHalf{src: s, opts: opts, fixed: fixed, counts: &ss.counts}
	ss.w = WriteHalf{dst: s, opts: opts, counts: &ss.counts}
}

// Read is ReadHalf.Read.
func (ss *SyncStream) Read(p []byte) (int, error) { return ss.r.Read(p) }

// Want is ReadHalf.Want.
func (ss *SyncStream) Want(n int) error { return ss.r.Want(n) }

// Write is WriteHalf.Write.
func (ss *SyncStream) Write(p []byte) (int, error) { return ss.w.Write(p) }

// FillReadBuf is ReadHalf.FillReadBuf.
func (ss *SyncStream) FillReadBuf() (int, error) { return ss.r.FillReadBuf() }

// FlushWriteBuf is WriteHalf.FlushWriteBuf.
func (ss *SyncStream) FlushWriteBuf() (int, error) { return ss.w.FlushWriteBuf() }

// FillReadBufThen is ReadHalf.FillReadBufThen.
func (ss *SyncStream) FillReadBufThen(done func(n int, err error)) { ss.r.FillReadBufThen(done) }

// FlushWriteBufThen is WriteHalf.FlushWriteBufThen.
func (ss *SyncStream) FlushWriteBufThen(done func(n int, err error)) { ss.w.FlushWriteBufThen(done) }

// Buffered returns how many bytes can be read without filling.
func (ss *SyncStream) Buffered() int { return ss.r.Buffered() }

// EOF reports whether the peer has ended its side and all was read.
func (ss *SyncStream) EOF() bool { return ss.r.EOF() }

// Pending returns how many bytes wait to be flushed.
func (ss *SyncStream) Pending() int { return ss.w.Pending() }

// Checkpoint marks where Rollback goes back to, in both directions.
func (ss *SyncStream) Checkpoint() {
	ss.r.Checkpoint()
	ss.w.Checkpoint()
}

// Commit ends the checkpoint: what was read is gone, what was written stays.
func (ss *SyncStream) Commit() {
	ss.r.Commit()
	ss.w.Commit()
}

// Rollback goes back to the checkpoint: see ReadHalf.Rollback and
// WriteHalf.Rollback.
func (ss *SyncStream) Rollback() {
	ss.r.Rollback()
	ss.w.Rollback()
}

// Counts returns what the stream did so far.
func (ss *SyncStream) Counts() Counts { return ss.counts }

// Split returns the two halves, for a reading and a writing task.
func (ss *SyncStream) Split() (*ReadHalf, *WriteHalf) { return &ss.r, &ss.w }

// Stream returns the stream beneath, which stays the SyncStream's own: it is
// for options, deadlines and addresses.
func (ss *SyncStream) Stream() *loop.Stream { return ss.s }

// Take gives the stream back to the caller. What was buffered and not read (or
// read since a checkpoint that was not committed) is put back into it, and what
// was not flushed is queued, without waiting for room; the error says what could
// not be. The SyncStream must not be used any more.
//
// While another task, or FillReadBufThen, fills, the order of the bytes cannot
// be kept: Take fails with runtime.ErrBusy then, returns no stream, and has
// changed nothing. End the filling first, or Close.
func (ss *SyncStream) Take() (s *loop.Stream, err error) {
	err = ss.onLoop("take", func() error {
		if ss.r.filling {
			return &runtime.OpError{Op: "take", Err: fmt.Errorf("%w: the read buffer is being filled", runtime.ErrBusy)}
		}
		s = ss.s
		err := ss.w.finish()
		ss.r.take()
		return err
	})
	return s, err
}

// Close queues what was written, without waiting for room, and closes the
// stream, which sends what is queued for as long as StreamOptions.Linger. The
// error says what was lost. Tasks that fill or flush come back with ErrClosed.
// From a callback it only begins to close, as loop.Stream.Close does.
func (ss *SyncStream) Close() error {
	return ss.onLoop("close", func() error {
		err := ss.w.finish()
		ss.r.close()
		return errors.Join(err, ss.s.Close())
	})
}

// onLoop has f called here, or by a task if this is outside the loop: whoever
// made a sync stream can get rid of it anywhere. The task is nobody's child, so
// that it is not killed before it starts.
func (ss *SyncStream) onLoop(op string, f func() error) error {
	lp := ss.s.Loop()
	if lp.Friend(friend.Key{}).OnLoop() {
		return f()
	}
	return lp.Friend(friend.Key{}).Call(context.Background(), op, func(context.Context) error { return f() })
}

// Sync is what Run needs: a *SyncStream or a *GrowableSyncStream.
type Sync interface {
	io.ReadWriter
	sync() *SyncStream
}

func (ss *SyncStream) sync() *SyncStream { return ss }

// Run calls fn, which reads and writes rw as if it were a blocking connection,
// and calls it again whenever it could not be served: it rolls fn's reads back,
// fills the buffer, flushes what fn wrote, and goes back. When fn succeeds, what
// it read is consumed and what it wrote is sent. Its error, if it is not about
// having to wait, is Run's, and what it wrote is sent all the same: that may be
// the answer that says why.
//
// fn is called several times for one success, so it must have no effects other
// than on rw and its own results, and must write the same bytes each time:
// others, or fewer, are ErrNotReplayable. It must return the errors of rw, or
// flush: if it succeeds although a Write of it was refused, that is an
// io.ErrShortWrite, and the peer has got what was taken. What it reads in one
// call is buffered: at most Options.Max bytes. Whatever breaks one of these rules
// runs in a task, over the stream itself.
//
// A deadline that passes, or a kill, while Run waits loses nothing: called again
// with the same fn, Run goes on, and sends nothing twice. Whoever wants to write
// something else calls Commit first; the peer has got what was sent by then. When
// fn has succeeded and only what it wrote could not be handed over in time, the
// error says so: FlushWriteBuf is what is left to do.
//
// Run is called from a task, which it suspends.
func Run(s Sync, fn func(rw io.ReadWriter) error) error {
	ss := s.sync()
	if err := checkLoop(ss.s, "run"); err != nil {
		return err
	}
	ss.r.Checkpoint()
	if !ss.w.cut {
		ss.w.Checkpoint()
	}
	ss.w.cut = false
	defer func() {
		ss.r.Commit()
		if !ss.w.cut {
			ss.w.Commit()
		}
	}()
	for {
		ss.r.block, ss.w.refused = false, nil
		err := fn(s)
		if err == nil || !ss.r.block && !ss.w.blocked() {
			return ss.w.conclude(err)
		}
		if err := ss.serve(); err != nil {
			ss.w.cut = passing(err) && len(ss.w.log) > 0
			return err
		}
	}
}

// serve rolls back what a function has done that could not be served, and waits
// until it can be: whatever the function made of ErrWouldBlock.
func (ss *SyncStream) serve() error {
	// One that was refused a write has perhaps not asked yet for what it waits for.
	toRead := ss.r.block && !ss.w.blocked()
	ss.r.Rollback()
	_, err := ss.w.FlushWriteBuf()
	ss.w.Rollback()
	if err != nil || !toRead {
		return err
	}
	_, err = ss.r.FillReadBuf()
	if err == io.EOF && ss.r.Buffered() > 0 {
		err = io.ErrUnexpectedEOF // in the middle of what it wanted
	}
	return err
}

// RunHead waits until a head that ends with end is complete (an HTTP request's
// ends with an empty line), and at most limit bytes long, and then calls fn
// once, with a reader that has exactly the head. It is for functions with side
// effects, such as an upgrade with the user's hooks. The head is consumed then,
// whether fn has read it or not; what follows it stays buffered. What fn writes
// is flushed, also when it fails. It is called from a task, which it suspends.
func RunHead(s Sync, end string, limit int, fn func(rw io.ReadWriter) error) error {
	ss := s.sync()
	if err := checkLoop(ss.s, "run"); err != nil {
		return err
	}
	n, err := ss.r.waitHead(end, limit)
	if err != nil {
		return err
	}
	head := &io.LimitedReader{R: &ss.r, N: int64(n)}
	ss.w.refused = nil
	err = fn(&headConn{Reader: head, Writer: &flushingWriter{&ss.w}})
	if derr := ss.r.Discard(int(head.N)); err == nil { // what fn did not read of it
		err = derr
	}
	return ss.w.conclude(err)
}
