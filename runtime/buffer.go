package runtime

import (
	"fmt"
	"sync/atomic"

	"github.com/noria-go/noria/internal/list"
)

// A Buffer is a piece of memory with a window on it: the bytes that it holds
// (Bytes), headroom in front of them and room behind them.
//
//	|-- headroom --|-- Bytes: Len --|-- room --|
//	0              start            end        Cap
//
// A buffer has one owner. A call that takes a buffer takes the ownership, even when
// it fails, unless its comment says otherwise. While an operation has the buffer,
// from Submit to the terminal completion, touching it panics with a message that
// names the operation.
//
// Several owners may share one payload: Retain adds an owner, Release ends one, and
// the last Release gives the memory back to where it came from. A buffer with
// several owners can be read and sent, and not be changed. Sending never changes a
// buffer, so one buffer may be in many sends.
//
// A buffer belongs to its loop, and only code on that loop may use it. Release is
// the exception: any goroutine may call it. NewShared makes buffers that may be sent
// on any loop.
type Buffer struct {
	mem        []byte
	start, end int

	state  atomic.Int64  // owners, claims and loans: see oneOwner
	lentTo atomic.Uint32 // the OpCode of the last claim or loan

	home  home
	pool  *Pool
	index uint32            // the home's own number for it
	class int8              // of the pool; -1 if it has a mapping of its own
	chunk *chunk            // of the pool
	link  list.Link[Buffer] // in a free list, or in the list of those released by other threads
}

// A buffer's state is three counts in one atomic word, because they are checked
// against each other while several loops change them: its owners; the claims of
// streams, each of which has the buffer in a queue and holds one of the owners; and
// its loans to operations in flight, which hold none.
const (
	countBits = 21
	oneOwner  = int64(1)
	oneClaim  = oneOwner << countBits
	oneLoan   = oneClaim << countBits
	maxCount  = 1<<countBits - 1 // two million
)

func owners(state int64) int { return int(state & maxCount) }
func claims(state int64) int { return int(state >> countBits & maxCount) }
func loans(state int64) int  { return int(state >> (2 * countBits)) }

// A home takes a buffer back, on the loop's thread, when the last owner has
// released it.
type home interface{ PutBack(b *Buffer) }

// NewBuffer returns a buffer around memory of a backend's own, such as one of a
// ring of provided buffers. The buffer has no owner yet: see Hand. When its last
// owner has released it, putBack is called on the loop's thread, and the backend may
// hand the buffer out again. For backends.
func NewBuffer(pool *Pool, mem []byte, putBack func(*Buffer)) *Buffer {
	return &Buffer{mem: mem, home: backendHome(putBack), pool: pool}
}

// backendHome is the home of a backend's buffer.
type backendHome func(*Buffer)

func (putBack backendHome) PutBack(b *Buffer) { putBack(b) }

// Hand gives the buffer its first owner and makes it hold the bytes from start to
// end of its memory. For backends.
func (b *Buffer) Hand(start, end int) *Buffer {
	if !b.state.CompareAndSwap(0, oneOwner) {
		panic("runtime: a buffer is handed out while somebody owns it")
	}
	b.start, b.end = start, end
	return b
}

// NewShared returns a buffer around data, which must not change from now on. It may
// be sent on any loop, by many streams at once: call Retain for each send but the
// last. The garbage collector frees it. Any goroutine may call NewShared.
func NewShared(data []byte) *Buffer {
	b := &Buffer{mem: data[:len(data):len(data)], end: len(data)}
	b.state.Store(oneOwner)
	return b
}

// Shared reports whether b must not be changed, because it has more than one owner
// or because NewShared made it.
func (b *Buffer) Shared() bool { return b.home == nil || owners(b.state.Load()) > 1 }

// Bytes returns the bytes that the buffer holds. The slice is valid until the buffer
// is changed or given away.
func (b *Buffer) Bytes() []byte {
	b.look()
	return b.mem[b.start:b.end:b.end]
}

// Len returns how many bytes the buffer holds.
func (b *Buffer) Len() int {
	b.look()
	return b.end - b.start
}

// Cap returns the size of its memory: headroom, bytes and room.
func (b *Buffer) Cap() int { return len(b.mem) }

// Headroom returns how many bytes fit in front of those that the buffer holds.
func (b *Buffer) Headroom() int {
	b.look()
	return b.start
}

// Room returns the memory behind the bytes. Write there, then call Extend.
func (b *Buffer) Room() []byte {
	b.change()
	return b.mem[b.end:]
}

// Extend takes the first n bytes of Room into the buffer.
func (b *Buffer) Extend(n int) {
	b.change()
	if n < 0 || n > len(b.mem)-b.end {
		panic(fmt.Sprintf("runtime: Extend(%d) of a buffer with room for %d", n, len(b.mem)-b.end))
	}
	b.end += n
}

// Prepend takes the last n bytes of the headroom into the buffer and returns them
// to be written. So a header gets in front of a payload without a copy.
func (b *Buffer) Prepend(n int) []byte {
	b.change()
	if n < 0 || n > b.start {
		panic(fmt.Sprintf("runtime: Prepend(%d) of a buffer with a headroom of %d", n, b.start))
	}
	b.start -= n
	return b.mem[b.start : b.start+n]
}

