package hot_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/runtime/internal/hot"
)

// A send that waits for its peer vacates hot memory. Its owner gets the same buffer
// back, with the same bytes.
func TestVacate(t *testing.T) {
	pool := runtime.NewPool(0)
	var back []uint32
	set, err := hot.New(pool, 2, 4096, func(i uint32) { back = append(back, i) })
	require.NoError(t, err)
	text := strings.Repeat("noria", 100)
	copy(set.Target(1), text)
	b, kept := set.Deliver(1, len(text))
	require.True(t, kept)

	op := &runtime.Op{Code: runtime.OpSend, Buf: b, Done: func(*runtime.Op) {}}
	require.NoError(t, op.Begin())
	require.True(t, set.Vacate(b))
	require.Equal(t, []uint32{1}, back, "the hot buffer is free while the send waits")
	require.Zero(t, set.Held())
	copy(set.Target(1), strings.Repeat("x", len(text)))
	require.Equal(t, text, string(op.Unsent(0)))
	op.Complete(len(text), 0, nil)
	require.Equal(t, text, string(b.Bytes()))
	require.Equal(t, hot.Headroom, b.Headroom())
	require.True(t, set.Vacate(b), "its contents are in the pool already")
	b.Release()
	require.Equal(t, []uint32{1}, back)

	again, kept := set.Deliver(1, 3)
	require.True(t, kept)
	require.Equal(t, "xxx", string(again.Bytes()))
	again.Retain()
	require.False(t, set.Vacate(again), "another owner could see it move")
	runtime.Drop(again, again)
	require.NoError(t, set.Close())
	require.NoError(t, pool.Close())
}

// The default leaves most of a small pool to other users.
func TestDefaultFits(t *testing.T) {
	for limit, want := range map[int64]int{0: hot.DefaultCount, 4 << 20: 32, 512 << 10: 8} {
		pool := runtime.NewPool(limit)
		set, err := hot.New(pool, 0, 32<<10, func(uint32) {})
		require.NoError(t, err)
		require.Equal(t, want, set.Count())
		require.NoError(t, set.Close())
		require.NoError(t, pool.Close())
	}
}
