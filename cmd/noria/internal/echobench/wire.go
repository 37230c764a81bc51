package echobench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// Children are spoken to in lines of JSON: requests on their standard input,
// answers on their standard output. The end of the input ends them, so none
// outlives the program that started it.

// hello is a child's first line.
type hello struct {
	Address string `json:"address,omitempty"` // where a server listens
	Detail  string `json:"detail,omitempty"`  // what it turned out to be
	Error   string `json:"error,omitempty"`
}

// serverStats is what a server answers to any line.
type serverStats struct {
	Mallocs    uint64 `json:"mallocs"` // since it started
	AllocBytes uint64 `json:"alloc_bytes"`
	GCs        uint32 `json:"gcs"`
}

// A task is what a client is asked to do.
type task struct {
	WarmNS   int64 `json:"warm_ns,omitempty"`
	WindowNS int64 `json:"window_ns,omitempty"`
	Each     int64 `json:"each,omitempty"` // or: so many messages on each connection
	verify   bool  // compare all of them, as many at a time as may be on their way
}

// A clientResult is what came of a task. Only the fields up to Seconds are
// there for one that counts messages.
type clientResult struct {
	Error     string  `json:"error,omitempty"`
	Messages  int64   `json:"messages"`
	Seconds   float64 `json:"seconds"`
	ServerCPU float64 `json:"server_cpu"` // seconds; of the whole process
	Idle      float64 `json:"idle"`       // share of the window that the server's CPU was idle
	P50       float64 `json:"p50"`        // microseconds, as the following
	P99       float64 `json:"p99"`
	P999      float64 `json:"p999"`
	Max       float64 `json:"max"`
}

// answer is a child's main loop: a reply for each line, until there are none.
func answer[Q, A any](in io.Reader, out io.Writer, reply func(Q) A) error {
	lines := bufio.NewScanner(in)
	enc := json.NewEncoder(out)
	for lines.Scan() {
		var q Q
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return fmt.Errorf("%q: %w", lines.Text(), err)
		}
		if err := enc.Encode(reply(q)); err != nil {
			return err
		}
	}
	return lines.Err()
}

// say writes a child's hello.
func say(h hello) { _ = json.NewEncoder(os.Stdout).Encode(h) } // a parent that is gone hears nothing
