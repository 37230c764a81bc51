//go:build !386 && !arm && !mips && !mipsle

package uring

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/godzie44/go-uring/uring"
)

// A ring is one io_uring with a submission side of its own.
//
// go-uring keeps its submission tail private, its Submit cannot wait, and its waits
// cannot submit. So this type maps the submission ring a second time and submits by
// itself: entries are written in place, the index array is always the identity, and
// one enter publishes the tail, submits, runs deferred work, and waits with a
// timeout. go-uring's Submit is never called. NextSQE is called once, for the
// address of the first entry.
type ring struct {
	lib *uring.Ring
	fd  int

	sqes   []uring.SQEntry
	mem    []byte // the second mapping of the submission ring
	head   *uint32
	ktail  *uint32
	kflags *uint32
	mask   uint32
	tail   uint32 // of the entries filled in; publish copies it to *ktail

	// The arguments of a wait. A ring is allocated on the heap, where its address is
	// stable.
	arg getEventsArg
	ts  timespec

	// timeouts is the memory of timeout operations, which are used without EXT_ARG.
	// There is one for each entry: the kernel reads it when it takes the entry, and
	// the entry is not reused before that.
	timeouts []timespec

	extArg   bool
	noIowait uint32   // enterNoIowait or 0
	taskrun  uint32   // sqTaskrun if the kernel flags deferred work, or 0
	provided *bufRing // published before each enter; may be nil
	deferred bool     // work is deferred and the kernel does not flag it

	// refuse is a hook for tests. It is called before each enter, and a non-zero
	// result replaces the call. n is how many entries the call would submit.
	refuse func(n, flags uintptr) syscall.Errno
}

// newRing sets up a ring. The kernel's limits clamp its sizes.
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
	first, err := lib.NextSQE() // cannot fail on a new ring of at least one entry
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

// close frees the ring. No operation may be in flight, or the kernel would continue
// to write to its buffer: go-uring's Close leaves the submission entries mapped,
// and that mapping keeps the ring alive. close unmaps it. syscall.Munmap accepts
// the slice because it has the address and length that go-uring got from
// syscall.Mmap.
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

// next returns the next free submission entry, zeroed, or nil if all are taken.
func (g *ring) next() *uring.SQEntry {
	if g.tail-atomic.LoadUint32(g.head) > g.mask {
		return nil
	}
	sqe := &g.sqes[g.tail&g.mask]
	*sqe = uring.SQEntry{}
	g.tail++
	return sqe
}

// timeout returns the timespec of the entry that next returned last.
func (g *ring) timeout() *timespec { return &g.timeouts[(g.tail-1)&g.mask] }

// pending returns how many entries the kernel has not taken yet.
func (g *ring) pending() uint32 { return g.tail - atomic.LoadUint32(g.head) }

// hasWork reports whether an enter would add to the completion queue: deferred
// work, or completions that did not fit. Without an enter, peek would never see
// them.
func (g *ring) hasWork() bool {
	return g.deferred || atomic.LoadUint32(g.kflags)&(g.taskrun|sqCQOverflow) != 0
}

// rawBatch is the largest number of entries that one raw system call submits.
const rawBatch = 32

// wait submits the pending entries, runs the kernel's deferred work, and waits for
// a completion. A timeout of at least 0, in nanoseconds, limits the wait; this
// needs EXT_ARG.
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

// turn submits the pending entries and runs the kernel's deferred work without
// waiting.
//
// It makes raw system calls, so that Go's scheduler leaves the P with this thread.
// During an ordinary call the scheduler takes the P away after 20 µs if no P is
// idle, and the loop must queue for another: that costs a tenth of the throughput
// of a busy echo server. The scheduler's monitor also wakes up to check, on this
// CPU if there is no other. The price is that a garbage collection cannot stop the
// world before the call returns. A send runs through the whole network stack within
// the call, about 3 µs each, so many entries are submitted by several calls. See
// docs/performance.md.
func (g *ring) turn() syscall.Errno { return g.call(enterGetEvents) }

// submit submits the pending entries and does nothing else.
func (g *ring) submit() syscall.Errno { return g.call(0) }

// work runs the kernel's deferred work and submits nothing. An enter whose
// submission is refused runs none, whatever its flags.
func (g *ring) work() { _ = g.enter(0, enterGetEvents) }

func (g *ring) call(flags uintptr) syscall.Errno {
	n := g.publish()
	for n > rawBatch {
		if errno := g.enter(rawBatch, 0); errno != 0 {
			return errno
		}
		left := uintptr(g.pending())
		if left >= n {
			break // the kernel takes no more for now
		}
		n = left
	}
	return g.enter(min(n, rawBatch), flags)
}

// enter is not inlined, so that a garbage collection can stop the world between two
// calls.
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

// publish makes the filled entries visible to the kernel, and returns how many it
// has not taken yet.
func (g *ring) publish() uintptr {
	if g.provided != nil {
		g.provided.publish()
	}
	atomic.StoreUint32(g.ktail, g.tail)
	return uintptr(g.pending())
}

// peek removes completions from the queue, in order, as many as fit into buf, and
// returns how many.
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
