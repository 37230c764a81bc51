// Package hot manages the few large receive buffers of a backend.
//
// They are few so that all stay in the CPU cache, and large so that a big message
// needs few of them. The receiver becomes the owner of the buffer that the kernel
// filled.
//
// Receivers that hold all buffers would stop all other connections. So when free
// buffers fall to a low-water mark, a receiver gets a copy of the right size from
// the pool, and the hot buffer is free again at once. Peers that make a server hold
// bytes then use up memory of the pool, which has its own limit, and not the
// buffers that the others need.
package hot

import (
	"fmt"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/runtime"
)

var key friend.Key // opens what only this module may call: see internal/friend

const (
	// DefaultCount and DefaultSize measured best: see docs/performance.md. One enter
	// of a ring may fill a buffer for each connection that has bytes. When the ring
	// runs out of buffers, each multishot receive that needs one ends and must be
	// armed again. With 64 buffers and 100 busy connections that ended 95 of 100
	// receives and cost 8 % more CPU per message; with 256 it ended none.
	DefaultCount = 256
	DefaultSize  = 32 << 10

	// Headroom is how many bytes each buffer leaves free before the received ones,
	// so that a protocol can put a header there.
	Headroom = 32
)

// A Set is the hot buffers of one runtime. Only the loop's thread may use it.
type Set struct {
	pool   *runtime.Pool
	slab   []byte
	bufs   []*runtime.Buffer
	held   int // number of buffers that receivers hold
	low    int // copy if fewer than this would stay free
	copied int64
	back   func(i uint32)
	closed bool
}

// fit returns the default number of buffers of this size: DefaultCount, halved
// until they take at most a quarter of the pool's limit, but at least 8.
func fit(pool *runtime.Pool, size int) int {
	n := DefaultCount
	for limit := pool.Friend(key).Stats().Limit / 4; n > 8 && int64(n)*int64(size) > limit; {
		n /= 2
	}
	return n
}

// New maps count buffers of size bytes from pool. 0 means DefaultCount, or fewer if
// the pool is small. back is called on the loop's thread with the index of each
// buffer that a receiver has released.
func New(pool *runtime.Pool, count, size int, back func(i uint32)) (*Set, error) {
	if count == 0 {
		count = fit(pool, size)
	}
	slab, err := pool.Map(count * size)
	if err != nil {
		return nil, fmt.Errorf("%d receive buffers of %d bytes: %w", count, size, err)
	}
	s := &Set{pool: pool, slab: slab, low: (count + 1) / 2, back: back}
	for i := range count {
		s.bufs = append(s.bufs, pool.Friend(key).NewBuffer(s, slab[i*size:(i+1)*size:(i+1)*size], uint32(i)))
	}
	return s, nil
}

// Count returns the number of buffers.
func (s *Set) Count() int { return len(s.bufs) }

// Held returns how many buffers receivers hold.
func (s *Set) Held() int { return s.held }

// Copied returns how many deliveries were copies because buffers were short.
func (s *Set) Copied() int64 { return s.copied }

// Short reports whether the next delivery would be a copy.
func (s *Set) Short() bool { return len(s.bufs)-s.held <= s.low }

// Target returns the memory of buffer i for the kernel to fill.
func (s *Set) Target(i uint32) []byte { return s.bufs[i].Friend(key).Memory()[Headroom:] }

// Deliver returns a buffer with the first n bytes of Target(i), which then belongs
// to the receiver. It is buffer i itself, with kept set. If buffers are short, it
// is a copy, kept is false, and the backend keeps buffer i. If the pool has no
// memory for a copy, Deliver returns buffer i, because received bytes are never
// dropped.
func (s *Set) Deliver(i uint32, n int) (b *runtime.Buffer, kept bool) {
	if s.Short() {
		if b, err := s.pool.Friend(key).Copy(Headroom, s.Target(i)[:n]); err == nil {
			s.copied++
			return b, false
		}
	}
	s.held++
	return s.bufs[i].Hand(Headroom, Headroom+n), true
}

// Vacate moves the contents of b from the set's memory into the pool's, if they are
// in the set's. b itself, its owner and its operation stay the same. A backend
// calls it before a send waits for its peer, so that peers that do not read hold no
// hot buffers. It returns false if the contents stay in the set's memory: the pool
// has no memory, or they are shared.
func (s *Set) Vacate(b *runtime.Buffer) bool {
	if b.Friend(key).Home() != s {
		return true
	}
	c, err := s.pool.Get(Headroom + b.Friend(key).Len())
	if err != nil {
		return false
	}
	if !b.Friend(key).Exchange(c, Headroom) {
		c.Release()
		return false
	}
	s.bufs[c.Friend(key).Index()] = c
	c.Release()
	return true
}

// PutBack takes back a buffer whose last owner has released it.
func (s *Set) PutBack(b *runtime.Buffer) {
	s.held--
	if !s.closed {
		s.back(b.Friend(key).Index())
		return
	}
	if s.held == 0 {
		_ = s.pool.Unmap(s.slab)
	}
}

// Close frees the memory. The kernel must no longer use it. If receivers still hold
// buffers, the memory stays mapped until the last of them is released, and Close
// returns an error.
func (s *Set) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	if s.held == 0 {
		return s.pool.Unmap(s.slab)
	}
	return fmt.Errorf("%d of %d receive buffers were not released", s.held, len(s.bufs))
}
