// Package compat lets code that was written for package net run on a completion
// runtime. Such code passes its own memory to Read(p) and Write(p); a completion
// runtime owns the buffers, and its thread must not block.
//
// A task needs nothing from this package: its loop.Stream is a blocking net.Conn. The
// package is for the other cases, and docs/porting.md says when to use which:
//
//   - Goroutines use Conn and Listener, a net.Conn and a net.Listener over a loop. Each
//     call is carried out by a task of the loop. TakeOver goes the other way: it moves
//     a connection of package net to a loop.
//   - Parsers that must not be suspended use SyncStream and GrowableSyncStream: an
//     io.Reader and io.Writer whose Read and Write never wait.
//
// # How the sync streams work
//
// A sync stream has two buffers between the parser and a loop.Stream. Read takes bytes
// from one, Write puts bytes into the other, and both return ErrWouldBlock when they
// cannot. Outside the parser, the task that called it moves the bytes: FillReadBuf
// waits for bytes to read, FlushWriteBuf queues what was written, and both suspend the
// task. A parser that ran out of bytes half-way is rolled back to a checkpoint and
// called again, with the bytes it has read before it; Run does all of that.
//
// SyncStream has buffers of a fixed size. GrowableSyncStream starts small, doubles as
// bytes arrive, up to a hard maximum, and returns its memory to the loop's pool once
// the bytes have been read: when idle it holds none. While it waits, it holds at most
// twice what has arrived plus Options.Size, rounded up to a size of the pool, whatever
// length the peer announces.
//
// A sync stream is for the tasks of its stream's loop, also where goroutines may use
// the stream itself: they use it directly, because it waits for them. The reading and
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
	// had been sent, and that it did not write the same bytes again.
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
