package tcp

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"
	"strings"
	"time"

	"github.com/noria-go/noria/internal/tlslayer"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// DialOptions say how to open a connection. The zero value is good.
type DialOptions struct {
	// TLS has the connection secured, as a client; nil: no TLS. Without a
	// ServerName it gets the address's host.
	TLS *tls.Config

	// HandshakeTimeout is for all of the TLS handshake. 0 and less mean
	// DefaultHandshakeTimeout.
	HandshakeTimeout time.Duration

	// Net says how to connect.
	Net loop.DialOptions
}

// Dial connects to address ("host:port", "unix:/path") from a task, whose
// context ctx is or comes from. With TLS it returns when the handshake is complete.
func Dial(ctx context.Context, address string, opts DialOptions) (c *loop.Stream, err error) {
	t := loop.TaskOf(ctx)
	if t == nil {
		return nil, &runtime.OpError{Op: "dial", Detail: address, Err: loop.ErrOffLoop}
	}
	c, err = t.Loop().Dial(ctx, address, opts.Net)
	if err != nil || opts.TLS == nil {
		return c, err
	}
	shaken := false
	defer func() { // also when a function of the TLS configuration panics
		if !shaken {
			_ = c.Close() // the handshake's error says more
			c = nil
		}
	}()
	err = tlslayer.Client(ctx, c, tlslayer.ConfigFor(opts.TLS, host(address)), opts.HandshakeTimeout)
	shaken = err == nil
	return c, err
}

// host returns the name of the host in an address that was dialed.
func host(address string) string {
	if strings.HasPrefix(address, "unix:") {
		return ""
	}
	name, _, _ := net.SplitHostPort(address)
	return cmp.Or(name, "localhost")
}
