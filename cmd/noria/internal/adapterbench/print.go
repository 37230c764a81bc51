package adapterbench

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// print writes the report as text.
func (r *Report) print(out io.Writer) error {
	fmt.Fprintf(out, "%s  %d rounds; medians, (lowest..highest)\n", r.Time.Format("2006-01-02 15:04 MST"), r.Settings.Rounds)
	size := 0
	var w *tabwriter.Writer
	for _, row := range r.Rows {
		if row.Size != size {
			if w != nil {
				if err := w.Flush(); err != nil {
					return err
				}
			}
			size = row.Size
			fmt.Fprintf(out, "\nmessages of %d bytes, %d a round\n", size, row.Messages)
			w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "\tms a message\tCPU ms a message\tround trips\tfills\tflushes\tcopies a byte\tpeak buffer KiB\tpeak memory KiB")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.1f\t%.1f\t%.1f\t%.3f\t%d\t%.0f (%.0f..%.0f)\n", row.Contender, row.Milliseconds, row.CPU,
			row.RoundTrips, row.Fills, row.Flushes, row.Copies, row.PeakBuffer>>10,
			row.PeakMemory.Median/1024, row.PeakMemory.Min/1024, row.PeakMemory.Max/1024)
	}
	if w == nil {
		return nil
	}
	return w.Flush()
}

func (s Spread) String() string { return fmt.Sprintf("%.3f (%.3f..%.3f)", s.Median, s.Min, s.Max) }
