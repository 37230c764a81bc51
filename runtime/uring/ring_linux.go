package uring

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/godzie44/go-uring/uring"
)

// A ring is one io_uring with our own submission side.
//
// go-uring's submission tail and what publishes it are private, its Submit
// cannot wait, and its waits cannot submit. So we map the submission ring once
// more and do that part ourselves: entries are written in place, the index
// array is the identity for ever, and one enter publishes the tail, submits,
// runs deferred work, and waits with a timeout. go-uring's Submit is never
// called, and its NextSQE only once, for the address of the first entry.
type ring struct {
	lib *uring.Ring
	fd  int

	sqes   []uring.SQEntry
	mem    []byte // our mapping of the submission ring
	head   *uint32
	ktail  *uint32
	kflags *uint32
	mask   uint32
	tail   uint32 // of what we have filled in; *ktail follows in enter

	// What a wait points at. A ring lies in the heap, which does not move.
	arg getEventsArg
	ts  timespec

	// timeouts is the memory of timeout operations, where EXT_ARG is not to be
	// had: one for each entry, since the kernel reads it when it takes the
	// entry, and an entry's place is not used again before that.
	timeouts []timespec

	extArg   bool
	noIowait uint32   // enterNoIowait or 0
	taskrun  uint32   // sqTaskrun if the kernel says when it has deferred work, or 0
	provided *bufRing // what was added to it is shown before each enter; may be nil
	deferred bool     // work is deferred and there is no telling

	// refuse is for tests: asked before each call, it may answer in the kernel's
	// place. n is how many entries the call would hand over.
	refuse func(n, flags uintptr) syscall.Errno
}

// newRing sets up a ring. Sizes are clamped to what the kernel allows.
func newRing(entries, cqEntries, flags uint32) (*ring, error) {
	lib, p, err := setup(entries, cqEntries, flags|setupClamp)
	if err != nil {
		return nil, err
	}
	g := &ring{lib: lib, fd: lib.Fd()}
	size := int(p.sq.array + p.sqEntries*4)
	g.mem, err = syscall.Mmap(g.fd, offSQRing, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		_ = lib.Close()
		return nil, err
	}
	word := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&g.mem[off])) }
	g.head, g.ktail, g.kflags = word(p.sq.head), word(p.sq.tail), word(p.sq.flags)
	g.mask = p.sqEntries - 1
	for i, array := uint32(0), unsafe.Slice(word(p.sq.array), p.sqEntries); i < p.sqEntries; i++ {
		array[i] = i
	}
	first, err := lib.NextSQE() // a fresh ring has one
	if err != nil {
		_ = syscall.Munmap(g.mem)
		_ = lib.Close()
		return nil, err
	}
	g.sqes = unsafe.Slice(first, p.sqEntries)
	g.timeouts = make([]timespec, p.sqEntries)
	g.arg = getEventsArg{sigmaskSize: 8, ts: uint64(uintptr(unsafe.Pointer(&g.ts)))}
	return g, nil
}

// close frees the ring. Nothing may be in flight: an operation that is would
// go on writing into its buffer, because go-uring's Close leaves the mapping
// of the submission entries behind, and that mapping keeps the ring alive. We
// unmap it; its slice has the length that go-uring gave to syscall.Mmap, and
// so syscall.Munmap knows it.
func (g *ring) close() error {
	entries := unsafe.Slice((*byte)(unsafe.Pointer(&g.sqes[0])), len(g.sqes)*int(unsafe.Sizeof(uring.SQEntry{})))
	err := g.lib.Close()
	if e := syscall.Munmap(entries); err == nil {
		err = e
	}
	if e := syscall.Munmap(g.mem); err == nil {
		err = e
	}
	g.sqes, g.mem = nil, nil
	return err
}

// next returns the next free submission entry, zeroed, or nil when all are
// taken.
func (g *ring) next() *uring.SQEntry {
	if g.tail-atomic.LoadUint32(g.head) > g.mask {
		return nil
	}
	sqe := &g.sqes[g.tail&g.mask]
	*sqe = uring.SQEntry{}
	g.tail++
	return sqe
}

