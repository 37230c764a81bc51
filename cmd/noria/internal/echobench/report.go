package echobench

import (
	goruntime "runtime"
	"time"
)

// saturated is the least share of the window that a server must be busy for its
// messages per second to characterize the server and not the client.
const saturated = 0.97

// A Report is the result of noria bench. Its JSON names are stable.
type Report struct {
	Time      time.Time `json:"time"`
	Kernel    string    `json:"kernel"`
	Processor string    `json:"processor"`
	CPUs      int       `json:"cpus"`
	Go        string    `json:"go"`
	ServerCPU int       `json:"server_cpu"` // -1: not tied to one
	ClientCPU int       `json:"client_cpu"`
	Settings  settings  `json:"settings"`
	Rows      []*Row    `json:"rows"`
	Notes     []string  `json:"notes"`

	// Tasks is the result of noria bench tasks.
	Tasks []*Comparison `json:"tasks,omitempty"`
}

func (b *bench) newReport() *Report {
	kernel, processor := machine()
	return &Report{Time: time.Now().UTC().Truncate(time.Second), Kernel: kernel, Processor: processor, CPUs: b.cpus,
		Go: goruntime.Version(), ServerCPU: b.serverCPU, ClientCPU: b.clientCPU, Settings: b.settings, Rows: []*Row{}}
}

// A Row is the result for one message size and number of connections.
type Row struct {
	rowKey
	Contenders []*Result `json:"contenders"`
	Versus     []*Versus `json:"versus,omitempty"`
}

// A Result is one contender in a Row: medians and spreads over the rounds.
type Result struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
	Detail   string `json:"detail"`

	PerSecond *Spread `json:"messages_per_second"`
	CPU       *Spread `json:"cpu_us_per_message"` // null with garbage, which uses most of it
	Busy      *Spread `json:"server_busy"`
	Idle      *Spread `json:"cpu_idle"`
	P50       *Spread `json:"p50_us"`
	P99       *Spread `json:"p99_us"`
	P999      *Spread `json:"p999_us"`
	Calls     *Spread `json:"system_calls_per_message"`
	Allocs    *Spread `json:"allocations_per_message"`

	// ClientBound is set if the server was idle at times, so that the client limited
	// its messages per second. Disturbed is set if its CPU was not idle then:
	// another process used it.
	ClientBound bool `json:"client_bound"`
	Disturbed   bool `json:"disturbed"`

	// Ratio is messages per second relative to package net with the better of its
	// settings, for servers that speak TCP. It is null if either was bound by the
	// client.
	Ratio *float64 `json:"ratio_to_net"`
	// TailRatio is p99.9 relative to package net's, only with garbage.
	TailRatio *float64 `json:"p999_ratio_to_net,omitempty"`

	Rounds []measurement `json:"rounds"`
	isNet  bool          // the baseline of Ratio and TailRatio
}

func newRow(key rowKey, list []contender, rounds [][]measurement) *Row {
	row := &Row{rowKey: key}
	for i, c := range list {
		row.Contenders = append(row.Contenders, newResult(c, key, rounds[i]))
	}
	row.compare()
	row.Versus = versus(list, row)
	return row
}

func newResult(c contender, key rowKey, rounds []measurement) *Result {
	of := func(f func(measurement) float64) *Spread {
		values := make([]float64, 0, len(rounds))
		for _, m := range rounds {
			values = append(values, f(m))
		}
		return spread(values)
	}
	r := &Result{Name: c.name, Protocol: c.proto, Rounds: rounds, isNet: c.isNet(), Detail: rounds[0].detail,
		PerSecond: of(func(m measurement) float64 { return m.PerSecond }),
		CPU:       of(func(m measurement) float64 { return m.CPU }),
		Busy:      of(func(m measurement) float64 { return m.Busy }),
		Idle:      of(func(m measurement) float64 { return m.Idle }),
		P50:       of(func(m measurement) float64 { return m.P50 }),
		P99:       of(func(m measurement) float64 { return m.P99 }),
		P999:      of(func(m measurement) float64 { return m.P999 }),
		Calls:     ofKnown(rounds, func(m measurement) *float64 { return m.Calls }),
		Allocs:    ofKnown(rounds, func(m measurement) *float64 { return m.Allocs }),
	}
	if key.Garbage {
		r.CPU = nil // the garbage uses all idle time, so Busy means nothing either
		return r
	}
	if r.Busy.Median < saturated {
		r.Disturbed = r.Busy.Median+r.Idle.Median < saturated
		r.ClientBound = true
	}
	return r
}

func ofKnown(rounds []measurement, f func(measurement) *float64) *Spread {
	var values []float64
	for _, m := range rounds {
		if v := f(m); v != nil {
			values = append(values, *v)
		}
	}
	return spread(values)
}

// compare fills in the ratios to package net.
func (r *Row) compare() {
	var net *Result
	for _, c := range r.Contenders {
		if c.isNet && (net == nil || c.PerSecond.Median > net.PerSecond.Median) {
			net = c
		}
	}
	if net == nil {
		return
	}
	for _, c := range r.Contenders {
		if c.Protocol != protoTCP {
			continue
		}
		if !c.ClientBound && !net.ClientBound && !r.Garbage {
			v := c.PerSecond.Median / net.PerSecond.Median
			c.Ratio = &v
		}
		if r.Garbage {
			v := c.P999.Median / net.P999.Median
			c.TailRatio = &v
		}
	}
}
