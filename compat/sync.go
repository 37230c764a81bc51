package compat

import (
	"context"
	"errors"
	"fmt"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

const (
	defaultSize = 8 << 10
	defaultMax  = 64 << 20

	// minSize and maxSize bound Options.Size and Options.Max.
	minSize = 16
	maxSize = 1 << 30
)

// Options are the sizes of a sync stream, in bytes. The zero value is good.
type Options struct {
	// Size is the size of each of the two buffers of a SyncStream, and the first size
	// of each buffer of a GrowableSyncStream. 0 means 8 KiB.
	Size int

	// Max is how far a GrowableSyncStream grows. 0 means 64 MiB, or Size if that is
	// larger. A SyncStream ignores it.
	Max int

	// Exact says that the parser never asks for more than it needs: it uses io.ReadFull
	// and the like, and no bufio. Then FillReadBuf waits until all the bytes have
	// arrived that the parser asked for, and the parser is called again once, not once
	// for each segment. A parser that asks for more than the peer sends would wait for
	// ever.
	Exact bool
}

func (o Options) check(growable bool) (Options, error) {
	if o.Size == 0 {
		o.Size = defaultSize
	}
	if o.Max == 0 {
		o.Max = max(defaultMax, o.Size)
	}
	if !growable {
		o.Max = o.Size
	}
	switch {
	case o.Size < minSize || o.Size > maxSize:
		return o, fmt.Errorf("compat: a size of %d bytes, want %d to %d", o.Size, minSize, maxSize)
	case o.Max < o.Size || o.Max > maxSize:
		return o, fmt.Errorf("compat: a maximum of %d bytes, want %d (the size) to %d", o.Max, o.Size, maxSize)
	}
	return o, nil
}

// A SyncStream is an io.Reader and io.Writer that never waits, over a loop.Stream, with
// two buffers of fixed size. Read and Write use the buffers or return ErrWouldBlock;
// FillReadBuf and FlushWriteBuf, called from a task, move the bytes.
//
// What must be buffered at once (all that a function reads that Run may have to call
// again) must fit into the buffer. So 8 KiB cannot hold a header of 9 KiB, and a message
// of 16 MiB needs 2,048 fills. See GrowableSyncStream.
//
// The tasks of the stream's loop may use it; Close and Take may be called from anywhere.
// One task may use the reading half while another uses the writing half and a third
// calls Close.
type SyncStream struct {
	s      *loop.Stream
	r      ReadHalf
	w      WriteHalf
	counts counts
}

// A GrowableSyncStream is a SyncStream whose buffers grow with what arrives and with
// what is written, up to Options.Max, and return to the loop's pool when they are
// drained.
type GrowableSyncStream struct{ SyncStream }

// NewSyncStream returns a SyncStream over s, and owns s from now on.
func NewSyncStream(s *loop.Stream, opts Options) (*SyncStream, error) {
	opts, err := opts.check(false)
	if err != nil {
		return nil, err
	}
	ss := &SyncStream{}
	ss.init(s, opts, true)
	return ss, nil
}

// NewGrowableSyncStream returns a GrowableSyncStream over s, and owns s from now on.
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

// Read is ReadHalf.Read. It never waits.
func (ss *SyncStream) Read(p []byte) (int, error) { return ss.r.Read(p) }

// Want is ReadHalf.Want. It never waits.
func (ss *SyncStream) Want(n int) error { return ss.r.Want(n) }

// FillReadBuf is ReadHalf.FillReadBuf. It is called from a task, and suspends it.
func (ss *SyncStream) FillReadBuf() (int, error) { return ss.r.FillReadBuf() }

// Write is WriteHalf.Write. It never waits.
func (ss *SyncStream) Write(p []byte) (int, error) { return ss.w.Write(p) }

// FlushWriteBuf is WriteHalf.FlushWriteBuf. It is called from a task, and suspends it.
func (ss *SyncStream) FlushWriteBuf() (int, error) { return ss.w.FlushWriteBuf() }

// Split returns the two halves, for two tasks, and for code that looks at what is buffered
// or sets its own checkpoints.
func (ss *SyncStream) Split() (*ReadHalf, *WriteHalf) { return &ss.r, &ss.w }

// Stream returns the stream below, which the SyncStream still owns. It is for deadlines
// and addresses.
func (ss *SyncStream) Stream() *loop.Stream { return ss.s }

// Take returns the stream to the caller; the SyncStream must not be used any more. It
// may be called from anywhere. Bytes that were received and not read, or read since a
// checkpoint that was not committed, go back into the stream. Bytes that were not
// flushed are queued, without waiting for room; the error says what could not be
// queued.
//
// While a task fills the buffer, Take could not keep the bytes in order. It then fails
// with runtime.ErrBusy, returns no stream, and has changed nothing. End that task
// first, or call Close.
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

// Close queues what was written, without waiting for room, and closes the stream, which
// sends what is queued for as long as StreamOptions.Linger. It may be called from
// anywhere, and waits until the stream has ended; in a function that the loop calls it
// only begins to close, as loop.Stream.Close does. The error says what was lost. A task
// that is filling or flushing gets ErrClosed.
func (ss *SyncStream) Close() error {
	return ss.onLoop("close", func() error {
		err := ss.w.finish()
		ss.r.close()
		return errors.Join(err, ss.s.Close())
	})
}

// onLoop calls f on the loop. A goroutine has a new task call it. The task has no
// parent, so that nothing kills it before it starts.
func (ss *SyncStream) onLoop(op string, f func() error) error {
	lp := ss.s.Loop()
	if lp.Friend(key).OnLoop() {
		return f()
	}
	return lp.Friend(key).Call(context.Background(), op, func(context.Context) error { return f() })
}