// Advance drops the first n bytes. They become headroom.
func (b *Buffer) Advance(n int) {
	b.change()
	if n < 0 || n > b.end-b.start {
		panic(fmt.Sprintf("runtime: Advance(%d) of a buffer of %d bytes", n, b.end-b.start))
	}
	b.start += n
}

// Truncate keeps only the first n bytes.
func (b *Buffer) Truncate(n int) {
	b.change()
	if n < 0 || n > b.end-b.start {
		panic(fmt.Sprintf("runtime: Truncate(%d) of a buffer of %d bytes", n, b.end-b.start))
	}
	b.end = b.start + n
}

// Reset empties the buffer and leaves this much headroom.
func (b *Buffer) Reset(headroom int) {
	b.change()
	if headroom < 0 || headroom > len(b.mem) {
		panic(fmt.Sprintf("runtime: Reset(%d) of a buffer of %d bytes", headroom, len(b.mem)))
	}
	b.start, b.end = headroom, headroom
}

// Append copies as much of p behind the bytes as there is room for, and
// returns how much that was.
func (b *Buffer) Append(p []byte) int {
	b.change()
	n := copy(b.mem[b.end:], p)
	b.end += n
	return n
}

// Retain adds an owner and returns b.
func (b *Buffer) Retain() *Buffer {
	state := b.state.Add(oneOwner)
	switch n := owners(state); {
	case n <= 1:
		b.state.Add(-oneOwner)
		panic("runtime: Retain of a buffer that was released")
	case loans(state) > 0 && b.isRead():
		b.state.Add(-oneOwner)
		panic("runtime: Retain of a buffer that is in flight in " + b.holder())
	case n == maxCount:
		b.state.Add(-oneOwner)
		panic(fmt.Sprintf("runtime: Retain of a buffer that has %d owners already", n-1))
	}
	return b
}

// Release ends the ownership of the caller. Any goroutine may call it.
func (b *Buffer) Release() {
	// The only owner needs no atomic subtraction: no other code has the buffer.
	if b.state.Load() == oneOwner {
		b.state.Store(0)
		b.giveBack()
		return
	}
	state := b.state.Add(-oneOwner)
	switch n := owners(state); {
	case n == maxCount: // there was none
		b.state.Add(oneOwner)
		panic("runtime: Release of a buffer that was released")
	case n < claims(state), n == 0 && loans(state) > 0:
		b.state.Add(oneOwner)
		panic("runtime: Release of a buffer that is in flight in " + b.holder())
	case n == 0:
		b.giveBack()
	}
}

func (b *Buffer) giveBack() {
	if b.home == nil {
		return
	}
	if b.pool != nil && !b.pool.owned() {
		b.pool.takeForeign(b)
		return
	}
	b.home.PutBack(b)
}

// Drop releases every buffer of bufs.
func Drop(bufs ...*Buffer) {
	for _, b := range bufs {
		b.Release()
	}
}

// isRead reports whether the buffer is lent to an operation that writes into it,
// which is then its only loan.
func (b *Buffer) isRead() bool {
	to := OpCode(b.lentTo.Load())
	return to == OpRecv || to == OpReadAt
}

// received takes n bytes of the room into the buffer while an operation has it.
func (b *Buffer) received(n int) {
	if n > len(b.mem)-b.end {
		panic(fmt.Sprintf("runtime: %d bytes came into a buffer with room for %d", n, len(b.mem)-b.end))
	}
	b.end += n
}

func (b *Buffer) holder() string { return OpCode(b.lentTo.Load()).String() }

// look panics unless the owner may read the bytes now.
func (b *Buffer) look() {
	switch state := b.state.Load(); {
	case state == oneOwner:
	case owners(state) == 0:
		panic("runtime: use of a buffer that was released")
	case owners(state) == 1 && b.home != nil: // the one owner is a stream or an operation
		panic("runtime: the buffer is in flight in " + b.holder() + ": it belongs to the runtime until that completes")
	}
}

// change panics unless the owner may change the buffer now.
func (b *Buffer) change() {
	b.look()
	if b.Shared() {
		panic("runtime: a shared buffer cannot be changed: it has other owners")
	}
}

// lend notes that an operation has the buffer.
func (b *Buffer) lend(to OpCode) {
	switch to {
	case OpSend, OpSendVec, OpWriteAt:
		state := b.state.Add(oneLoan)
		if owners(state) == 0 {
			b.state.Add(-oneLoan)
			panic("runtime: " + to.String() + " of a buffer that was released")
		}
		if owners(state) == 1 && b.home != nil && loans(state)+claims(state) > 1 {
			b.state.Add(-oneLoan)
			panic("runtime: " + to.String() + " of a buffer that is in flight in " + b.holder())
		}
	default:
		b.change()
		b.state.Add(oneLoan)
	}
	b.lentTo.Store(uint32(to))
}

func (b *Buffer) unlend() { b.state.Add(-oneLoan) }
