package echobench

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// A Versus compares a contender of a Row with another one: ratios over the rounds,
// in which each was measured once.
type Versus struct {
	Name      string    `json:"name"`
	Against   string    `json:"against"`
	PerSecond *Interval `json:"messages_per_second"`
	CPU       *Interval `json:"cpu_us_per_message"`

	// AtLeast is set if the contender was idle at times, so that its true ratio of
	// messages per second may be higher. AtMost is set if the other one was. CPU per
	// message is valid in both cases.
	AtLeast bool `json:"at_least"`
	AtMost  bool `json:"at_most"`
}

// versus compares the servers of package ws with each peer, with examples/gobwas,
// and with TCP alone on the same backend.
func versus(list []contender, row *Row) (all []*Versus) {
	for i, c := range list {
		if !c.isWS() {
			continue
		}
		for j, d := range list {
			peer := d.command != "" && d.proto == c.proto
			ours := d.server.backend == c.server.backend && d.server.kind != kindCallback
			if i != j && (peer || ours) {
				all = append(all, newVersus(row.Contenders[i], row.Contenders[j]))
			}
		}
	}
	return all
}

func newVersus(a, b *Result) *Versus {
	of := func(f func(measurement) float64) *Interval {
		var sides [2][]float64
		for i, r := range []*Result{a, b} {
			for _, m := range r.Rounds {
				sides[i] = append(sides[i], f(m))
			}
		}
		return pairedRatio(sides[0], sides[1])
	}
	return &Versus{Name: a.Name, Against: b.Name, AtLeast: a.ClientBound, AtMost: b.ClientBound,
		PerSecond: of(func(m measurement) float64 { return m.PerSecond }),
		CPU:       of(func(m measurement) float64 { return m.CPU })}
}

// printVersus prints the comparisons of package ws, one per line.
func (row *Row) printVersus(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	name := ""
	for _, v := range row.Versus {
		if v.PerSecond == nil {
			continue // one round is not enough
		}
		if v.Name != name {
			name = v.Name
			fmt.Fprintf(w, "%s against\tmessages/s\t\tCPU/msg\t\t\n", name)
		}
		bound := ""
		switch {
		case v.AtLeast && v.AtMost:
			bound = "?"
		case v.AtLeast:
			bound = ">"
		case v.AtMost:
			bound = "<"
		}
		fmt.Fprintf(w, "  %s\t%s%.2f\t(%.2f to %.2f)\t%.2f\t(%.2f to %.2f)\n", v.Against, bound,
			v.PerSecond.Ratio, v.PerSecond.Low, v.PerSecond.High, v.CPU.Ratio, v.CPU.Low, v.CPU.High)
	}
	return w.Flush()
}
