package echobench

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/noria-go/noria/internal/backends"
)

// A contender is a kind of server: one of Noria's or package net's, or a peer's
// command.
type contender struct {
	name    string
	proto   string
	server  serverConfig
	procs   int    // GOMAXPROCS; 0 means the number of CPUs
	command string // of a peer
}

// Parts of names: ws-io_uring-adapter is WebSocket on io_uring by examples/gobwas, a
// synchronous library over an adapter of package compat.
const (
	callback = "-callback"
	wsPrefix = protoWS + "-"
	adapter  = "-adapter"
)

// The contenders of package net. A process that is pinned to one CPU would choose
// GOMAXPROCS 1. So netDefault gets the default of a process that is not pinned.
const (
	netDefault = "net"
	netOne     = "net-1"
)

// known returns all contenders of this build.
func known() (list []contender) {
	for _, backend := range backends.Names() {
		list = append(list,
			contender{name: backend, proto: protoTCP, server: serverConfig{kind: kindTask, backend: backend}},
			contender{name: backend + callback, proto: protoTCP, server: serverConfig{kind: kindCallback, backend: backend}})
	}
	list = append(list,
		contender{name: netDefault, proto: protoTCP, server: serverConfig{kind: kindNet}},
		contender{name: netOne, proto: protoTCP, server: serverConfig{kind: kindNet}, procs: 1})
	for _, backend := range backends.Names() {
		list = append(list,
			contender{name: wsPrefix + backend, proto: protoWS, server: serverConfig{kind: kindWS, backend: backend}},
			contender{name: wsPrefix + backend + adapter, proto: protoWS, server: serverConfig{kind: kindAdapter, backend: backend}})
	}
	return list
}

// defaultContenders returns the contenders of some protocols that are measured by
// default. It includes callbacks only on the preferred backend.
func defaultContenders(protos []string) (list []contender) {
	preferred := backends.Names()[0]
	for _, c := range known() {
		if slices.Contains(protos, c.proto) && (!strings.HasSuffix(c.name, callback) || c.name == preferred+callback) {
			list = append(list, c)
		}
	}
	return list
}

// choose returns the contenders with these names, in this order, which must speak
// one of the protocols.
func choose(protos, names []string) (list []contender, err error) {
	all := known()
	all = slices.DeleteFunc(all, func(c contender) bool { return !slices.Contains(protos, c.proto) })
	for _, name := range names {
		i := slices.IndexFunc(all, func(c contender) bool { return c.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no contender for %s is called %q: this build has %s", strings.Join(protos, " or "), name, strings.Join(contenderNames(all), ", "))
		}
		list = append(list, all[i])
	}
	return list, nil
}

func contenderNames(list []contender) (names []string) {
	for _, c := range list {
		names = append(names, c.name)
	}
	return names
}

func (c contender) isNet() bool { return c.server.kind == kindNet }

// isWS reports whether the contender is package ws, with which other WebSocket
// servers are compared.
func (c contender) isWS() bool { return c.server.kind == kindWS }

// canLoad reports whether the contender takes part in a row with garbage. A peer
// cannot be told to make garbage. With GOMAXPROCS 1 the row would measure Go's
// scheduler, because three goroutines would share one P. The row compares with
// package net, which is TCP.
func (c contender) canLoad() bool {
	return c.command == "" && c.procs != 1 && c.proto == protoTCP
}

// start starts the server for a row, pinned to a CPU.
func (c contender) start(ctx context.Context, cpu, cpus int, row rowKey) (*target, error) {
	if c.command != "" {
		return startPeer(ctx, cpu, c)
	}
	procs := c.procs
	if procs == 0 {
		procs = cpus
	}
	if row.Garbage {
		procs = loadProcs
	}
	config := c.server
	config.load = row.Garbage
	return startServer(ctx, cpu, []string{"GOMAXPROCS=" + strconv.Itoa(procs)}, config)
}

// loadProcs is GOMAXPROCS in rows with garbage. It equals the number of burning
// goroutines, so that the server must get a P from one of them.
const loadProcs = burners
