package echobench

import (
	"flag"
	"fmt"
	"net/netip"
	"os"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// ClientCommand is the hidden command that the client's process runs.
const ClientCommand = "bench-client"

// verified is the least number of messages of each connection that are compared
// byte for byte. Whole scripts are compared, so it may be more.
const verified = 3

// A clientConfig is the configuration of the client's process.
type clientConfig struct {
	address     string
	proto       string
	conns, size int
	outstanding int // messages in flight on a connection
	pid, cpu    int // of the server
}

func (c clientConfig) args() []string {
	return []string{ClientCommand, "--address", c.address, "--proto", c.proto, fmt.Sprintf("--conns=%d", c.conns),
		fmt.Sprintf("--size=%d", c.size), fmt.Sprintf("--outstanding=%d", c.outstanding),
		fmt.Sprintf("--pid=%d", c.pid), fmt.Sprintf("--cpu=%d", c.cpu)}
}

// ClientMain runs the client's process: it connects, says hello, and carries out
// tasks. It returns the exit status.
func ClientMain(args []string) int {
	c := &client{}
	fs := flag.NewFlagSet(ClientCommand, flag.ContinueOnError)
	fs.StringVar(&c.cfg.address, "address", "", "of the server")
	fs.StringVar(&c.cfg.proto, "proto", protoTCP, "protocol")
	fs.IntVar(&c.cfg.conns, "conns", 1, "connections")
	fs.IntVar(&c.cfg.size, "size", 64, "bytes of a message")
	fs.IntVar(&c.cfg.outstanding, "outstanding", 1, "messages in flight on each connection")
	fs.IntVar(&c.cfg.pid, "pid", 0, "of the server")
	fs.IntVar(&c.cfg.cpu, "cpu", -1, "of the server")
	if fs.Parse(args) != nil {
		return 2
	}
	if err := c.open(); err != nil {
		say(hello{Error: err.Error()})
		return 1
	}
	say(hello{Detail: describe(c.group)})
	if err := answer(os.Stdin, os.Stdout, c.do); err != nil {
		return 1
	}
	if err := c.group.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "bench-client:", err)
		return 1
	}
	return 0
}

// A client is the connections of one loop. It uses callbacks, so that it costs as
// little as possible beside the server. All fields but group and loop belong to the
// loop's thread.
type client struct {
	cfg   clientConfig
	group *loop.Group
	loop  *loop.Loop
	rt    runtime.Runtime

	conns   []*clientConn
	traffic *traffic

	window // of the current task
	active int
	hist   histogram
	done   func(clientResult)
	failed error
}

// A window is the progress of a task.
type window struct {
	task     task
	messages int64
	warm     bool  // the warm-up is over
	turnAt   int64 // when the warm-up or the window ends; 0 means never
	begin    sample
	stopping bool
	result   clientResult
}

// open connects, and checks that the server echoes what it receives.
func (c *client) open() (err error) {
	addr, err := netip.ParseAddrPort(c.cfg.address)
	if err != nil {
		return err
	}
	if c.group, err = startLoop("auto"); err != nil {
		return err
	}
	c.loop = c.group.Loops()[0]
	c.rt = c.loop.Friend(friend.Key{}).Runtime()
	c.traffic = newTraffic(c.cfg.proto, c.cfg.size, c.cfg.outstanding)
	opened := c.onLoop(func() {
		for i := range c.cfg.conns {
			k := newClientConn(c, &c.traffic.scripts[i%len(c.traffic.scripts)])
			c.conns = append(c.conns, k)
			c.active++
			k.open(runtime.Addr{AddrPort: addr})
		}
	})
	if opened.Error == "" {
		n := int64(c.cfg.outstanding)
		opened = c.do(task{Each: (verified + n - 1) / n * n, verify: true})
	}
	if opened.Error != "" {
		return fmt.Errorf("%s", opened.Error)
	}
	return nil
}

// onLoop runs start on the loop and waits for the end of the work that it starts.
func (c *client) onLoop(start func()) clientResult {
	results := make(chan clientResult, 1)
	err := c.loop.Post(func() {
		c.window = window{}
		c.done = func(r clientResult) { results <- r }
		if c.failed != nil { // between two tasks
			c.fail(c.failed)
			return
		}
		start()
	})
	if err != nil {
		return clientResult{Error: err.Error()}
	}
	return <-results
}

// do carries out a task.
func (c *client) do(t task) clientResult {
	return c.onLoop(func() {
		c.task = t
		c.hist.reset()
		now := c.rt.Now()
		c.begin.now = now
		if t.WindowNS > 0 {
			c.turnAt = now + t.WarmNS
		}
		c.active = len(c.conns)
		for _, k := range c.conns {
			each := t.Each
			if t.WindowNS > 0 {
				each = -1 // until the window ends
			}
			k.begin(now, each)
		}
	})
}

// turn begins or ends the window.
func (c *client) turn(now int64) {
	if !c.warm {
		c.warm = true
		c.messages = 0
		c.hist.reset()
		c.begin.idle, c.begin.ticks = cpuTicks(c.cfg.cpu)
		c.begin.now = c.rt.Now()
		c.begin.cpu = processCPU(c.cfg.pid)
		c.turnAt = c.begin.now + c.task.WindowNS
		return
	}
	c.turnAt = 0
	c.stopping = true
	c.result = c.summary(now)
	c.result.ServerCPU = processCPU(c.cfg.pid) - c.begin.cpu // read first, because the clock runs
	if idle, ticks := cpuTicks(c.cfg.cpu); ticks > c.begin.ticks {
		c.result.Idle = float64(idle-c.begin.idle) / float64(ticks-c.begin.ticks)
	}
	us := func(q float64) float64 { return float64(c.hist.quantile(q)) / 1e3 }
	c.result.P50, c.result.P99, c.result.P999 = us(0.5), us(0.99), us(0.999)
	c.result.Max = float64(c.hist.max) / 1e3
}

func (c *client) summary(now int64) clientResult {
	return clientResult{Messages: c.messages, Seconds: float64(now-c.begin.now) / 1e9}
}

// ended is called when a connection has nothing left to do.
func (c *client) ended(now int64) {
	if c.active--; c.active > 0 {
		return
	}
	if c.task.WindowNS == 0 {
		c.result = c.summary(now)
	}
	c.finish(c.result)
}

// fail ends the task and makes every later one fail, because a connection is
// missing.
func (c *client) fail(err error) {
	if c.failed == nil {
		c.failed = err
	}
	c.finish(clientResult{Error: c.failed.Error()})
}

func (c *client) finish(r clientResult) {
	if c.done != nil {
		c.done(r)
		c.done = nil
	}
}

// A sample is the state of the server's CPU clocks at one moment.
type sample struct {
	now         int64
	cpu         float64 // seconds that the server's process has used
	idle, ticks uint64  // of the server's CPU
}
