// Package uring is the io_uring backend: a runtime.Runtime on Linux's
// completion queue, through github.com/godzie44/go-uring.
//
// # How it works
//
// Submit puts an operation into a table slot (a flight) and fills a submission
// entry whose user_data is that slot and its generation, never a pointer. No
// system call is made then. Poll makes one io_uring_enter, which hands over
// everything that was queued and runs the kernel's deferred work for this ring;
// only if nothing came of it, a second one waits: for a completion, a Wake, or
// the deadline. Then it reads the completion queue in order and calls Done, up
// to a budget. So one system call serves as many operations as there are.
//
// Receiving holds no memory while a peer is idle: OpRecvMany is a multishot
// receive that takes a buffer from a ring of provided buffers (runtime/
// internal/hot) at the moment bytes arrive, and the receiver becomes the owner
// of that very buffer. When all buffers are out, the kernel ends the receive
// with ENOBUFS: the connection is parked, and armed again when a buffer is
// back.
//
// On one handle only one send is in the kernel at a time, and only one
// receive; the others wait here in order. Two sends in the kernel could be
// reordered when the socket's buffer is full, since each is retried on its own.
//
// # What go-uring does and what we do
//
// go-uring sets the ring up, maps it and reads its completion queue. We do
// what it gets wrong or does not know: flags (setup_linux.go), submission and
// waiting with our own enter (ring_linux.go), unmapping the submission entries,
// opcodes newer than it, and buffer rings (buffers_linux.go).
//
// # Features
//
// Everything that not every kernel has is a Feature with a name. It is tried,
// once a process, on a small ring of its own (probe_linux.go); a version number
// decides nothing. Each has a fallback, and Options.Off switches it off, which
// is how the fallbacks are tested on a kernel that has it all.
package uring

// Options are the settings of one Runtime. The zero value is a good server's.
type Options struct {
	// Entries is the length of the submission queue, a power of two or
	// rounded up to one. When it is full it is flushed early, so it bounds
	// nothing but the size of a batch. 0: 512.
	Entries int

	// CQEntries is the length of the completion queue. What does not fit in
	// it waits in the kernel's memory and costs more. 0: eight times Entries.
	CQEntries int

	// Buffers and BufferSize are the receive buffers that the kernel fills:
	// few and large ones. 0: 256 of 32 KiB, and fewer in a small pool.
	Buffers, BufferSize int

	// Budget is the largest number of completions that one Poll delivers, so
	// that a busy loop comes back to its timers. 0: 256.
	Budget int

	// Off are names of features to do without: see Features.
	Off []string
}

// The names of the optional features, as Info lists them and Options.Off
// takes them.
const (
	FeatureRDisabled       = "r-disabled"
	FeatureSingleIssuer    = "single-issuer"
	FeatureDeferTaskrun    = "defer-taskrun"
	FeatureCoopTaskrun     = "coop-taskrun"
	FeatureSubmitAll       = "submit-all"
	FeatureExtArg          = "ext-arg"
	FeatureNoIowait        = "no-iowait"
	FeatureBufferRing      = "buffer-ring"
	FeatureMultishotRecv   = "multishot-recv"
	FeatureMultishotAccept = "multishot-accept"
	FeatureCancelAll       = "cancel-all"
)

// Features returns the names of all optional features, in the order of
// Info.Features.
func Features() []string {
	return []string{FeatureRDisabled, FeatureSingleIssuer, FeatureDeferTaskrun, FeatureCoopTaskrun, FeatureSubmitAll,
		FeatureExtArg, FeatureNoIowait, FeatureBufferRing, FeatureMultishotRecv, FeatureMultishotAccept, FeatureCancelAll}
}
