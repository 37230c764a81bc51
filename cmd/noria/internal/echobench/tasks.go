package echobench

import (
	"context"
	"fmt"
	"io"
)

// A Comparison compares a task per connection with bare callbacks on the same
// backend: ratios of task to callback over the rounds, in which both were measured
// one right after the other.
type Comparison struct {
	rowKey
	Backend   string    `json:"backend"`
	PerSecond *Interval `json:"messages_per_second"`
	CPU       *Interval `json:"cpu_us_per_message"`
	Row       *Row      `json:"row"`
}

// runTasks compares both on each backend and in each row.
func (b *bench) runTasks(ctx context.Context, backends []string, progress io.Writer) (*Report, error) {
	b.tie()
	report := b.newReport()
	for _, backend := range backends {
		var err error
		if b.contenders, err = choose([]string{protoTCP}, []string{backend, backend + callback}); err != nil {
			return nil, err
		}
		for _, key := range b.rows() {
			row, err := b.runRow(ctx, key, progress)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
			report.Tasks = append(report.Tasks, compareTasks(backend, row))
		}
	}
	report.Notes = b.notes
	return report, nil
}

func compareTasks(backend string, row *Row) *Comparison {
	v := newVersus(row.Contenders[0], row.Contenders[1])
	return &Comparison{rowKey: row.rowKey, Backend: backend, Row: row, PerSecond: v.PerSecond, CPU: v.CPU}
}

func (c *Comparison) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s, %s: a task per connection against bare callbacks (1.00: equal), 95 %% intervals\n", c.Backend, c.rowKey)
	for _, line := range []struct {
		name string
		i    *Interval
	}{{"messages/s", c.PerSecond}, {"CPU per message", c.CPU}} {
		if line.i == nil {
			fmt.Fprintf(out, "  %-16s one round is not enough\n", line.name)
			continue
		}
		fmt.Fprintf(out, "  %-16s %.3f  (%.3f to %.3f, %d pairs)\n", line.name, line.i.Ratio, line.i.Low, line.i.High, line.i.Pairs)
	}
	busy := c.Row.Contenders
	fmt.Fprintf(out, "  %-16s %.0f %% and %.0f %%\n", "server busy", 100*busy[0].Busy.Median, 100*busy[1].Busy.Median)
}
