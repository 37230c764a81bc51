package tcp

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"
	"strings"
	"time"

	"github.com/noria-go/noria/internal/dialer"
	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/internal/tlslayer"
	"github.com/noria-go/noria/loop"
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

// Dial connects to address ("host:port", "unix:/path") and waits until the connection,
// with TLS if opts has it, is open. It may be called from anywhere. A task gives its
// own context, and the connection belongs to its loop. A goroutine's belongs to a loop
// of opts.Net.Group, or of a group that is started when it is first needed, and may be
// used from goroutines. The caller must close it.
func Dial(ctx context.Context, address string, opts DialOptions) (c *loop.Stream, err error) {
	err = dialer.On(ctx, opts.Net.Group, address, func(ctx context.Context, foreign bool) (err error) {
		c, err = dial(ctx, address, opts)
		if err == nil && foreign {
			c.Friend(friend.Key{}).AllowGoroutines(context.Background())
		}
		return err
	})
	return c, err
}

// dial is Dial in a task of the connection's loop.
func dial(ctx context.Context, address string, opts DialOptions) (c *loop.Stream, err error) {
	c, err = loop.TaskOf(ctx).Loop().Friend(friend.Key{}).Dial(ctx, address, opts.Net)
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
