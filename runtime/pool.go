package runtime

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/noria-go/noria/internal/list"
)

// Pool sizes, in bytes.
const (
	minClassBits = 9  // 512
	maxClassBits = 16 // 64 KiB; bigger buffers are mapped one by one
	classes      = maxClassBits - minClassBits + 1
	chunkSize    = 256 << 10
	maxSpare     = 8 << 20 // big buffers kept for reuse; bigger ones are mapped at their size
	maxIdle      = 4 << 20 // chunks without a slab in use, kept for reuse
	pageSize     = 4 << 10 // mappings are multiples of it

	maxBuffer    = 1 << 30 // the largest buffer that Get returns
	defaultLimit = 1 << 30 // of what a pool maps
)

// A Pool is a loop's store of buffers: off-heap memory in sizes that are powers of
// two, handed out without locks and without allocating. Slabs of up to 64 KiB are
// cut from chunks of 256 KiB; each bigger buffer has a mapping of its own, of a
// power of two up to 8 MiB and of the wanted size beyond that. The pool keeps up to
// 4 MiB of free chunks, so that buffers which each turn takes and gives back cost no
// system calls, and returns the rest to the system.
//
// Only code on the loop may call its methods. Buffer.Release may be called from
// anywhere.
type Pool struct {
	limit  int64
	mapped int64
	out    int                    // buffers with an owner
	free   [classes]class         // chunks with free slabs and some in use
	big    [24]list.Stack[Buffer] // free, by size
	spare  int64                  // bytes in big
	idle   []*chunk               // without a slab in use, the newest last
	peak   int64

	onLoop func() bool
	wake   func()
	orphan bool // the loop has ended; guarded by mu

	mu       sync.Mutex
	foreign  list.Stack[Buffer] // released by other threads
	pending  atomic.Bool
	unlocked atomic.Bool // orphan, readable without mu
}

type class struct{ chunks list.List[chunk] }

type chunk struct {
	class int8
	mem   []byte
	free  list.Stack[Buffer]
	used  int
	node  list.Node[chunk] // of its class, if some is free and some is used
}

// PoolStats describes a Pool at one moment.
type PoolStats struct {
	Outstanding int   // buffers with an owner
	Mapped      int64 // bytes taken from the system
	Peak        int64 // the most that Mapped has been
	Limit       int64 // bytes
}

// NewPool returns a pool that maps at most limit bytes; 0 means 1 GiB.
// A pool that is bound to no loop may be used by one goroutine at a time.
func NewPool(limit int64) *Pool {
	if limit <= 0 {
		limit = defaultLimit
	}
	return &Pool{limit: limit}
}

func (p *Pool) owned() bool {
	if p.unlocked.Load() {
		return false
	}
	return p.onLoop == nil || p.onLoop()
}

// takeForeign keeps b, which another thread released, for the loop.
func (p *Pool) takeForeign(b *Buffer) {
	p.mu.Lock()
	if p.orphan {
		b.home.PutBack(b) // the loop has ended; mu keeps the other threads out
		p.mu.Unlock()
		return
	}
	p.foreign.Push(&b.link, b)
	first := !p.pending.Swap(true)
	p.mu.Unlock()
	if first {
		p.wake()
	}
}

// Get returns an empty buffer of at least size bytes with no headroom. It
// fails with ErrNoBuffers at the pool's limit.
func (p *Pool) Get(size int) (*Buffer, error) {
	switch {
	case size > maxBuffer:
		return nil, fmt.Errorf("%w: a buffer of %d bytes was asked for, the largest has %d", ErrNoBuffers, size, maxBuffer)
	case size > maxSpare:
		return p.getExact(size)
	case size > 1<<maxClassBits:
		return p.getBig(bits.Len(uint(size - 1)))
	case size <= 1<<minClassBits:
		return p.getSlab(0)
	default:
		return p.getSlab(bits.Len(uint(size-1)) - minClassBits)
	}
}

// Copy returns a buffer with data in it and this much headroom.
func (p *Pool) Copy(headroom int, data []byte) (*Buffer, error) {
	b, err := p.Get(headroom + len(data))
	if err != nil {
		return nil, err
	}
	b.Reset(headroom)
	b.Append(data)
	return b, nil
}

// Map returns size bytes from the system for a backend's own buffers. They count
// towards the pool's limit. For backends.
func (p *Pool) Map(size int) ([]byte, error) {
	if p.mapped+int64(size) > p.limit {
		p.dropSpare()
	}
	if p.mapped+int64(size) > p.limit {
		return nil, fmt.Errorf("%w: %d bytes are mapped and %d more wanted, the limit is %d", ErrNoBuffers, p.mapped, size, p.limit)
	}
	mem, err := mapMemory(size)
	if err != nil {
		p.dropSpare()
		mem, err = mapMemory(size)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoBuffers, err)
	}
	p.mapped += int64(size)
	p.peak = max(p.peak, p.mapped)
	return mem, nil
}

// Unmap gives back memory that Map returned. For backends.
func (p *Pool) Unmap(mem []byte) error {
	p.mapped -= int64(len(mem))
	return unmapMemory(mem)
}

