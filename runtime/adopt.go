package runtime

import (
	"fmt"
	"net"
	"syscall"
)

// AdoptConn takes over nc, which the net package opened: its socket becomes
// the loop's, and nc is closed without closing the connection. What has no
// socket of its own fails with ErrUnsupported, and then nc still is the
// caller's. It is called on the loop.
func (l *Loop) AdoptConn(nc net.Conn, opts StreamOptions) (*Stream, error) {
	if !l.onThread() {
		return nil, &OpError{Op: "adopt", Err: ErrOffLoop}
	}
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("adopt %T: it has no descriptor to take over: %w", nc, ErrUnsupported)
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
