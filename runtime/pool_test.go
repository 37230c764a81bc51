package runtime

import (
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/friend"
)

var key friend.Key // opens what only this module may call: see internal/friend

// get takes a buffer of this size.
func get(t *testing.T, p *Pool, size int) *Buffer {
	t.Helper()
	b, err := p.Get(size)
	require.NoError(t, err)
	return b
}

// take gets buffers of this size, so many bytes of them.
func take(t *testing.T, p *Pool, size, bytes int) (held []*Buffer) {
	t.Helper()
	for range bytes / size {
		held = append(held, get(t, p, size))
	}
	return held
}

func TestPoolSizes(t *testing.T) {
	p := NewPool(0)
	for size, want := range map[int]int{0: 512, 1: 512, 512: 512, 513: 1024, 4096: 4096, 4097: 8192, 65536: 65536,
		65537: 131072, 8 << 20: 8 << 20, 8<<20 + 1: 8<<20 + 4096, 9 << 20: 9 << 20} {
		b, err := p.Get(size)
		require.NoError(t, err)
		require.Equal(t, want, b.Friend(key).Cap(), "for %d", size)
		require.Zero(t, b.Len())
		require.Zero(t, b.Friend(key).Headroom())
		b.Release()
	}
	require.Zero(t, p.Friend(key).Stats().Outstanding)
	_, err := p.Get(maxBuffer + 1)
	require.ErrorIs(t, err, ErrNoBuffers)
	require.NoError(t, p.Close())
	require.Zero(t, p.Friend(key).Stats().Mapped)
	require.ErrorIs(t, p.Close(), ErrClosed)
}

func TestPoolCopy(t *testing.T) {
	p := NewPool(0)
	b, err := p.Friend(key).Copy(16, []byte("payload"))
	require.NoError(t, err)
	require.Equal(t, "payload", string(b.Bytes()))
	require.Equal(t, 16, b.Friend(key).Headroom())
	b.Release()
	require.NoError(t, p.Close())
}

// TestPoolLimit: at the limit the pool says so, gives up what nobody uses, and
// goes on when something comes back.
func TestPoolLimit(t *testing.T) {
	p := NewPool(chunkSize)
	var held []*Buffer
	for {
		b, err := p.Get(64 << 10)
		if err != nil {
			require.ErrorIs(t, err, ErrNoBuffers)
			break
		}
		held = append(held, b)
	}
	require.Len(t, held, 4)
	require.EqualValues(t, chunkSize, p.Friend(key).Stats().Mapped)
	_, err := p.Get(512)
	require.ErrorIs(t, err, ErrNoBuffers, "of another size")
	held[3].Release()
	held[3], err = p.Get(64 << 10)
	require.NoError(t, err)
	for _, b := range held {
		b.Release()
	}
	b, err := p.Get(512) // the other class's chunk makes way
	require.NoError(t, err)
	b.Release()
	require.NoError(t, p.Close())
}

// TestPoolGivesBack: maxIdle bytes of free chunks are kept, the others go back;
// those that were used last stay, whatever their class.
func TestPoolGivesBack(t *testing.T) {
	p := NewPool(0)
	for _, b := range take(t, p, 512, 3*chunkSize) {
		b.Release()
	}
	require.EqualValues(t, 3*chunkSize, p.Friend(key).Stats().Mapped)
	for _, b := range take(t, p, 512, 2*maxIdle) {
		b.Release()
	}
	require.EqualValues(t, maxIdle, p.Friend(key).Stats().Mapped)
	require.EqualValues(t, 2*maxIdle, p.Friend(key).Stats().Peak)

	for _, b := range take(t, p, 4096, maxIdle) {
		b.Release()
	}
	require.EqualValues(t, maxIdle, p.Friend(key).Stats().Mapped)
	held := take(t, p, 4096, maxIdle) // none is mapped anew
	require.EqualValues(t, maxIdle, p.Friend(key).Stats().Mapped)
	for _, b := range held {
		b.Release()
	}
	require.NoError(t, p.Close())
	require.Zero(t, p.Friend(key).Stats().Mapped)
}

// TestPoolKeepsItsChunks: what is taken and given back over and over is not
// mapped over and over.
func TestPoolKeepsItsChunks(t *testing.T) {
	p := NewPool(0)
	for round := range 50 {
		held := take(t, p, 8192, 2*chunkSize)
		for _, b := range held {
			if mem := b.Room(); round == 0 {
				mem[0] = 1
			} else {
				require.EqualValues(t, 1, mem[0], "what is mapped anew is zero")
			}
		}
		for _, b := range held {
			b.Release()
		}
	}
	require.NoError(t, p.Close())
}