func (p *Pool) getSlab(c int) (*Buffer, error) {
	ch := p.free[c].chunks.First()
	if ch == nil {
		var err error
		if ch, err = p.nextChunk(c); err != nil {
			return nil, err
		}
	}
	b := ch.free.Pop()
	ch.used++
	if ch.free.Empty() {
		p.free[c].unlist(ch)
	}
	p.out++
	return b.Hand(0, 0), nil
}

// nextChunk lists a chunk for class c: the free one used last, or a new one.
func (p *Pool) nextChunk(c int) (*chunk, error) {
	for i := len(p.idle) - 1; i >= 0; i-- {
		if ch := p.idle[i]; int(ch.class) == c {
			p.idle = slices.Delete(p.idle, i, i+1)
			p.free[c].list(ch)
			return ch, nil
		}
	}
	return p.newChunk(c)
}

func (p *Pool) newChunk(c int) (*chunk, error) {
	mem, err := p.Map(chunkSize)
	if err != nil {
		return nil, err
	}
	size := 1 << (c + minClassBits)
	ch, bufs := &chunk{class: int8(c), mem: mem}, make([]Buffer, chunkSize/size)
	for i := len(bufs) - 1; i >= 0; i-- {
		b := &bufs[i]
		b.mem = mem[i*size : (i+1)*size : (i+1)*size]
		b.home, b.pool, b.class, b.chunk = (*poolFriend)(p), p, ch.class, ch
		ch.free.Push(&b.link, b)
	}
	p.free[c].list(ch)
	return ch, nil
}

func (cl *class) list(ch *chunk) { cl.chunks.PushFront(&ch.node, ch) }

func (cl *class) unlist(ch *chunk) { cl.chunks.Remove(&ch.node) }

func (p *Pool) getBig(lg int) (*Buffer, error) {
	if b := p.big[lg].Pop(); b != nil {
		p.spare -= int64(len(b.mem))
		p.out++
		return b.Hand(0, 0), nil
	}
	return p.getExact(1 << lg)
}

// getExact maps a buffer of just this size, rounded up to a page.
func (p *Pool) getExact(size int) (*Buffer, error) {
	mem, err := p.Map((size + pageSize - 1) &^ (pageSize - 1))
	if err != nil {
		return nil, err
	}
	p.out++
	b := &Buffer{mem: mem, home: (*poolFriend)(p), pool: p, class: -1}
	return b.Hand(0, 0), nil
}

// PutBack takes back a buffer of this pool.
func (f *poolFriend) PutBack(b *Buffer) {
	p := (*Pool)(f)
	p.out--
	if b.class < 0 {
		p.putBig(b)
		return
	}
	ch, cl := b.chunk, &p.free[b.class]
	ch.free.Push(&b.link, b)
	ch.used--
	if ch.node.List() == nil {
		cl.list(ch)
	}
	if ch.used == 0 {
		cl.unlist(ch)
		p.rest(ch)
	}
}

// rest keeps a chunk that has no slab in use. If the pool keeps enough of them, the
// one that has waited longest goes back to the system. docs/performance.md says what
// mapping and unmapping in each turn cost.
func (p *Pool) rest(ch *chunk) {
	if p.orphan {
		_ = p.Unmap(ch.mem) // munmap of what mmap gave cannot fail
		return
	}
	if len(p.idle) >= maxIdle/chunkSize {
		_ = p.Unmap(p.idle[0].mem)
		p.idle = slices.Delete(p.idle, 0, 1)
	}
	p.idle = append(p.idle, ch)
}

func (p *Pool) putBig(b *Buffer) {
	size := int64(len(b.mem))
	if p.spare+size > maxSpare || p.orphan {
		mem := b.mem
		b.mem = nil
		_ = p.Unmap(mem)
		return
	}
	lg := bits.Len(uint(size - 1))
	p.big[lg].Push(&b.link, b)
	p.spare += size
}

// dropSpare returns all memory that no buffer uses to the system.
func (p *Pool) dropSpare() {
	for lg := range p.big {
		for b := p.big[lg].Pop(); b != nil; b = p.big[lg].Pop() {
			mem := b.mem
			b.mem = nil
			_ = p.Unmap(mem)
		}
	}
	p.spare = 0
	for _, ch := range p.idle {
		_ = p.Unmap(ch.mem)
	}
	p.idle = nil
}

// Stats returns the pool's counts.
func (p *Pool) Stats() PoolStats {
	return PoolStats{Outstanding: p.out, Mapped: p.mapped, Peak: p.peak, Limit: p.limit}
}

// Close returns all free memory to the system. The memory of buffers that still
// have an owner stays until they are released, and the error says how many there
// are.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.orphan {
		return &OpError{Op: "close pool", Err: ErrClosed}
	}
	p.orphan = true
	p.unlocked.Store(true)
	for b := p.foreign.Pop(); b != nil; b = p.foreign.Pop() {
		b.home.PutBack(b)
	}
	p.dropSpare()
	if p.out > 0 || p.mapped > 0 {
		return fmt.Errorf("buffer pool closed while %d buffers are in use (%d bytes stay mapped): %w", p.out, p.mapped, errLeak)
	}
	return nil
}

var errLeak = errors.New("buffers were not released")
