package echobench

import "math/bits"

// subBits is how many bits of a value a bucket tells apart: 1/64 is an error
// of at most 1.6 %.
const subBits = 6

// A histogram counts durations in nanoseconds, in buckets that grow with the
// value, as HdrHistogram does. The zero value is empty; adding costs a few
// instructions and never allocates.
type histogram struct {
	counts [(64 - subBits + 1) << subBits]uint64
	total  uint64
	max    int64
}

// add adds n times the same.
func (h *histogram) add(ns int64, n int) {
	ns = max(ns, 0)
	h.counts[bucket(uint64(ns))] += uint64(n)
	h.total += uint64(n)
	h.max = max(h.max, ns)
}

func (h *histogram) reset() { *h = histogram{} }

// bucket: values below 128 have one each; above, each power of two has 64.
func bucket(v uint64) int {
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift<<subBits + int(v>>shift)
}

// middle is the value that stands for a bucket.
func middle(i int) int64 {
	shift := max(i>>subBits-1, 0)
	low := uint64(i-shift<<subBits) << shift
	return int64(low + 1<<shift/2)
}

// quantile returns the value that a share q of all are not above.
func (h *histogram) quantile(q float64) int64 {
	if h.total == 0 {
		return 0
	}
	rank := max(uint64(q*float64(h.total)+0.5), 1)
	seen := uint64(0)
	for i, n := range h.counts {
		if seen += n; seen >= rank {
			return min(middle(i), h.max)
		}
	}
	return h.max
}