// timeout returns the timespec that belongs to the entry that next gave last.
func (g *ring) timeout() *timespec { return &g.timeouts[(g.tail-1)&g.mask] }

// pending returns how many entries the kernel has not taken yet.
func (g *ring) pending() uint32 { return g.tail - atomic.LoadUint32(g.head) }

// hasWork reports whether the kernel has something to put into the completion
// queue as soon as it is entered: deferred work, or completions that did not
// fit. Peeking alone would never see them.
func (g *ring) hasWork() bool {
	return g.deferred || atomic.LoadUint32(g.kflags)&(g.taskrun|sqCQOverflow) != 0
}

// rawBatch is how many entries one raw system call hands over at most.
const rawBatch = 32

// wait submits what is pending, has the kernel do its deferred work, and waits
// for a completion, at most timeout nanoseconds if that is not negative (which
// needs EXT_ARG).
func (g *ring) wait(timeout int64) syscall.Errno {
	flags := uint32(enterGetEvents) | g.noIowait
	var arg unsafe.Pointer
	var size uintptr
	if timeout >= 0 && g.extArg {
		g.ts = timespec{sec: timeout / 1e9, nsec: timeout % 1e9}
		arg, size = unsafe.Pointer(&g.arg), unsafe.Sizeof(g.arg)
		flags |= enterExtArg
	}
	n := g.publish()
	if g.refuse != nil {
		if errno := g.refuse(n, uintptr(flags)); errno != 0 {
			return errno
		}
	}
	_, _, errno := syscall.Syscall6(sysEnter, uintptr(g.fd), n, 1, uintptr(flags), uintptr(arg), size)
	return errno
}

// turn submits what is pending and has the kernel do its deferred work, but
// does not wait.
//
// These are raw system calls: Go's scheduler keeps its P with us. Told of a
// call, it gives the P away after 20 µs if nothing is idle, and the loop has to
// queue for another one: a tenth of the throughput of a busy echo server; and
// its monitor keeps waking to look, on our CPU if there is no other. The price is
// that a garbage collection cannot stop the world until the call is back, and a
// send runs through the whole network stack inside it, some 3 µs each; hence
// several calls for many. See docs/performance.md.
func (g *ring) turn() syscall.Errno { return g.call(enterGetEvents) }

// submit hands over what is pending and does nothing else.
func (g *ring) submit() syscall.Errno { return g.call(0) }

// work has the kernel do its deferred work and nothing else. A call that also
// submits does none when its submission is refused, whatever its flags.
func (g *ring) work() { _ = g.enter(0, enterGetEvents) }

func (g *ring) call(flags uintptr) syscall.Errno {
	n := g.publish()
	for n > rawBatch {
		if errno := g.enter(rawBatch, 0); errno != 0 {
			return errno
		}
		left := uintptr(g.pending())
		if left >= n {
			break // the kernel takes no more now
		}
		n = left
	}
	return g.enter(min(n, rawBatch), flags)
}

// enter is a function of its own so that whoever wants to stop the world can do
// so between two calls.
//
//go:noinline
func (g *ring) enter(n, flags uintptr) syscall.Errno {
	if g.refuse != nil {
		if errno := g.refuse(n, flags); errno != 0 {
			return errno
		}
	}
	_, _, errno := syscall.RawSyscall6(sysEnter, uintptr(g.fd), n, 0, flags, 0, 0)
	return errno
}

// publish shows the kernel what was filled in, and returns how many entries it
// has not taken yet.
func (g *ring) publish() uintptr {
	if g.provided != nil {
		g.provided.publish()
	}
	atomic.StoreUint32(g.ktail, g.tail)
	return uintptr(g.pending())
}

// peek returns completions in order: as many as fit into buf. They are gone
// from the queue then.
func (g *ring) peek(buf []uring.CQEvent, scratch []*uring.CQEvent) int {
	n := g.lib.PeekCQEventBatch(scratch[:len(buf)])
	if n == 0 {
		return 0
	}
	for i, cqe := range scratch[:n] {
		buf[i] = *cqe
	}
	g.lib.AdvanceCQ(uint32(n))
	return n
}
