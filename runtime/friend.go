package runtime

import (
	"fmt"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/internal/list"
)

// Friend returns what the loop and the backends of this module may do with a
// buffer and its owner may not. See package internal/friend.
func (b *Buffer) Friend(friend.Key) *bufferFriend { return (*bufferFriend)(b) }

// A bufferFriend is a Buffer for the code that queues it, or that fills it for
// its owner. Its methods do not ask who owns the buffer.
type bufferFriend Buffer

// Claim notes that a stream has the buffer in one of its queues, with one of its
// owners. A stream claims a buffer when the buffer is given to it, not when it
// sends the buffer, so that a mistake panics where it was made.
func (b *bufferFriend) Claim(to OpCode) {
	state := b.state.Add(oneClaim)
	switch n := owners(state); {
	case n == 0:
		b.state.Add(-oneClaim)
		panic("runtime: " + to.String() + " of a buffer that was released")
	case n < claims(state):
		b.state.Add(-oneClaim)
		panic(fmt.Sprintf("runtime: %v of a buffer that is in flight in %s: it has %d owners, and each takes one along (Retain)", to, (*Buffer)(b).holder(), n))
	case n == 1 && loans(state) > 0 && b.home != nil:
		b.state.Add(-oneClaim)
		panic("runtime: " + to.String() + " of a buffer that is in flight in " + (*Buffer)(b).holder())
	}
	if b.lentTo.Load() != uint32(to) { // a store costs as much as a lock
		b.lentTo.Store(uint32(to))
	}
}

// Disclaim ends a claim and the ownership that goes with it. Of a buffer that
// only its stream has ever seen it ends the ownership alone.
func (b *bufferFriend) Disclaim() {
	if state := b.state.Load(); state == oneOwner || state == oneOwner+oneClaim {
		b.state.Store(0)
	} else if owners(b.state.Add(-oneOwner-oneClaim)) > 0 {
		return
	}
	(*Buffer)(b).giveBack()
}

// HandOn ends a claim, if there is one, and leaves its ownership to the party
// that gets the buffer.
func (b *bufferFriend) HandOn() {
	if state := b.state.Load(); state != oneOwner && claims(state) > 0 {
		b.state.Add(-oneClaim)
	}
}

// Len returns how many bytes the buffer holds.
func (f *bufferFriend) Len() int { return f.end - f.start }

// Bytes returns what the buffer holds.
func (f *bufferFriend) Bytes() []byte { return f.mem[f.start:f.end] }

// Room returns how many bytes fit behind those that the buffer holds.
func (f *bufferFriend) Room() int { return len(f.mem) - f.end }

// Grow takes the next n bytes of the room into the buffer and returns them to be
// written.
func (f *bufferFriend) Grow(n int) []byte {
	at := f.end
	f.end += n
	return f.mem[at:f.end:f.end]
}

// Skip drops the first n bytes.
func (f *bufferFriend) Skip(n int) { f.start += n }

// Pool returns the pool that the buffer belongs to; nil for a shared one.
func (f *bufferFriend) Pool() *Pool { return f.pool }

// Rest takes b and returns what is left of it without its first n bytes: b
// itself, or, if b is shared, a copy as NewShared makes it; nil if nothing is
// left.
func (f *bufferFriend) Rest(n int) *Buffer {
	b := (*Buffer)(f)
	switch {
	case n == b.Len():
		b.Release()
		return nil
	case b.Shared():
		own := NewShared(append([]byte(nil), b.Bytes()[n:]...))
		b.Release()
		return own
	}
	b.Advance(n)
	return b
}

// Memory returns all of the buffer's memory, whatever its window.
func (f *bufferFriend) Memory() []byte { return f.mem }

// Home returns the party that takes the buffer back; nil if NewShared made it.
func (f *bufferFriend) Home() home { return f.home }

// FromPool reports whether the buffer's memory is its pool's, and not a
// backend's.
func (f *bufferFriend) FromPool() bool {
	_, pooled := f.home.(*poolFriend)
	return pooled
}

// Index returns the number that the buffer's home gave it.
func (f *bufferFriend) Index() uint32 { return f.index }

// Exchange swaps the memory and the home of b and c, which must have one owner
// each; each keeps its owner. So a buffer that an operation has can leave memory
// that is in demand without its owner noticing: Exchange copies what b holds into
// c first, with at most this much headroom, and b holds the same afterwards. c
// must have the room. The caller releases c, which then has what was b's memory.
// Exchange reports false, and has done nothing, when another owner or another
// operation could see the memory change.
func (b *bufferFriend) Exchange(c *Buffer, headroom int) bool {
	if state := b.state.Load(); owners(state) != 1 || claims(state)+loans(state) > 1 || b.home == nil {
		return false
	}
	c.Reset(min(headroom, b.start))
	if c.Append(b.mem[b.start:b.end]) < b.end-b.start {
		return false
	}
	b.mem, c.mem = c.mem, b.mem
	b.start, c.start = c.start, b.start
	b.end, c.end = c.end, b.end
	b.home, c.home = c.home, b.home
	b.pool, c.pool = c.pool, b.pool
	b.index, c.index = c.index, b.index
	b.class, c.class = c.class, b.class
	b.chunk, c.chunk = c.chunk, b.chunk
	return true
}

// Own returns a claimed buffer whose window may change: the buffer itself or, if
// it is shared, a copy on Go's heap, which takes over the claim.
func (f *bufferFriend) Own() *Buffer {
	b := (*Buffer)(f)
	if !b.Shared() {
		return b
	}
	own := NewShared(append([]byte(nil), f.Bytes()...))
	own.home = heapHome{}
	f.Disclaim()
	return own
}

// heapHome is the home of a private buffer on Go's heap.
type heapHome struct{}

func (heapHome) PutBack(*Buffer) {}

// Friend returns what the loop that a pool belongs to may do with it. See
// package internal/friend.
func (p *Pool) Friend(friend.Key) *poolFriend { return (*poolFriend)(p) }

// A poolFriend is a Pool for its loop.
type poolFriend Pool

// Bind ties the pool to a loop: onLoop reports whether the caller is on the
// loop's thread, wake makes the loop call Collect.
func (f *poolFriend) Bind(onLoop func() bool, wake func()) { f.onLoop, f.wake = onLoop, wake }

// Collect takes in the buffers that other threads have released.
func (p *poolFriend) Collect() {
	if !p.pending.Load() {
		return
	}
	p.mu.Lock()
	released := p.foreign
	p.foreign = list.Stack[Buffer]{}
	p.pending.Store(false)
	p.mu.Unlock()
	for b := released.Pop(); b != nil; b = released.Pop() {
		b.home.PutBack(b)
	}
}

// NewBuffer returns a buffer around memory of home, without an owner. index is
// for home's use.
func (f *poolFriend) NewBuffer(home home, mem []byte, index uint32) *Buffer {
	return &Buffer{mem: mem, home: home, pool: (*Pool)(f), index: index}
}

// Pending reports whether there is anything to collect.
func (f *poolFriend) Pending() bool { return f.pending.Load() }

// Friend returns what a loop's streams may do with an operation. See package
// internal/friend.
func (op *Op) Friend(friend.Key) *opFriend { return (*opFriend)(op) }

// An opFriend is an Op for the stream that submits it.
type opFriend Op

// ClaimsBuffers says that the submitter of the op has claimed the op's buffers
// itself, so that submitting the op does not lend them.
func (f *opFriend) ClaimsBuffers() { f.claimed = true }

// Check returns what is wrong with the op's arguments, as Begin does, and
// changes nothing.
func (f *opFriend) Check() error { return (*Op)(f).check() }
