// Package compat brings synchronous protocol libraries, which want Read(p) and
// Write(p), onto a completion runtime, which wants to own the buffers.
//
// There are three ways, and docs/porting.md says when to use which:
//
//   - In a task nothing is needed: a loop.Stream is a blocking net.Conn.
//   - From ordinary goroutines, Conn and Listener are a net.Conn and a
//     net.Listener over a loop.
//   - SyncStream and GrowableSyncStream are an io.Reader and io.Writer that
//     never wait. They serve from a buffer or answer ErrWouldBlock, and
//     FillReadBuf and FlushWriteBuf move the data between the buffers and the
//     stream. A parser that ran out of bytes half-way is rolled back to its
//     checkpoint and called again; Run does all of that.
//
// # The sync streams
//
// SyncStream has fixed buffers. GrowableSyncStream starts small, doubles as
// bytes arrive, up to a hard maximum, and gives its memory back to the loop's
// pool once it is drained: an idle one holds none. Neither ever holds more than
// twice what has arrived plus one step (which the pool may round up to a power
// of two), whatever a peer announces.
//
// Both can be used from a task, where filling and flushing suspend it, and
// from callbacks on the loop (FillReadBufThen, FlushWriteBufThen). They belong
// to their stream's loop, also where the stream itself may be used from
// goroutines (Conn, or a handler that runs on one): there they fail, and there
// is no need for them, since the stream waits. The reading and the writing half
// share nothing: Split gives them to two tasks.
package compat

import (
	"errors"
	"fmt"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

var (
	// ErrWouldBlock: the buffer is empty (Read) or full (Write). Fill or flush,
	// and go back.
	ErrWouldBlock = errors.New("operation would block: fill or flush the stream's buffer and try again")

	// ErrTooLarge: what has to be buffered is more than the maximum.
	ErrTooLarge = errors.New("the buffer's maximum is reached")

	// ErrNotReplayable: a function that was called again after its output had
	// been sent in part did not write the same bytes again.
	ErrNotReplayable = errors.New("the function wrote something else when it was called again: it cannot be rolled back; run it in a task")
)

// offLoopError is loop.ErrOffLoop for a sync stream, with other advice: a
// handler that runs on a goroutine is where this happens, and no way out.
type offLoopError struct{}

func (offLoopError) Error() string {
	return "a sync stream was used from outside its loop: it is for the loop's tasks and callbacks; on a goroutine, use the stream itself, which waits"
}

func (offLoopError) Is(target error) bool { return target == loop.ErrOffLoop }

// checkLoop returns why a sync stream over s cannot be used here, if it cannot.
func checkLoop(s *loop.Stream, op string) error {
	if s.Loop().Friend(friend.Key{}).OnLoop() {
		return nil
	}
	return &runtime.OpError{Op: op, Err: offLoopError{}}
}

// getBuf takes a buffer from the pool of s's loop, which is the loop's alone.
func getBuf(s *loop.Stream, size int) (*runtime.Buffer, error) {
	if err := checkLoop(s, "get buffer"); err != nil {
		return nil, err
	}
	return s.Loop().Pool().Get(size)
}

func closedErr(op string) error { return &runtime.OpError{Op: op, Err: runtime.ErrClosed} }

const (
	// DefaultSize is a SyncStream's buffers, and what a GrowableSyncStream
	// starts with, in bytes.
	DefaultSize = 8 << 10

	// DefaultMax is how far a GrowableSyncStream grows, in bytes.
	DefaultMax = 64 << 20

	// minSize and maxSize bound every size that can be asked for.
	minSize = 16
	maxSize = 1 << 30
)

// Growth says how a GrowableSyncStream's buffer grows when it is full.
type Growth uint8

const (
	// Doubling adds as much as there is: a few dozen steps for any size.
	Doubling Growth = iota
	// Linear adds Step bytes. It is here to be compared with: for a message of n
	// steps it takes n buffers, and n receives.
	Linear
)

// Options are the sizes of a sync stream, in bytes. The zero value is good.
type Options struct {
	// Size is that of each of the two buffers: all of it for a SyncStream, the
	// first for a GrowableSyncStream. 0 means DefaultSize.
	Size int

	// Max is how far a GrowableSyncStream grows; 0 means DefaultMax.
	Max int

	// Growth is how, and Step by how much if that is linear; 0 means Size.
	Growth Growth
	Step   int

	// Exact says that the reader never asks for more than it needs: it uses
	// io.ReadFull and the like, and no bufio. Then filling waits until all is
	// there that it asked for, and it is gone back to once, not once for each
	// segment. With a reader that asks for more than will come, that would wait
	// for ever.
	Exact bool
}

func (o Options) check(growable bool) (Options, error) {
	if o.Size == 0 {
		o.Size = DefaultSize
	}
	if o.Max == 0 {
		o.Max = max(DefaultMax, o.Size)
	}
	if !growable {
		o.Max = o.Size
	}
	if o.Step == 0 {
		o.Step = o.Size
	}
	switch {
	case o.Size < minSize || o.Size > maxSize:
		return o, fmt.Errorf("compat: a size of %d bytes, want %d to %d", o.Size, minSize, maxSize)
	case o.Max < o.Size || o.Max > maxSize:
		return o, fmt.Errorf("compat: a maximum of %d bytes, want %d (the size) to %d", o.Max, o.Size, maxSize)
	case o.Step < minSize || o.Step > maxSize:
		return o, fmt.Errorf("compat: a step of %d bytes, want %d to %d", o.Step, minSize, maxSize)
	case o.Growth > Linear:
		return o, fmt.Errorf("compat: unknown growth %d", o.Growth)
	}
	return o, nil
}

// Counts are what a sync stream did since it was made.
type Counts struct {
	WouldBlock  int64 // times that the library was told ErrWouldBlock
	Fills       int64 // calls of FillReadBuf
	Flushes     int64 // calls of FlushWriteBuf that had something to flush
	Rollbacks   int64
	BytesRead   int64 // handed to the library, a second time too
	BytesCopied int64 // from one piece of memory to another, all of them
	PeakBuffer  int   // the most that was held of what had been received
}
