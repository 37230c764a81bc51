package tcp

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"
	"strings"
	"time"

	"github.com/noria-go/noria/internal/dialer"
	"github.com/noria-go/noria/internal/tlslayer"
	"github.com/noria-go/noria/loop"
)

// DialOptions are the options of Dial. The zero value is ready to use.
type DialOptions struct {
	// TLS is the configuration of a TLS client. If it has no ServerName, Dial uses the
	// address's host. nil means no TLS.
	TLS *tls.Config

	// HandshakeTimeout bounds the whole TLS handshake. 0 and less mean
	// DefaultHandshakeTimeout.
	HandshakeTimeout time.Duration

	// Net are the options of the connection beneath.
	Net loop.DialOptions
}

// Dial connects to address ("host:port", "unix:/path"), and waits until the connection is
// open and, with opts.TLS, the handshake is complete. Tasks and goroutines may call it. A
// task must give its own context, and the connection belongs to its loop. A goroutine's
// connection belongs to a loop of opts.Net.Group, or of a group that is started when it
// is first needed, and goroutines may use it. The caller must close the connection.
func Dial(ctx context.Context, address string, opts DialOptions) (c *loop.Stream, err error) {
	err = dialer.On(ctx, opts.Net.Group, address, func(ctx context.Context, foreign bool) (err error) {
		c, err = dial(ctx, address, opts)
		if err == nil && foreign {
			c.Friend(key).AllowGoroutines(context.Background())
		}
		return err
	})
	return c, err
}

// dial is Dial for a task of the connection's loop.
func dial(ctx context.Context, address string, opts DialOptions) (c *loop.Stream, err error) {
	c, err = loop.TaskOf(ctx).Loop().Friend(key).Dial(ctx, address, opts.Net)
	if err != nil || opts.TLS == nil {
		return c, err
	}
	shaken := false
	defer func() { // also if a function of the TLS configuration panics
		if !shaken {
			_ = c.Close() // the handshake's error is the cause
			c = nil
		}
	}()
	err = tlslayer.Client(ctx, c, tlslayer.ConfigFor(opts.TLS, host(address)), opts.HandshakeTimeout)
	shaken = err == nil
	return c, err
}

// host returns the host of an address to dial, for its certificate.
func host(address string) string {
	if strings.HasPrefix(address, "unix:") {
		return ""
	}
	name, _, _ := net.SplitHostPort(address)
	return cmp.Or(name, "localhost")
}
