package echobench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A rowKey identifies a row of the table.
type rowKey struct {
	Size        int  `json:"size"`
	Conns       int  `json:"conns"`
	Outstanding int  `json:"outstanding"` // messages in flight on each connection
	Garbage     bool `json:"garbage"`
}

func (r rowKey) String() string {
	s := fmt.Sprintf("%d bytes, %d connections", r.Size, r.Conns)
	if r.Outstanding > 1 {
		s += fmt.Sprintf(", %d messages in flight on each", r.Outstanding)
	}
	if r.Garbage {
		s += ", with garbage and busy goroutines in the server"
	}
	return s
}

// A measurement is the result of one contender in one row and round.
type measurement struct {
	PerSecond float64 `json:"messages_per_second"`
	CPU       float64 `json:"cpu_us_per_message"`
	Busy      float64 `json:"server_busy"` // share of the window in which the server's process ran
	Idle      float64 `json:"cpu_idle"`    // share of the window in which its CPU was idle
	P50       float64 `json:"p50_us"`
	P99       float64 `json:"p99_us"`
	P999      float64 `json:"p999_us"`
	Max       float64 `json:"max_us"`

	Calls  *float64 `json:"system_calls_per_message"` // null if it could not be counted
	Allocs *float64 `json:"allocations_per_message"`  // null for a peer, which cannot be asked
	detail string
}

// counted is the largest number of messages over which system calls and allocations
// are counted. It is less if so many would take longer than the window.
const counted = 100_000

// garbageWindows is how many windows a row with garbage lasts. Package net gets so
// little done there that in one window its p99.9 would be a single message.
const garbageWindows = 5

// A bench is one run of noria bench.
type bench struct {
	settings
	serverCPU, clientCPU int // negative if not tied to one
	cpus                 int
	notes                []string // remarks for the report, such as what could not be measured
}

// measure makes one measurement, with a server and a client process of its own.
func (b *bench) measure(ctx context.Context, c contender, row rowKey) (m measurement, err error) {
	server, err := c.start(ctx, b.serverCPU, b.cpus, row)
	if err != nil {
		return m, err
	}
	defer server.stop()
	client, err := startChild(ctx, b.clientCPU, nil,
		clientConfig{address: server.address, proto: c.proto, conns: row.Conns, size: row.Size, outstanding: row.Outstanding,
			pid: server.pid, cpu: b.serverCPU}.args())
	if err != nil {
		return m, err
	}
	defer client.stop()
	m.detail = server.detail

	window := b.Window
	if row.Garbage {
		window *= garbageWindows
	}
	timed, err := carryOut(client, task{WarmNS: int64(b.Warm), WindowNS: int64(window)}, b.Warm+window)
	if err != nil {
		return m, err
	}
	if timed.Messages == 0 {
		return m, fmt.Errorf("no message came back within %.2f s: the machine is busy, or --seconds is too short", timed.Seconds)
	}
	m.fill(timed)
	return m, b.count(server, client, row, &m)
}

func carryOut(client *child, t task, takes time.Duration) (r clientResult, err error) {
	err = client.ask(t, &r, takes+replyTime)
	if err == nil && r.Error != "" {
		err = errors.New(r.Error)
	}
	return r, err
}

func (m *measurement) fill(r clientResult) {
	m.PerSecond = float64(r.Messages) / r.Seconds
	m.CPU = r.ServerCPU * 1e6 / float64(r.Messages)
	m.Busy = r.ServerCPU / r.Seconds
	m.Idle = r.Idle
	m.P50, m.P99, m.P999, m.Max = r.P50, r.P99, r.P999, r.Max
}

// count counts system calls and allocations per message. Asking the server costs
// some of both, and the server makes some on its own, so the cost of a question
// alone is subtracted.
func (b *bench) count(server *target, client *child, row rowKey, m *measurement) error {
	if row.Garbage {
		return nil // most of them would be due to the garbage
	}
	each := max(int64(min(counted, m.PerSecond*b.Window.Seconds()))/int64(row.Conns), 1)
	calls, err := countCalls(server.pid)
	if err != nil {
		b.note("system calls were not counted: " + err.Error())
	}
	defer calls.close()
	var at [3]struct {
		stats serverStats
		calls uint64
	}
	asked := false
	for i := range at {
		if i == 2 {
			if _, err := carryOut(client, task{Each: each}, b.Window); err != nil {
				return err
			}
		}
		if at[i].stats, asked, err = server.stats(); err != nil {
			return err
		}
		if at[i].calls, err = calls.read(); err != nil {
			b.note("system calls were not counted: " + err.Error())
		}
	}
	messages := float64(each) * float64(row.Conns)
	per := func(before, middle, after uint64) *float64 {
		v := max(float64(after-middle)-float64(middle-before), 0) / messages
		return &v
	}
	if asked {
		m.Allocs = per(at[0].stats.Mallocs, at[1].stats.Mallocs, at[2].stats.Mallocs)
	}
	if at[2].calls > 0 {
		m.Calls = per(at[0].calls, at[1].calls, at[2].calls)
	}
	return nil
}

// note adds a remark to the report, unless it is there already.
func (b *bench) note(s string) {
	for _, n := range b.notes {
		if n == s {
			return
		}
	}
	b.notes = append(b.notes, s)
}
