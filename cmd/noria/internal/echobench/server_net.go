package echobench

import (
	"errors"
	"fmt"
	"net"
	goruntime "runtime"
)

// listenAddress is the address of all servers. The system chooses the port.
const listenAddress = "127.0.0.1:0"

// netBuffer holds any message of the default rows, so that package net needs only
// one read and one write for each.
const netBuffer = 32 << 10

// serveNet serves as most Go servers do, with a goroutine for each connection. It
// does not use io.Copy, which between two TCP connections is splice(2) through a
// pipe and slower for echoes.
func serveNet() (hello, error) {
	ln, err := net.Listen("tcp", listenAddress)
	if err != nil {
		return hello{}, err
	}
	go func() {
		for {
			c, err := ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				go echoNet(c)
			}
		}
	}()
	return hello{Address: ln.Addr().String(), Detail: fmt.Sprintf("net, GOMAXPROCS %d", goruntime.GOMAXPROCS(0))}, nil
}

func echoNet(c net.Conn) {
	defer c.Close()
	buf := make([]byte, netBuffer)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}
