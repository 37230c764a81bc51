package echobench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A rowKey is what a row of the table is about.
type rowKey struct {
	Size        int  `json:"size"`
	Conns       int  `json:"conns"`
	Outstanding int  `json:"outstanding"` // messages on their way on each connection
	Garbage     bool `json:"garbage"`
}

func (r rowKey) String() string {
	s := fmt.Sprintf("%d bytes, %d connections", r.Size, r.Conns)
	if r.Outstanding > 1 {
		s += fmt.Sprintf(", %d messages on their way on each", r.Outstanding)
	}
	if r.Garbage {
		s += ", with garbage and busy goroutines in the server"
	}
	return s
}

// A measurement is one contender in one row in one round.
type measurement struct {
	PerSecond float64 `json:"messages_per_second"`
	CPU       float64 `json:"cpu_us_per_message"`
	Busy      float64 `json:"server_busy"` // share of the window that the server's process ran
	Idle      float64 `json:"cpu_idle"`    // share of the window that nobody ran on its CPU
	P50       float64 `json:"p50_us"`
	P99       float64 `json:"p99_us"`
	P999      float64 `json:"p999_us"`
	Max       float64 `json:"max_us"`

	Calls  *float64 `json:"system_calls_per_message"` // null: could not be counted
	Allocs *float64 `json:"allocations_per_message"`  // null: a peer does not say
	detail string
}

// counted is how many messages system calls and allocations are counted over,
// if the window shows that so many take no longer than it.
const counted = 100_000

// garbageWindows is how much longer a row with garbage is measured: package net
// gets so little done there that its p99.9 would be one message's.
const garbageWindows = 5

// A bench is what one call of noria bench does.
type bench struct {
	settings
	serverCPU, clientCPU int // negative: not tied
	cpus                 int
	notes                []string // what could not be done
}

// measure makes one measurement, with processes of its own.
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

// count finds out system calls and allocations for each message. Asking costs
// some of both, and the server does some for itself, so what a question alone
// costs is taken off.
func (b *bench) count(server *target, client *child, row rowKey, m *measurement) error {
	if row.Garbage {
		return nil // they would be the garbage's
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

// note remembers what the report has to say besides, once.
func (b *bench) note(s string) {
	for _, n := range b.notes {
		if n == s {
			return
		}
	}
	b.notes = append(b.notes, s)
}
