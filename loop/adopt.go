package loop

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/noria-go/noria/runtime"
)

// AdoptConn takes over nc, which the net package opened: its socket becomes
// the loop's, and nc is closed without closing the connection. It is called on
// the loop.
//
// nc is a *net.TCPConn or a *net.UnixConn (a stream's, not of datagrams).
// Everything else fails with ErrUnsupported, and then nc still is the caller's:
// what wraps one of these may have a descriptor to give, but may also hold bytes
// that were read from it, or change those that pass.
func (l *Loop) AdoptConn(nc net.Conn, opts StreamOptions) (*Stream, error) {
	if !l.onThread() {
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
	_ = nc.Close() // only the descriptor: the socket has another one now
	return l.NewStream(h, opts), nil
}
