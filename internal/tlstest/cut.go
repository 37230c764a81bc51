package tlstest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/noria-go/noria/loop"
)

// A CutConn cuts what it writes in two at a given byte: Loop has a few turns before the
// second part.
type CutConn struct {
	net.Conn
	Loop    *loop.Loop
	Cut     int // number of bytes before the cut; negative: cut after each byte
	Written int // number of bytes written so far
}

// Write writes p to the connection, cut where Cut says.
func (c *CutConn) Write(p []byte) (n int, err error) {
	for n < len(p) {
		end := len(p)
		if c.Cut < 0 {
			end = n + 1
		} else if here := c.Cut - c.Written; here > 0 && here < len(p)-n {
			end = n + here
		}
		m, err := c.Conn.Write(p[n:end])
		n += m
		c.Written += m
		if err != nil {
			return n, err
		}
		if n < len(p) {
			if err := c.Loop.Call(context.Background(), "turns", func(ctx context.Context) error {
				return errors.Join(loop.Yield(ctx), loop.Yield(ctx))
			}); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// PingPong writes four bytes to peer and returns an error if it does not read them back.
func PingPong(peer *tls.Conn) error {
	if _, err := peer.Write([]byte("ping")); err != nil {
		return err
	}
	var p [4]byte
	if _, err := io.ReadFull(peer, p[:]); err != nil {
		return err
	}
	if string(p[:]) != "ping" {
		return fmt.Errorf("the peer got %q", p)
	}
	return nil
}
