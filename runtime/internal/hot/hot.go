// Package hot keeps a backend's few large receive buffers.
//
// They are few so that all of them stay in the processor's cache, and large
// so that a big message needs few of them; a receiver becomes the owner of the
// very buffer that the kernel filled. Few buffers that receivers hold is also
// how a server dies: whoever holds all of them stops everybody else. So below
// a low-water mark a receiver gets a copy of the right size from the pool, and
// the hot buffer is free again at once. Peers that make a server hold bytes
// can then use up memory of the pool, which has a limit of its own, and never
// the buffers that the others need.
package hot

import (
	"fmt"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/runtime"
)

const (
	// DefaultCount and DefaultSize are what measured best: see docs/performance.md.
	// One enter of a ring may fill a buffer for each connection that has bytes, and
	// a ring that runs empty ends each multishot receive that meets it, to be armed
	// anew. With 64 buffers and 100 busy connections that was the end of 95 receives
	// of 100, and a message took 8 % more CPU; with 256 of none.
	DefaultCount = 256
	DefaultSize  = 32 << 10

	// Headroom is what each buffer leaves free in front of what is received,
	// so that a protocol can put a header there.
	Headroom = 32
)

// A Set is the hot buffers of one runtime. It belongs to the loop's thread.
type Set struct {
	pool   *runtime.Pool
	slab   []byte
	bufs   []*runtime.Buffer
	held   int // with receivers
	low    int // copy when fewer than this would be free
	copied int64
	back   func(i uint32)
	closed bool
}

// fit returns how many buffers of this size there are by default: fewer, down to
// eight, where they would take more than a quarter of what the pool may map.
func fit(pool *runtime.Pool, size int) int {
	n := DefaultCount
	for limit := pool.Stats().Limit / 4; n > 8 && int64(n)*int64(size) > limit; {
		n /= 2
	}
	return n
}

// New maps count buffers of size bytes from pool; 0 means DefaultCount, or fewer
// if the pool is small. back is called, on the loop's thread, with the number
// of each buffer that a receiver has released.
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
		s.bufs = append(s.bufs, pool.Friend(friend.Key{}).NewBuffer(s, slab[i*size:(i+1)*size:(i+1)*size], uint32(i)))
	}
	return s, nil
}

// Count returns how many buffers there are.
func (s *Set) Count() int { return len(s.bufs) }

// Held returns how many are with receivers.
func (s *Set) Held() int { return s.held }

// Copied returns how many deliveries were copies because buffers were short.
func (s *Set) Copied() int64 { return s.copied }

// Short reports whether the next delivery would be a copy.
func (s *Set) Short() bool { return len(s.bufs)-s.held <= s.low }

// Target returns the memory of buffer i that the kernel may fill.
func (s *Set) Target(i uint32) []byte { return s.bufs[i].Friend(friend.Key{}).Memory()[Headroom:] }

// Deliver returns a buffer that holds the first n bytes of Target(i) and
// belongs to the receiver: buffer i itself, or, when buffers are short, a
// copy, and then kept is false and buffer i is still the backend's own. If the
// pool has no memory for a copy, the buffer itself goes out: bytes that
// arrived are never dropped.
func (s *Set) Deliver(i uint32, n int) (b *runtime.Buffer, kept bool) {
	if s.Short() {
		if b, err := s.pool.Copy(Headroom, s.Target(i)[:n]); err == nil {
			s.copied++
			return b, false
		}
	}
	s.held++
	return s.bufs[i].Hand(Headroom, Headroom+n), true
}

// Vacate moves what b holds out of this set's memory and into the pool's, if
// that is where it is; b itself, its owner and the operation that has it stay
// as they are. A backend does so before it lets a send wait for a peer: peers
// that do not read must not hold hot buffers. It reports whether b's memory is
// not (or no longer) the set's; where the pool has no memory, or somebody else
// looks at these bytes too, they stay.
func (s *Set) Vacate(b *runtime.Buffer) bool {
	if b.Friend(friend.Key{}).Home() != s {
		return true
	}
	c, err := s.pool.Get(Headroom + b.Friend(friend.Key{}).Len())
	if err != nil {
		return false
	}
	if !b.Friend(friend.Key{}).Exchange(c, Headroom) {
		c.Release()
		return false
	}
	s.bufs[c.Friend(friend.Key{}).Index()] = c
	c.Release()
	return true
}

// PutBack takes back a buffer that its last owner has released.
func (s *Set) PutBack(b *runtime.Buffer) {
	s.held--
	if !s.closed {
		s.back(b.Friend(friend.Key{}).Index())
		return
	}
	if s.held == 0 {
		_ = s.pool.Unmap(s.slab)
	}
}

// Close gives the memory back. It is for after the kernel has let go of it.
// If receivers still hold buffers, their memory stays mapped until the last
// is released, and the error says so.
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
