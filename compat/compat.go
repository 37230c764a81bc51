// Package compat lets code that was written for package net run on a completion
// runtime. Such code passes its own memory to Read(p) and Write(p); a completion
// runtime owns the buffers, and its thread must not block.
//
// A task needs nothing from this package: its loop.Stream is a blocking net.Conn. The
// package is for the other cases, and docs/porting.md says when to use which:
//
//   - Goroutines use Conn and Listener, a net.Conn and a net.Listener over a loop. A task
//     of the loop carries out each call. TakeOver moves an existing connection of package
//     net to a loop.
//   - Parsers that must not be suspended use SyncStream and GrowableSyncStream: an
//     io.Reader and io.Writer whose Read and Write never wait.
//
// # How the sync streams work
//
// A sync stream has a read buffer and a write buffer between the parser and a loop.Stream.
// Read takes bytes from the read buffer, Write puts bytes into the write buffer, and both
// return ErrWouldBlock when they cannot. Outside the parser, the task that called the
// parser moves the bytes: FillReadBuf waits for bytes to read, FlushWriteBuf queues what
// the parser wrote, and both may suspend the task. If a parser runs out of bytes half-way,
// the task rolls the stream back to a checkpoint, fills the read buffer and calls the
// parser again, which then reads the same bytes again and more. Run does all of that.
//
// SyncStream has buffers of a fixed size. The buffers of a GrowableSyncStream start small,
// double as bytes arrive, up to a hard maximum, and go back to the loop's pool once the
// parser has read the bytes: an idle stream holds no memory. A stream that waits for more
// holds at most twice what has arrived plus Options.Size, rounded up to a size of the
// pool, whatever length the peer announces.
//
// Only tasks of the loop may use a sync stream, even if the loop.Stream beneath it allows
// goroutines. A goroutine needs none: its calls on the loop.Stream wait. The reading and
// the writing half share nothing, so that Split can give them to two tasks.
package compat

import (
	"errors"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

var key friend.Key // opens what only this module may call: see internal/friend

var (
	// ErrWouldBlock is what Read returns when its buffer is empty, and Write when its
	// buffer is full. Fill or flush it, and try again.
	ErrWouldBlock = errors.New("operation would block: fill or flush the stream's buffer and try again")

	// ErrTooLarge means that more would have to be buffered at once than the maximum
	// allows.
	ErrTooLarge = errors.New("the buffer's maximum is reached")

	// ErrNotReplayable means that a function was called again after part of its output
	// had been sent, and that the function did not write the same bytes again.
	ErrNotReplayable = errors.New("the function wrote something else when it was called again: it cannot be rolled back; run it in a task")
)

// An offLoopError is loop.ErrOffLoop with other advice. It occurs in handlers that run
// on a goroutine, where AllowGoroutines does not help.
type offLoopError struct{}

func (offLoopError) Error() string {
	return "a sync stream was used from outside its loop: only the loop's tasks may use it; on a goroutine, use the stream itself, which waits"
}

func (offLoopError) Is(target error) bool { return target == loop.ErrOffLoop }

// checkLoop fails off the loop of s.
func checkLoop(s *loop.Stream, op string) error {
	if s.Loop().Friend(key).OnLoop() {
		return nil
	}
	return &runtime.OpError{Op: op, Err: offLoopError{}}
}

// getBuf takes a buffer from the pool of s's loop. It fails off the loop, because the
// pool has no lock.
func getBuf(s *loop.Stream, size int) (*runtime.Buffer, error) {
	if err := checkLoop(s, "get buffer"); err != nil {
		return nil, err
	}
	return s.Loop().Pool().Get(size)
}

func closedErr(op string) error { return &runtime.OpError{Op: op, Err: runtime.ErrClosed} }
