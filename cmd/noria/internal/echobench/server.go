package echobench

import (
	"errors"
	"flag"
	"fmt"
	"os"
	goruntime "runtime"
)

// ServerCommand is the hidden command that a server's process runs.
const ServerCommand = "bench-server"

// The kinds of servers.
const (
	kindTask     = "task"     // a task for each connection, on one loop
	kindCallback = "callback" // bare operations and callbacks, on the same Runtime
	kindNet      = "net"      // a goroutine for each connection, on package net
	kindWS       = "ws"       // package ws, a task for each connection
	kindAdapter  = "adapter"  // examples/gobwas: the same by gobwas/ws over a sync stream
)

// A serverConfig is the configuration of the server's process.
type serverConfig struct {
	kind, backend string
	load          bool
}

func (c serverConfig) args() []string {
	return []string{ServerCommand, "--kind", c.kind, "--backend", c.backend, fmt.Sprintf("--load=%t", c.load)}
}

// ServerMain runs the server's process and returns the exit status.
func ServerMain(args []string) int {
	c := serverConfig{}
	fs := flag.NewFlagSet(ServerCommand, flag.ContinueOnError)
	fs.StringVar(&c.kind, "kind", kindTask, "task, callback, net, ws or adapter")
	fs.StringVar(&c.backend, "backend", "auto", "backend of a server that has one")
	fs.BoolVar(&c.load, "load", false, "also burn CPU and make garbage")
	if fs.Parse(args) != nil {
		return 2
	}
	if c.load {
		startLoad()
	}
	h, err := c.serve()
	if err != nil {
		say(hello{Error: err.Error()})
		return 1
	}
	say(h)
	if err := answer(os.Stdin, os.Stdout, func(struct{}) serverStats { return memory() }); err != nil {
		return 1
	}
	return 0
}

func memory() serverStats {
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	return serverStats{Mallocs: m.Mallocs, AllocBytes: m.TotalAlloc, GCs: m.NumGC}
}

// serve starts the server, which runs until the process ends.
func (c serverConfig) serve() (hello, error) {
	switch c.kind {
	case kindNet:
		return serveNet()
	case kindTask:
		return serveTasks(c.backend, tcpEcho())
	case kindWS:
		return serveTasks(c.backend, wsEcho())
	case kindAdapter:
		return serveTasks(c.backend, adapterEcho())
	case kindCallback:
		return serveCallbacks(c.backend)
	}
	return hello{}, errors.New("no such kind of server: " + c.kind)
}
