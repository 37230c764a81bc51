package loop

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/noria-go/noria/runtime"
)

// adoptConn takes over the socket of nc, which package net opened, and closes nc. It may
// only be called on the loop, and does not wait.
//
// nc is a *net.TCPConn, or a *net.UnixConn of a stream socket. Other types fail with
// errors.ErrUnsupported, and nc stays the caller's: a type that wraps one of these may
// hold bytes that it has read, or change the bytes that pass.
func (l *Loop) adoptConn(nc net.Conn, opts StreamOptions) (*Stream, error) {
	if !l.onLoop() {
		return nil, &runtime.OpError{Op: "adopt", Err: ErrOffLoop}
	}
	var sc syscall.Conn
	switch c := nc.(type) {
	case *net.TCPConn:
		sc = c
	case *net.UnixConn:
		if a := c.LocalAddr(); a != nil && a.Network() != "unix" {
			return nil, fmt.Errorf("adopt %T: a socket of %s is no stream: %w", nc, a.Network(), errors.ErrUnsupported)
		}
		sc = c
	default:
		return nil, fmt.Errorf("adopt %T: want a *net.TCPConn or *net.UnixConn: %w", nc, errors.ErrUnsupported)
	}
	fd, err := dupDescriptor(sc)
	if err != nil {
		return nil, fmt.Errorf("adopt %T: %w", nc, err)
	}
	h, err := l.rt.Adopt(fd)
	if err != nil {
		closeDescriptor(fd)
		return nil, fmt.Errorf("adopt %T: %w", nc, err)
	}
	_ = nc.Close() // closes nc's descriptor; the socket has another one now
	return l.newStream(h, opts), nil
}