// TestPoolWithoutMemory: where the system has no more, what nobody uses goes back
// to it first, as at the pool's own limit.
func TestPoolWithoutMemory(t *testing.T) {
	p := NewPool(math.MaxInt64)
	get(t, p, 512).Release()
	get(t, p, 1<<20).Release()
	require.EqualValues(t, chunkSize+1<<20, p.Friend(key).Stats().Mapped)
	huge := math.MaxInt &^ (1<<16 - 1) // more than any address space; on 32-bit processors, two of them
	mem, err := p.Map(huge)
	if err == nil {
		_, err = p.Map(huge)
		require.NoError(t, p.Unmap(mem))
	}
	require.ErrorIs(t, err, ErrNoBuffers)
	require.Zero(t, p.Friend(key).Stats().Mapped)
	get(t, p, 512).Release()
	require.NoError(t, p.Close())
}

// TestPoolExchange: a chunk is its class's although the buffers that were made
// with it have another's memory now.
func TestPoolExchange(t *testing.T) {
	p := NewPool(0)
	small, large := get(t, p, 512), get(t, p, 32<<10)
	require.True(t, large.Friend(key).Exchange(small, 0))
	small.Release()
	large.Release() // both chunks are free now
	for range 3 {
		small, large = get(t, p, 512), get(t, p, 32<<10)
		require.Len(t, small.Room(), 512)
		require.Len(t, large.Room(), 32<<10)
		small.Release()
		large.Release()
	}
	require.EqualValues(t, 2*chunkSize, p.Friend(key).Stats().Mapped)
	require.NoError(t, p.Close())
}

func TestPoolCloseWithOutstanding(t *testing.T) {
	p := NewPool(0)
	small, big := get(t, p, 512), get(t, p, 1<<20)
	copy(big.Room(), "still there")
	require.ErrorContains(t, p.Close(), "2 buffers are in use")
	big.Extend(11)
	require.Equal(t, "still there", string(big.Bytes()))
	var wg sync.WaitGroup
	wg.Go(small.Release)
	wg.Go(big.Release)
	wg.Wait()
	require.Zero(t, p.Friend(key).Stats().Mapped)
}

// TestPoolForeign: buffers that other goroutines release wait for the loop,
// which is woken once.
func TestPoolForeign(t *testing.T) {
	var (
		mine  = true
		mu    sync.Mutex
		wakes int
	)
	p := NewPool(0)
	p.Friend(key).Bind(func() bool { mu.Lock(); defer mu.Unlock(); return mine }, func() { mu.Lock(); defer mu.Unlock(); wakes++ })
	var held []*Buffer
	for range 100 {
		b, err := p.Get(512)
		require.NoError(t, err)
		held = append(held, b)
	}
	mu.Lock()
	mine = false
	mu.Unlock()
	var wg sync.WaitGroup
	for _, b := range held {
		wg.Go(b.Release)
	}
	wg.Wait()
	require.Equal(t, 100, p.Friend(key).Stats().Outstanding)
	require.Equal(t, 1, wakes)
	p.Friend(key).Collect()
	require.Zero(t, p.Friend(key).Stats().Outstanding)
	p.Friend(key).Collect()
	require.NoError(t, p.Close())
}

func TestPoolMap(t *testing.T) {
	p := NewPool(1 << 20)
	mem, err := p.Map(1 << 20)
	require.NoError(t, err)
	_, err = p.Map(1)
	require.ErrorIs(t, err, ErrNoBuffers)
	require.True(t, errors.Is(p.Close(), errLeak), "mapped memory is counted")
	require.NoError(t, p.Unmap(mem))
}

// TestPoolRandom takes and gives back at random; no two buffers may ever
// share a byte.
func TestPoolRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	p := NewPool(64 << 20)
	type owned struct {
		b    *Buffer
		mark byte
	}
	var held []owned
	for range 20000 {
		if len(held) > 0 && r.IntN(len(held)+20) < len(held) {
			i := r.IntN(len(held))
			o := held[i]
			mem := o.b.Friend(key).Memory()
			require.Equal(t, o.mark, mem[0])
			require.Equal(t, o.mark, mem[len(mem)-1])
			o.b.Release()
			held[i] = held[len(held)-1]
			held = held[:len(held)-1]
			continue
		}
		b, err := p.Get(1 << r.IntN(19))
		require.NoError(t, err)
		o := owned{b, byte(r.Uint32())}
		mem := b.Friend(key).Memory()
		mem[0], mem[len(mem)-1] = o.mark, o.mark
		held = append(held, o)
		require.Equal(t, len(held), p.Friend(key).Stats().Outstanding)
	}
	for _, o := range held {
		o.b.Release()
	}
	require.NoError(t, p.Close())
	require.Zero(t, p.Friend(key).Stats().Mapped)
}
