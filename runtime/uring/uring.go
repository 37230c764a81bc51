// Package uring is the io_uring backend: a runtime.Runtime on Linux's completion
// queue, with github.com/godzie44/go-uring.
//
// # How it works
//
// Submit puts an operation into a slot of a table (a flight) and fills a submission
// entry. The entry's user_data is the slot and its generation, never a pointer.
// Submit makes no system call. Poll makes one io_uring_enter, which submits all
// entries and runs the kernel's deferred work for this ring. Only if that produced
// no completion, a second enter waits for one, for a Wake, or for the deadline.
// Then Poll reads the completion queue in order and calls Done, up to a budget. So
// one system call serves all operations that are ready.
//
// An idle connection holds no receive memory. OpRecvMany is a multishot receive
// that takes a buffer from a ring of provided buffers (runtime/internal/hot) at the
// moment bytes arrive, and the receiver becomes the owner of that buffer.
//
// When no buffer is left, the kernel ends the receive with ENOBUFS, whether there are
// bytes or not. From then on the receive does what all do where the kernel has no
// buffer rings:
//
//   - It asks for readiness, which takes no buffer.
//   - Once its socket has bytes, it is parked: it waits in order for a free buffer.
//   - It receives into that one buffer, which the kernel cannot give to another.
//   - It is armed again in the ring, or asks for readiness if others are parked.
//
// While receives are parked, no buffer goes into the ring. So the armed receive of a
// peer that floods soon meets the empty ring too, and waits behind them. A turn gives
// each parked receive one buffer, however much its peer has sent, and bytes arrive
// after a few turns, however many peers flood. While the ring has buffers, none of
// this costs anything. (Newer kernels can also end a multishot receive after a number
// of bytes. This would not help: many peers, each below its limit, still empty the
// ring.)
//
// Of each handle only one send and one receive are in the kernel at a time, and the
// others wait in order. The kernel could reorder two sends when the socket's buffer
// is full, because it retries each on its own.
//
// # What go-uring does
//
// go-uring sets up the ring, maps it and reads its completion queue. This package
// does what go-uring lacks or does wrongly: flags (setup_linux.go), submission and
// waiting with its own enter (ring_linux.go), unmapping the submission entries,
// newer opcodes, and buffer rings (buffers_linux.go).
//
// # Features
//
// Everything that only some kernels have is a named Feature. It is tried once per
// process, on a small ring of its own (probe_linux.go); kernel version numbers are
// not used. Each feature has a fallback. Options.Off switches features off, so that
// the fallbacks can be tested on a kernel that has them all.
package uring

// Options are the options of a Runtime. The zero value suits a server.
type Options struct {
	// Entries is the length of the submission queue, rounded up to a power of two. A
	// full queue is flushed early, so Entries limits only the size of a batch. 0
	// means 512.
	Entries int

	// CQEntries is the length of the completion queue. Completions beyond it wait in
	// kernel memory, which is slower. 0 means eight times Entries.
	CQEntries int

	// Buffers and BufferSize are the number and size in bytes of the receive
	// buffers. 0 means 256 of 32 KiB, and fewer in a small pool.
	Buffers, BufferSize int

	// Budget is the largest number of completions that one Poll delivers. It keeps a
	// busy loop from delaying its timers. 0 means 256.
	Budget int

	// Off names features to switch off: see Features.
	Off []string
}

// The names of the optional features, as in Info and Options.Off.
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
