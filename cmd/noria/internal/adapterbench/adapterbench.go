// Package adapterbench measures the cost of receiving one large WebSocket message
// through each adapter of package compat: noria bench adapters.
//
// A contender is a separate process that receives messages from one connection, one
// at a time, and answers each with an empty frame. All contenders use the same
// library: ReadHeader of gobwas/ws, io.ReadFull of the payload into memory that is
// already resident, and Cipher. They differ in what the library reads from. The
// bench itself is the sender. Contenders take turns. The report has medians over the
// rounds, with the lowest and the highest.
//
// A round trip is one ErrWouldBlock to the library, after which it must be called
// again. Copies are counted per delivered byte, from the first memory of the
// contender that held the byte to the user's memory; the kernel's copies are the same
// for all and not counted. Peak buffer is the most memory that the adapter held.
// Peak memory is the growth of the process since before the first message, without
// the memory of the payload.
//
// Each contender has its best settings. A fixed buffer cannot hold the message, so
// the payload is read piece by piece, without rollback and with full fills. The
// growable ones use Exact.
package adapterbench

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const text = `Usage: noria bench adapters [FLAGS]

Receives large WebSocket messages through the adapters of package compat, a
task's stream, and a plain net reader, in one run. Close other programs first.

Flags:
`

// settings are the values of the flags.
type settings struct {
	Sizes   []int  `json:"sizes"`
	Rounds  int    `json:"rounds"`
	Bytes   int    `json:"bytes"` // of payload per measurement
	Backend string `json:"backend"`
}

// maxMessage is the largest message in bytes.
const maxMessage = 64 << 20

// Main runs noria bench adapters and returns its exit status.
func Main(args []string) int {
	s := settings{Sizes: []int{64 << 10, 1 << 20, 16 << 20}, Rounds: 5, Bytes: 256 << 20, Backend: "auto"}
	asJSON, quick := false, false
	fs := flag.NewFlagSet("noria bench adapters", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), text)
		fs.PrintDefaults()
	}
	fs.Func("sizes", "`bytes` of a message, separated by commas (default 65536,1048576,16777216)", func(v string) error {
		s.Sizes = nil
		for f := range strings.SplitSeq(v, ",") {
			n, err := strconv.Atoi(strings.TrimSpace(f))
			if err != nil || n < 1 || n > maxMessage {
				return fmt.Errorf("%q is not a size of 1 to %d bytes", f, maxMessage)
			}
			s.Sizes = append(s.Sizes, n)
		}
		return nil
	})
	fs.IntVar(&s.Rounds, "rounds", s.Rounds, "`number` of measurements of each contender and size")
	fs.StringVar(&s.Backend, "backend", s.Backend, "backend of the contenders that use one")
	fs.BoolVar(&asJSON, "json", false, "print JSON")
	fs.BoolVar(&quick, "quick", false, "one round of few messages, to check that it works; the results mean nothing")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if quick {
		s.Rounds, s.Bytes = 1, 1
	}
	if fs.NArg() > 0 || s.Rounds < 1 {
		fmt.Fprintf(os.Stderr, "noria bench adapters: unexpected %q, or --rounds below 1\n", fs.Args())
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := s.run(ctx, os.Stderr)
	if err == nil && asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else if err == nil {
		err = r.print(os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "noria bench adapters:", err)
		return 1
	}
	return 0
}

// A Report is the result of noria bench adapters. Its JSON names are stable.
type Report struct {
	Time     time.Time `json:"time"`
	Settings settings  `json:"settings"`
	Rows     []*Row    `json:"rows"`
}

// A Row is the result of one contender with one message size.
type Row struct {
	Size      int    `json:"size"`
	Contender string `json:"contender"`
	Detail    string `json:"detail"`
	Messages  int    `json:"messages"` // per round

	Milliseconds Spread  `json:"ms_per_message"`
	CPU          Spread  `json:"cpu_ms_per_message"` // of the contender's process
	RoundTrips   float64 `json:"round_trips_per_message"`
	Fills        float64 `json:"fills_per_message"`
	Flushes      float64 `json:"flushes_per_message"`
	Copies       float64 `json:"copies_per_byte"`
	PeakBuffer   int     `json:"peak_buffer_bytes"`
	PeakMemory   Spread  `json:"peak_memory_bytes"`
}

// A Spread is a median with the lowest and the highest value.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spread(values []float64) Spread {
	slices.Sort(values)
	n := len(values)
	return Spread{Median: (values[(n-1)/2] + values[n/2]) / 2, Min: values[0], Max: values[n-1]}
}

// run makes all measurements.
func (s settings) run(ctx context.Context, progress io.Writer) (*Report, error) {
	r := &Report{Time: time.Now().UTC().Truncate(time.Second), Settings: s}
	for _, size := range s.Sizes {
		messages := max(2, s.Bytes/size)
		rounds := make([][]measurement, len(contenders))
		for round := range s.Rounds {
			fmt.Fprintf(progress, "%d bytes, round %d of %d\n", size, round+1, s.Rounds)
			for i := range contenders {
				i = (i + round) % len(contenders)
				m, err := measure(ctx, job{Contender: contenders[i].name, Size: size, Messages: messages, Backend: s.Backend})
				if err != nil {
					return nil, fmt.Errorf("%s, %d bytes: %w", contenders[i].name, size, err)
				}
				rounds[i] = append(rounds[i], m)
			}
		}
		for i, c := range contenders {
			r.Rows = append(r.Rows, newRow(c.name, size, messages, rounds[i]))
		}
	}
	return r, nil
}

func newRow(name string, size, messages int, rounds []measurement) *Row {
	of := func(f func(m measurement) float64) []float64 {
		var values []float64
		for _, m := range rounds {
			values = append(values, f(m))
		}
		return values
	}
	per := float64(messages)
	row := &Row{Size: size, Contender: name, Detail: rounds[0].Detail, Messages: messages,
		Milliseconds: spread(of(func(m measurement) float64 { return m.seconds * 1e3 / per })),
		CPU:          spread(of(func(m measurement) float64 { return m.CPU * 1e3 / per })),
		PeakMemory:   spread(of(func(m measurement) float64 { return float64(m.Memory) })),
		RoundTrips:   spread(of(func(m measurement) float64 { return float64(m.RoundTrips) / per })).Median,
		Fills:        spread(of(func(m measurement) float64 { return float64(m.Fills) / per })).Median,
		Flushes:      spread(of(func(m measurement) float64 { return float64(m.Flushes) / per })).Median,
		Copies:       spread(of(func(m measurement) float64 { return float64(m.Copied) / per / float64(size) })).Median,
	}
	for _, m := range rounds {
		row.PeakBuffer = max(row.PeakBuffer, m.PeakBuffer)
	}
	return row
}
