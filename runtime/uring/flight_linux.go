//go:build !386 && !arm && !mips && !mipsle

package uring

import (
	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/internal/list"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/runtime/internal/sys"
)

// A flight is one operation from Submit to its terminal completion, or one
// cancellation from its submission to its result. It is a slot of a table, and the
// kernel knows it only by slot and generation, so a late completion or cancellation
// cannot reach the next flight in the slot. The table keeps everything that the
// kernel uses reachable: the Op with its buffers, and mem.
type flight struct {
	op     *runtime.Op // nil for a cancellation
	target uint64      // user_data to cancel; 0 means everything
	tries  int         // how often the cancellation was repeated

	conn *conn // nil for an operation without a handle
	fd   int32
	mem  *kernelMem
	buf  int32 // hot buffer that it alone may fill, or -1

	slot, gen uint32
	phase     phase
	used      bool
	canceled  bool // the submitter has cancelled it
	poll      bool // waits for readiness before the operation itself
	once      bool // a receive that was parked and takes one buffer from the ring
	fresh     bool // a multishot receive that has not delivered yet
	nowait    bool // a send that must not wait: see wouldBlock
	blocked   bool // a send that waits for the peer
	async     bool // a worker of the kernel must run it

	// The result, while it waits in Runtime.done.
	n   int
	got runtime.Handle
	err error

	queued list.Node[flight] // in at most one queue
	onConn list.Node[flight] // in conn.ops
}

// A phase says where a flight is.
type phase uint8

const (
	phaseIdle    phase = iota // being handled by this process
	phaseWaiting              // behind another operation in the same direction of its handle
	phaseBacklog              // waits for room in the submission queue
	phaseKernel               // in the submission queue or in the kernel
	phaseParked               // has bytes to receive and waits for a buffer
	phaseDone                 // its result waits for Poll
)

// kernelMem is the memory of one operation that the kernel reads. It must not be on
// a stack, which can move.
type kernelMem struct {
	msg  unix.Msghdr
	iov  [runtime.MaxVec]unix.Iovec
	addr sys.RawAddr
	path []byte
	free list.Link[kernelMem]
}

const (
	pageBits = 8
	pageSize = 1 << pageBits
	genMask  = 1<<31 - 1 // the top bit of user_data marks completions that are not of a flight
)

// A table holds the flights. It grows by pages, so that flights never move.
type table struct {
	pages []*[pageSize]flight
	free  []*flight // the last is the next to be taken
	live  int
	mems  list.Stack[kernelMem]
}

func (t *table) take(op *runtime.Op) *flight {
	if len(t.free) == 0 {
		t.grow()
	}
	last := len(t.free) - 1
	f := t.free[last]
	t.free = t.free[:last]
	f.gen = f.gen&genMask + 1
	if f.gen > genMask {
		f.gen = 1
	}
	f.op, f.buf, f.fd, f.used = op, -1, -1, true
	t.live++
	return f
}

func (t *table) grow() {
	page := new([pageSize]flight)
	base := uint32(len(t.pages)) << pageBits
	for i := pageSize - 1; i >= 0; i-- {
		f := &page[i]
		f.slot = base + uint32(i)
		t.free = append(t.free, f)
	}
	t.pages = append(t.pages, page)
}

// drop frees the slot of f.
func (t *table) drop(f *flight) {
	t.putMem(f)
	*f = flight{slot: f.slot, gen: f.gen}
	t.free = append(t.free, f)
	t.live--
}

func (t *table) putMem(f *flight) {
	m := f.mem
	if m == nil {
		return
	}
	clear(m.iov[:m.msg.Iovlen]) // so that it keeps no buffer alive
	m.msg, m.path = unix.Msghdr{}, nil
	t.mems.Push(&m.free, m)
	f.mem = nil
}

func (t *table) takeMem(f *flight) *kernelMem {
	if f.mem == nil {
		if f.mem = t.mems.Pop(); f.mem == nil {
			f.mem = &kernelMem{}
		}
	}
	return f.mem
}

// at returns the flight in a slot, of any generation.
func (t *table) at(slot uint32) *flight {
	if int(slot>>pageBits) >= len(t.pages) {
		return nil
	}
	return &t.pages[slot>>pageBits][slot&(pageSize-1)]
}

// get returns the flight with this user_data, or nil if it has ended.
func (t *table) get(userData uint64) *flight {
	f := t.at(uint32(userData))
	if f == nil || f.gen != uint32(userData>>32) || !f.used {
		return nil
	}
	return f
}

func (f *flight) userData() uint64 { return uint64(f.gen)<<32 | uint64(f.slot) }

// A queue is a first-in-first-out list of flights.
type queue struct{ list.List[flight] }

func (q *queue) push(f *flight, p phase) {
	q.PushBack(&f.queued, f)
	f.phase = p
}

func (q *queue) pushFront(f *flight, p phase) {
	q.PushFront(&f.queued, f)
	f.phase = p
}

func (q *queue) pop() *flight {
	f := q.PopFront()
	if f != nil {
		f.phase = phaseIdle
	}
	return f
}

// leaveQueue takes f out of the queue that it is in.
func (f *flight) leaveQueue() {
	f.queued.List().Remove(&f.queued)
	f.phase = phaseIdle
}

// A conn is the state of a handle.
type conn struct {
	handle runtime.Handle
	fd     int32
	ops    list.List[flight] // in flight, except closer
	lines  [2]line
	closer *flight // the OpClose: once it is set, further operations are refused
}

// A line is one direction of a handle: one operation is active, the others wait for it
// in order.
type line struct {
	active  *flight
	waiting queue
}

// The directions.
const (
	lineRecv = iota
	lineSend
	noLine = -1
)

// lineOf returns the direction of its handle that an operation waits in. Accepts,
// polls and file operations wait in none. A shutdown of the sending side waits for
// the sends before it.
func lineOf(op *runtime.Op) int {
	switch op.Code {
	case runtime.OpRecv, runtime.OpRecvMany:
		return lineRecv
	case runtime.OpSend, runtime.OpSendVec:
		return lineSend
	case runtime.OpShutdown:
		if op.Flags != runtime.DirRead {
			return lineSend
		}
	}
	return noLine
}

func (c *conn) add(f *flight) {
	f.conn, f.fd = c, c.fd
	c.ops.PushFront(&f.onConn, f)
}

func (c *conn) remove(f *flight) {
	c.ops.Remove(&f.onConn)
	f.conn = nil
}
