package echobench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

const (
	startTime = 20 * time.Second // limit for a child to get ready
	replyTime = 20 * time.Second // limit for a reply, beyond the duration of the task
	stopTime  = 5 * time.Second  // limit for a child to end before it is killed
)

// A child is a process of this program that runs a hidden command.
type child struct {
	cmd      *exec.Cmd
	requests io.WriteCloser
	replies  *json.Decoder
	stderr   strings.Builder
	hello    hello
}

// startChild runs this program with args, pinned to a CPU, with env added to its
// environment. It removes the variables that choose a backend or GOMAXPROCS.
func startChild(ctx context.Context, cpu int, env, args []string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.CommandContext(ctx, self, args...)}
	c.cmd.Stderr = &c.stderr
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); name != "NORIA_BACKEND" && name != "GOMAXPROCS" {
			c.cmd.Env = append(c.cmd.Env, v)
		}
	}
	c.cmd.Env = append(c.cmd.Env, env...)
	if c.requests, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := startOn(c.cmd, cpu); err != nil {
		return nil, err
	}
	c.replies = json.NewDecoder(out)
	err = c.hear(&c.hello, startTime)
	if err == nil && c.hello.Error != "" {
		err = fmt.Errorf("%s: %s", args[0], c.hello.Error)
	}
	if err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// ask sends a request and waits for the reply.
func (c *child) ask(request, reply any, timeout time.Duration) error {
	if err := json.NewEncoder(c.requests).Encode(request); err != nil {
		return fmt.Errorf("%s has ended: %w", c.cmd.Args[1], err)
	}
	return c.hear(reply, timeout)
}

// hear waits for the child's next line. It kills a child that takes too long, which
// ends the wait.
func (c *child) hear(v any, timeout time.Duration) error {
	late := time.AfterFunc(timeout, func() { _ = c.cmd.Process.Kill() })
	err := c.replies.Decode(v)
	if !late.Stop() {
		return fmt.Errorf("%s did not answer for %v and was killed", c.cmd.Args[1], timeout)
	}
	if err != nil {
		c.stop()
		return fmt.Errorf("%s has ended: %w: %s", c.cmd.Args[1], err, strings.TrimSpace(c.stderr.String()))
	}
	return nil
}

// stop ends the child, and kills it if it does not end in time. It may be called
// more than once.
func (c *child) stop() {
	_ = c.requests.Close()
	late := time.AfterFunc(stopTime, func() { _ = c.cmd.Process.Kill() })
	_ = c.cmd.Wait() // its exit status does not matter
	late.Stop()
}

// A target is a server that is ready to be measured.
type target struct {
	address, detail string
	pid             int
	child           *child // nil for a peer, which cannot be asked
	stop            func()
}

// stats returns the server's counts. ok is false for a peer.
func (t *target) stats() (s serverStats, ok bool, err error) {
	if t.child == nil {
		return s, false, nil
	}
	err = t.child.ask(struct{}{}, &s, replyTime)
	return s, err == nil, err
}

func startServer(ctx context.Context, cpu int, env []string, c serverConfig) (*target, error) {
	ch, err := startChild(ctx, cpu, env, c.args())
	if err != nil {
		return nil, err
	}
	if ch.hello.Address == "" {
		ch.stop()
		return nil, errors.New(ServerCommand + " did not report its address")
	}
	return &target{address: ch.hello.Address, detail: ch.hello.Detail, pid: ch.cmd.Process.Pid, child: ch, stop: ch.stop}, nil
}
