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

// A CutConn writes its first bytes, up to a place, by themselves, and the rest
// after the loop had a few turns.
type CutConn struct {
	net.Conn
	Loop    *loop.Loop
	Cut     int // where; negative: between all bytes
	Written int
}

// Write is net.Conn's.
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

// PingPong sends four bytes and wants them back.
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
