package echobench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// print writes the report as text.
func (r *Report) print(out io.Writer) error {
	fmt.Fprintf(out, "%s  Linux %s  %s  %d CPUs  %s\n", r.Time.Format("2006-01-02 15:04 MST"), r.Kernel, r.Processor, r.CPUs, r.Go)
	if r.ServerCPU >= 0 {
		fmt.Fprintf(out, "server on CPU %d, client on CPU %d, ", r.ServerCPU, r.ClientCPU)
	}
	fmt.Fprintf(out, "%d rounds of %v after %v of warm-up; medians, (lowest..highest)\n", r.Settings.Rounds, r.Settings.Window, r.Settings.Warm)
	for _, row := range r.Rows {
		if err := row.print(out); err != nil {
			return err
		}
	}
	for _, c := range r.Tasks {
		c.print(out)
	}
	if r.has(func(c *Result) bool { return c.ClientBound }) {
		fmt.Fprintf(out, "\n*  bound by the client: the server was less than %.0f %% busy, so there is no ratio; CPU per message is valid\n", saturated*100)
	}
	if slices.ContainsFunc(r.Rows, func(row *Row) bool { return len(row.Versus) > 0 && row.Versus[0].PerSecond != nil }) {
		fmt.Fprint(out, "\nagainst: ratios over the rounds with 95 % confidence intervals; > at least, < at most, ? unknown, because one or both servers were idle at times\n")
	}
	if r.has(func(c *Result) bool { return c.Disturbed }) {
		fmt.Fprint(out, "!  disturbed: another process used the server's CPU\n")
	}
	for _, n := range r.Notes {
		fmt.Fprintf(out, "\nnote: %s\n", n)
	}
	return nil
}

func (r *Report) has(f func(*Result) bool) bool {
	for _, row := range r.Rows {
		for _, c := range row.Contenders {
			if f(c) {
				return true
			}
		}
	}
	return false
}

func (row *Row) print(out io.Writer) error {
	fmt.Fprintf(out, "\n%s\n", row.rowKey)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "contender\tmessages/s\t\tx net\tbusy\tCPU µs/msg\tp50 µs\tp99 µs\tp99.9 µs\tcalls/msg\tallocs/msg\t\n")
	for _, c := range row.Contenders {
		fmt.Fprintf(w, "%s\t%.0f\t(%.0f..%.0f)\t%s\t%.0f%%%s\t%s\t%.0f\t%.0f\t%.0f\t%s\t%s\t\n", c.Name,
			c.PerSecond.Median, c.PerSecond.Min, c.PerSecond.Max, c.ratio(), 100*c.Busy.Median, c.marks(), number(c.CPU, "%.2f"),
			c.P50.Median, c.P99.Median, c.P999.Median, number(c.Calls, "%.2f"), number(c.Allocs, "%.3f"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return row.printVersus(out)
}

func (c *Result) ratio() string {
	switch {
	case c.Ratio != nil:
		return fmt.Sprintf("%.2f", *c.Ratio)
	case c.TailRatio != nil:
		return fmt.Sprintf("p99.9 %.2f", *c.TailRatio)
	}
	return "-"
}

func (c *Result) marks() string {
	var s strings.Builder
	if c.ClientBound {
		s.WriteByte('*')
	}
	if c.Disturbed {
		s.WriteByte('!')
	}
	return s.String()
}

func number(s *Spread, format string) string {
	if s == nil {
		return "n/a"
	}
	return fmt.Sprintf(format, s.Median)
}
