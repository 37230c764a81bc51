// Package epoll is the backend for kernels and containers without io_uring:
// the same behaviour, from readiness.
//
// How it works. An operation stands in the queue of its direction (receiving or
// sending) of its handle. Submit only puts it there. Poll tries what can be
// tried: the system call first, and only when that says EAGAIN is the
// descriptor registered with epoll, once, edge-triggered, for both directions.
// From then on a direction is tried again when an event says that it is ready.
// Each handle gets one try in turn, so a busy one does not starve the others.
//
// A receive-many takes one of a few hot buffers (package hot) for the moment of
// the system call, so that an idle connection holds none; when there is none it
// waits in line for one.
//
// Regular files are always "ready" and block all the same, so files are given
// to a small bounded set of goroutines, behind a queue on which nobody waits.
//
// Events carry slot and generation of a handle: one that comes late finds
// nothing.
package epoll

// Defaults and limits of Options.
const (
	DefaultWorkers = 4
	DefaultBudget  = 256
)

// FeaturePwait2 is the name of the one optional feature: epoll_pwait2, which
// waits with a resolution of nanoseconds. Without it waits are rounded up to
// milliseconds.
const FeaturePwait2 = "epoll-pwait2"

// Options are the options of a Runtime. The zero value is good.
type Options struct {
	// Buffers receive buffers of BufferSize bytes each are what all connections
	// receive into; 0 means 256 of 32 KiB, and fewer in a small pool.
	Buffers    int
	BufferSize int

	// Workers is how many goroutines do what is done to files; 0 means
	// DefaultWorkers.
	Workers int

	// Budget is how many completions one Poll delivers at most; 0 means
	// DefaultBudget.
	Budget int

	// Off names features that are not to be used.
	Off []string
}
