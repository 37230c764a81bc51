package echobench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// The bench and its child processes exchange lines of JSON: requests on a child's
// standard input, answers on its standard output. A child ends at the end of its
// input, so none outlives its parent.

// hello is the first line of a child.
type hello struct {
	Address string `json:"address,omitempty"` // where a server listens
	Detail  string `json:"detail,omitempty"`  // a description of the server or client
	Error   string `json:"error,omitempty"`
}

// serverStats is a server's answer to any line.
type serverStats struct {
	Mallocs    uint64 `json:"mallocs"` // since the process started
	AllocBytes uint64 `json:"alloc_bytes"`
	GCs        uint32 `json:"gcs"`
}

// A task is what a client must do.
type task struct {
	WarmNS   int64 `json:"warm_ns,omitempty"`
	WindowNS int64 `json:"window_ns,omitempty"`
	Each     int64 `json:"each,omitempty"` // or a number of messages on each connection
	verify   bool  // compare all echoes, one script at a time
}

// A clientResult is the result of a task. If the task has a number of messages,
// only the fields up to Seconds are set.
type clientResult struct {
	Error     string  `json:"error,omitempty"`
	Messages  int64   `json:"messages"`
	Seconds   float64 `json:"seconds"`
	ServerCPU float64 `json:"server_cpu"` // seconds, of all its threads
	Idle      float64 `json:"idle"`       // share of the window that the server's CPU was idle
	P50       float64 `json:"p50"`        // microseconds, like the following
	P99       float64 `json:"p99"`
	P999      float64 `json:"p999"`
	Max       float64 `json:"max"`
}

// answer is a child's main loop: it answers each line until the input ends.
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
func say(h hello) { _ = json.NewEncoder(os.Stdout).Encode(h) } // an error means that the parent has ended
