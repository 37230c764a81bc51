package echobench

import (
	"math"
	"slices"
)

// A Spread is the median of some values, with the lowest and the highest.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spread returns the Spread of values, or nil if there are none.
func spread(values []float64) *Spread {
	if len(values) == 0 {
		return nil
	}
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return &Spread{Median: (s[(n-1)/2] + s[n/2]) / 2, Min: s[0], Max: s[n-1]}
}

// An Interval is an estimate with its 95 % confidence interval.
type Interval struct {
	Ratio float64 `json:"ratio"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
	Pairs int     `json:"pairs"`
}

// pairedRatio estimates the ratio of a to b from pairs: a[i] and b[i] were measured
// in the same round. It averages logarithms of ratios, so that a/b and b/a give the
// same result, and uses Student's distribution for the bounds. It returns nil for
// fewer than two pairs.
func pairedRatio(a, b []float64) *Interval {
	n := min(len(a), len(b))
	if n < 2 {
		return nil
	}
	logs := make([]float64, n)
	mean := 0.0
	for i := range n {
		logs[i] = math.Log(a[i] / b[i])
		mean += logs[i] / float64(n)
	}
	sum := 0.0
	for _, l := range logs {
		sum += (l - mean) * (l - mean)
	}
	half := student95(n-1) * math.Sqrt(sum/float64(n-1)/float64(n))
	return &Interval{Ratio: math.Exp(mean), Low: math.Exp(mean - half), High: math.Exp(mean + half), Pairs: n}
}

// student are the 97.5 % quantiles of Student's distribution for 1 to 30 degrees of
// freedom.
var student = [...]float64{12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
	2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
	2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042}

// student95 returns the quantile for a two-sided 95 % interval.
func student95(freedom int) float64 {
	if freedom <= len(student) {
		return student[freedom-1]
	}
	const z = 1.959964
	n := float64(freedom)
	return z + (z*z*z+z)/(4*n) + (5*z*z*z*z*z+16*z*z*z+3*z)/(96*n*n) // Cornish and Fisher's expansion
}
