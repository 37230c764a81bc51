package echobench

import "math/bits"

// subBits is how many bits of a value its bucket distinguishes. 6 bits give an
// error of at most 1.6 %.
const subBits = 6

// A histogram counts durations in nanoseconds, in buckets that grow with the value,
// as HdrHistogram does. The zero value is empty. Adding costs a few instructions
// and never allocates.
type histogram struct {
	counts [(64 - subBits + 1) << subBits]uint64
	total  uint64
	max    int64
}

// add adds the duration ns n times.
func (h *histogram) add(ns int64, n int) {
	ns = max(ns, 0)
	h.counts[bucket(uint64(ns))] += uint64(n)
	h.total += uint64(n)
	h.max = max(h.max, ns)
}

func (h *histogram) reset() { *h = histogram{} }

// bucket returns the index of v's bucket. Values below 128 have a bucket each;
// above that, each power of two has 64.
func bucket(v uint64) int {
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift<<subBits + int(v>>shift)
}

// middle returns the value that represents bucket i.
func middle(i int) int64 {
	shift := max(i>>subBits-1, 0)
	low := uint64(i-shift<<subBits) << shift
	return int64(low + 1<<shift/2)
}

// quantile returns the duration that a share q of all durations do not exceed.
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
