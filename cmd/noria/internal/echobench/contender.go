package echobench

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/noria-go/noria/internal/backends"
)

// A contender is a kind of server: one of ours, or a peer's command.
type contender struct {
	name    string
	proto   string
	server  serverConfig
	procs   int    // GOMAXPROCS; 0: as many as the machine has CPUs
	command string // of a peer
}

// Parts of names: ws-io_uring-adapter is WebSocket on io_uring by examples/gobwas, a
// synchronous library over an adapter of package compat.
const (
	callback = "-callback"
	wsPrefix = protoWS + "-"
	adapter  = "-adapter"
)

// The net package's contenders. A process that is tied to one CPU would choose
// GOMAXPROCS 1 by itself, so "its default" is told: what it is on this machine
// without that.
const (
	netDefault = "net"
	netOne     = "net-1"
)

// known returns every contender that this build contains.
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

// defaultContenders are those of some protocols that the table has unless told
// otherwise: a callback one for the preferred backend only.
func defaultContenders(protos []string) (list []contender) {
	preferred := backends.Names()[0]
	for _, c := range known() {
		if slices.Contains(protos, c.proto) && (!strings.HasSuffix(c.name, callback) || c.name == preferred+callback) {
			list = append(list, c)
		}
	}
	return list
}

// choose returns the contenders of some protocols with these names, in this
// order.
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

// isWS says whether the contender is what the WebSocket servers are compared with.
func (c contender) isWS() bool { return c.server.kind == kindWS }

// canLoad says whether the contender belongs into a row with garbage: peers
// cannot be told to make it, and one processor for three goroutines that want
// it would measure Go's scheduler. What is compared there is package net.
func (c contender) canLoad() bool {
	return c.command == "" && c.procs != 1 && c.proto == protoTCP
}

// start starts the server for a row, on a CPU.
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

// loadProcs is GOMAXPROCS in rows with garbage: as many as goroutines burn, so
// that whoever serves has to get a processor from one of them.
const loadProcs = burners
