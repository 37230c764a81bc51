package echobench

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHistogramQuantiles(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var h histogram
	var all []int64
	for range 100_000 {
		v := int64(math.Exp(random.Float64() * 25)) // up to 72 seconds
		h.add(v, 1)
		all = append(all, v)
	}
	slices.Sort(all)
	for _, q := range []float64{0.001, 0.5, 0.9, 0.99, 0.999, 1} {
		want := float64(all[int(q*float64(len(all)-1))])
		require.InEpsilon(t, want, float64(h.quantile(q)), 0.02, "quantile %v", q)
	}
	require.Equal(t, all[len(all)-1], h.max)
	h.reset()
	require.Zero(t, h.quantile(0.5))
}

// Every value has a bucket. Buckets are in order, and the middle of each is near
// its values.
func TestHistogramBuckets(t *testing.T) {
	var h histogram
	for shift := range 63 {
		for _, v := range []uint64{1<<shift - 1, 1 << shift, 1<<shift + 1, 1<<shift + 1<<shift/3} {
			i := bucket(v)
			require.Less(t, i, len(h.counts))
			require.LessOrEqual(t, bucket(max(v, 1)-1), i)
			require.InDelta(t, float64(v), float64(middle(i)), float64(v)/64+0.5, "%d", v)
		}
	}
	h.add(math.MaxInt64, 1)
	h.add(-1, 1) // a clock that went backwards
	require.EqualValues(t, 2, h.total)
}

func TestSpread(t *testing.T) {
	require.Nil(t, spread(nil))
	require.Equal(t, &Spread{3, 3, 3}, spread([]float64{3}))
	require.Equal(t, &Spread{2, 1, 9}, spread([]float64{9, 1, 2}))
	require.Equal(t, &Spread{2.5, 1, 9}, spread([]float64{9, 1, 2, 3}))
}

func TestPairedRatio(t *testing.T) {
	require.Nil(t, pairedRatio([]float64{1}, []float64{1}))
	same := pairedRatio([]float64{2, 4, 6}, []float64{1, 2, 3})
	require.InDelta(t, 2, same.Ratio, 1e-9)
	require.InDelta(t, 2, same.Low, 1e-9)
	require.InDelta(t, 2, same.High, 1e-9)
	// Computed by hand: logarithms 0.1, 0.2, 0.3; deviation 0.1; 4.303 * 0.1 / sqrt(3).
	i := pairedRatio([]float64{math.Exp(0.1), math.Exp(0.2), math.Exp(0.3)}, []float64{1, 1, 1})
	require.InDelta(t, 0.2, math.Log(i.Ratio), 1e-9)
	require.InDelta(t, 0.2-0.24843, math.Log(i.Low), 1e-4)
	require.InDelta(t, 0.2+0.24843, math.Log(i.High), 1e-4)
}

// 95 of 100 intervals contain the true ratio.
func TestPairedRatioCovers(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	const truth, trials = 1.03, 2000
	for _, pairs := range []int{3, 10, 40} {
		hit := 0
		for range trials {
			a, b := make([]float64, pairs), make([]float64, pairs)
			for i := range pairs {
				drift := math.Exp(random.NormFloat64()) // of the machine, the same for both
				a[i], b[i] = truth*drift*math.Exp(0.05*random.NormFloat64()), drift
			}
			if r := pairedRatio(a, b); r.Low <= truth && truth <= r.High {
				hit++
			}
		}
		require.InDelta(t, 0.95, float64(hit)/trials, 0.02, "%d pairs", pairs)
	}
}

func TestStudentGoesOnSmoothly(t *testing.T) {
	require.InDelta(t, 2.040, student95(31), 0.002)
	require.InDelta(t, 1.984, student95(100), 0.002)
}
