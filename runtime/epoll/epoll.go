// Package epoll is the backend for kernels and containers without io_uring. It
// implements runtime.Runtime on readiness.
//
// Each handle has a queue of operations for each direction, receiving and sending.
// Submit enqueues an operation; a send that is first in its queue is tried at once.
// Poll tries the first operation of each queue that may be ready, by making the
// system call. If the call finds nothing, or less than it could have, Poll
// registers the descriptor with epoll, once, edge-triggered and for both
// directions. From then on the direction is tried again when an event reports it
// ready. Handles are tried in turn, one try each, so a busy one does not starve the
// others.
//
// A receive-many borrows one of a few hot buffers (package hot) for the system
// call, so an idle connection holds none. If no buffer is free, the receive waits
// for one in order.
//
// epoll cannot wait for regular files: they are always ready, and reading them may
// block. So a small, bounded set of goroutines makes the calls on files. The loop
// never waits for them.
//
// An event carries the slot and generation of its handle, so a late event of a
// closed handle is ignored.
package epoll

// Defaults and limits of Options.
const (
	DefaultWorkers = 4
	DefaultBudget  = 256
)

// FeaturePwait2 is the name of the only optional feature: epoll_pwait2, whose
// timeout has a resolution of nanoseconds. Without it timeouts are rounded up to
// milliseconds.
const FeaturePwait2 = "epoll-pwait2"

// Options are the options of a Runtime. The zero value is valid.
type Options struct {
	// Buffers and BufferSize are the number and size in bytes of the receive
	// buffers, which all connections share. 0 means 256 of 32 KiB, and fewer in a
	// small pool.
	Buffers    int
	BufferSize int

	// Workers is the largest number of goroutines for operations on files; 0 means
	// DefaultWorkers.
	Workers int

	// Budget is the largest number of completions that one Poll delivers; 0 means
	// DefaultBudget.
	Budget int

	// Off names features to switch off.
	Off []string
}
