package loop

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/runtime"
)

// TestTimersAgainstReference does the same random steps on the heap and on a map, and
// compares.
func TestTimersAgainstReference(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var (
		ts    timers
		all   [200]timer
		want  = map[int]int64{} // armed timers and their times
		fired []int
		now   int64
	)
	for i := range all {
		all[i].fire = func() { fired = append(fired, i) }
	}
	for range 20000 {
		i := r.IntN(len(all))
		switch r.IntN(10) {
		case 0, 1, 2, 3, 4, 5:
			when := now + int64(r.IntN(1000)) - 100
			ts.set(&all[i], when)
			want[i] = when
		case 6, 7:
			ts.stop(&all[i])
			delete(want, i)
		default:
			now += int64(r.IntN(50))
			fired = fired[:0]
			require.Equal(t, len(due(want, now)), ts.expire(now))
			require.ElementsMatch(t, due(want, now), fired)
			require.True(t, slices.IsSortedFunc(fired, func(a, b int) int { return int(all[a].when - all[b].when) }))
			for _, i := range fired {
				delete(want, i)
			}
		}
		next := runtime.Forever
		for _, when := range want {
			next = min(next, when)
		}
		require.Equal(t, next, ts.next())
		require.Len(t, ts.heap, len(want))
	}
}

func due(want map[int]int64, now int64) (list []int) {
	for i, when := range want {
		if when <= now {
			list = append(list, i)
		}
	}
	return list
}

// A timer that arms itself for the past does not keep expire busy for ever, and a timer
// that another one moves to a later time does not fire.
func TestTimersEndWhileArming(t *testing.T) {
	var (
		ts          timers
		again, late timer
		fired       int
	)
	again.fire = func() {
		fired++
		ts.set(&again, 0)
		ts.set(&late, 11)
	}
	late.fire = func() { t.Error("it fired early") }
	ts.set(&again, 5)
	require.Equal(t, 1, ts.expire(10))
	require.Equal(t, 1, fired)
	require.LessOrEqual(t, ts.expire(10), 2, "no more than there are timers")
	ts.stop(&late)
	ts.stop(&again)
	ts.stop(&again)
	require.Equal(t, runtime.Forever, ts.next())
}

func TestRing(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var (
		q    ring[int]
		want []int
	)
	for i := range 20000 {
		switch n := r.IntN(10); {
		case n < 5:
			q.push(i)
			want = append(want, i)
		case n == 5:
			q.unpop(i)
			want = append([]int{i}, want...)
		case len(want) > 0:
			require.Equal(t, want[0], *q.peek(0))
			require.Equal(t, want[len(want)-1], *q.peek(len(want) - 1))
			require.Equal(t, want[0], q.pop())
			want = want[1:]
		}
		require.Equal(t, len(want), q.len())
	}
}
