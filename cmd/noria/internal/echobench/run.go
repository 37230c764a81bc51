package echobench

import (
	"context"
	"fmt"
	"io"
)

// run measures every row.
func (b *bench) run(ctx context.Context, progress io.Writer) (*Report, error) {
	b.tie()
	report := b.newReport()
	for _, row := range b.rows() {
		result, err := b.runRow(ctx, row, progress)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", row, err)
		}
		report.Rows = append(report.Rows, result)
	}
	report.Notes = b.notes
	return report, nil
}

// tie chooses a CPU for the server and one for the client.
func (b *bench) tie() {
	b.serverCPU, b.clientCPU = -1, -1
	cpus := allowedCPUs()
	b.cpus = max(len(cpus), 1)
	if len(cpus) < 2 {
		b.note("there are fewer than two CPUs: server and client share them, so the results cannot be compared")
		return
	}
	b.serverCPU, b.clientCPU = cpus[0], cpus[1]
}

func (b *bench) rows() (rows []rowKey) {
	for _, size := range b.Sizes {
		for _, conns := range b.Conns {
			for _, outstanding := range b.Outstanding {
				rows = append(rows, rowKey{Size: size, Conns: conns, Outstanding: outstanding})
			}
		}
	}
	if b.Garbage {
		rows = append(rows, garbageRow)
	}
	return rows
}

// garbageRow has few connections and small messages, so that only waiting can cause
// latency.
var garbageRow = rowKey{Size: 64, Conns: 10, Outstanding: 1, Garbage: true}

// runRow measures each contender once per round. Each round begins with another
// contender, so that none always follows the same one.
func (b *bench) runRow(ctx context.Context, row rowKey, progress io.Writer) (*Row, error) {
	var list []contender
	for _, c := range b.contenders {
		if !row.Garbage || c.canLoad() {
			list = append(list, c)
		}
	}
	rounds := make([][]measurement, len(list))
	for round := range b.Rounds {
		fmt.Fprintf(progress, "\r%s: round %d of %d ", row, round+1, b.Rounds)
		for i := range list {
			i = (i + round) % len(list)
			m, err := b.measure(ctx, list[i], row)
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", list[i].name, err)
			}
			rounds[i] = append(rounds[i], m)
		}
	}
	fmt.Fprintln(progress)
	return newRow(row, list, rounds), nil
}
