package adapterbench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gobwas/ws"

	"github.com/noria-go/noria"
	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/loop"
)

// Command is the hidden command that a contender's process runs.
const Command = "bench-adapter"

const (
	warm    = 2               // number of messages before the measured ones
	seed    = 7               // each byte of the mask
	tooLong = 2 * time.Minute // for one measurement
)

// A job is what a contender's process must do.
type job struct {
	Contender string
	Size      int
	Messages  int
	Backend   string
}

// A result is the output of a contender's process.
type result struct {
	Detail     string
	CPU        float64 // seconds
	RoundTrips int64
	Fills      int64
	Flushes    int64
	Copied     int64
	PeakBuffer int
	Memory     int64 // growth of the process in bytes
	Error      string
}

type measurement struct {
	result
	seconds float64
}

// measure measures one contender once.
func measure(ctx context.Context, j job) (m measurement, err error) {
	ctx, cancel := context.WithTimeout(ctx, tooLong)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		return m, err
	}
	what, err := json.Marshal(j)
	if err != nil {
		return m, err
	}
	cmd := exec.CommandContext(ctx, self, Command, string(what))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return m, err
	}
	if err := cmd.Start(); err != nil {
		return m, err
	}
	replies := json.NewDecoder(out)
	var address string
	if err = replies.Decode(&address); err == nil {
		m.seconds, err = send(ctx, address, j)
		if derr := replies.Decode(&m.result); derr != nil {
			err = errors.Join(err, derr)
		}
	}
	if m.Error != "" {
		err = errors.New(m.Error)
	}
	if werr := cmd.Wait(); err != nil {
		err = fmt.Errorf("%w: %v: %s", err, werr, strings.TrimSpace(stderr.String()))
	}
	return m, err
}

// send sends each message when the one before has been answered, and returns how
// long the measured ones took.
func send(ctx context.Context, address string, j job) (seconds float64, err error) {
	payload := make([]byte, j.Size)
	for i := range payload {
		payload[i] = byte(i)
	}
	frame := ws.MustCompileFrame(ws.MaskFrameInPlaceWith(ws.NewBinaryFrame(payload), [4]byte{seed, seed, seed, seed}))
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if d, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(d); err != nil {
			return 0, err
		}
	}
	got := make([]byte, len(answer))
	var start time.Time
	for i := range warm + j.Messages {
		if i == warm {
			start = time.Now()
		}
		if _, err := c.Write(frame); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(c, got); err != nil {
			return 0, err
		}
	}
	return time.Since(start).Seconds(), nil
}

// ProcessMain runs a contender's process and returns the exit status.
func ProcessMain(args []string) int {
	var j job
	if len(args) != 1 || json.Unmarshal([]byte(args[0]), &j) != nil {
		fmt.Fprintln(os.Stderr, "noria: "+Command+" is only for noria bench adapters")
		return 2
	}
	say := json.NewEncoder(os.Stdout)
	r, err := j.serve(func(address string) error { return say.Encode(address) })
	if err != nil {
		r.Error = err.Error()
	}
	if err := say.Encode(r); err != nil || r.Error != "" {
		return 1
	}
	return 0
}

// serve listens, reports its address, and receives the messages of one connection.
func (j job) serve(ready func(address string) error) (r result, err error) {
	c, err := find(j.Contender)
	if err != nil {
		return r, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return r, err
	}
	defer ln.Close()
	if err := ready(ln.Addr().String()); err != nil {
		return r, err
	}
	nc, err := ln.Accept()
	if err != nil {
		return r, err
	}
	if c.plain != nil {
		r, err = j.receive(c.plain(nc))
		r.Detail = "net"
		return r, err
	}
	g, err := noria.Start(noria.Options{Backend: j.Backend, Loops: 1, Loop: loop.LoopOptions{StallAfter: -1}})
	if err != nil {
		return r, err
	}
	s, _, err := compat.TakeOver(g.Loops()[0], nc, compat.TakeOverOptions{})
	if err != nil {
		return r, errors.Join(err, g.Stop())
	}
	err = g.Loops()[0].Call(context.Background(), "receiver", func(context.Context) error {
		rc, err := c.task(s)
		if err != nil {
			return err
		}
		r, err = j.receive(rc)
		return err
	})
	r.Detail = g.Info().Backend
	return r, errors.Join(err, g.Stop())
}

// receive receives the messages. The result does not include the first ones.
func (j job) receive(rc receiver) (r result, err error) {
	p := make([]byte, j.Size)
	for i := range p {
		p[i] = 1 // makes the memory resident
	}
	defer func() { err = errors.Join(err, rc.close()) }()
	var before counts
	var cpu float64
	debug.FreeOSMemory()
	memory := startPeak()
	for i := range warm + j.Messages {
		if i == warm {
			before, cpu = rc.counts(), cpuSeconds()
		}
		n, err := rc.receive(p)
		if err != nil {
			return r, err
		}
		if n != j.Size || p[0] != 0 || p[n-1] != byte(n-1) {
			return r, errors.New("the message differs from the one sent")
		}
	}
	after := rc.counts()
	return result{CPU: cpuSeconds() - cpu, Memory: peak() - memory,
		RoundTrips: after.WouldBlock - before.WouldBlock, Fills: after.Fills - before.Fills, Flushes: after.Flushes - before.Flushes,
		Copied: after.BytesCopied - before.BytesCopied, PeakBuffer: after.PeakBuffer}, nil
}
