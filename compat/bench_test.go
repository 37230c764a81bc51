package compat_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/tlstest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/tcp"
)

// BenchmarkRoundTrip sends 64 bytes there and back over one connection, with a net client
// in the same process. docs/porting.md has its results.
func BenchmarkRoundTrip(b *testing.B) {
	serverConfig, clientConfig := tlstest.Configs()
	echo := func(c net.Conn) error { return chunkedCopy(c, c) }
	plain := func(address string) (net.Conn, error) { return net.Dial("tcp", address) }
	encrypted := func(address string) (net.Conn, error) { return tls.Dial("tcp", address, clientConfig) }
	handlers := []struct {
		name    string
		dial    func(string) (net.Conn, error)
		handler tcp.Handler
	}{
		{"task", plain, func(_ context.Context, c *loop.Stream) error { return echo(c) }},
		{"task,TLS", encrypted, func(ctx context.Context, c *loop.Stream) error {
			if err := tcp.StartTLSServer(ctx, c, serverConfig); err != nil {
				return err
			}
			return echo(c)
		}},
		{"task,tls.Conn", encrypted, func(_ context.Context, c *loop.Stream) error { return echo(tls.Server(c, serverConfig)) }},
		{"task,Growable", plain, func(_ context.Context, c *loop.Stream) error {
			gs, err := compat.NewGrowableSyncStream(c, compat.Options{Exact: true})
			if err != nil {
				return err
			}
			var p [64]byte
			for err == nil {
				err = gs.Run(func(rw io.ReadWriter) error {
					if _, err := io.ReadFull(rw, p[:]); err != nil {
						return err
					}
					_, err := rw.Write(p[:])
					return err
				})
			}
			return err
		}},
	}
	v := backendtest.Variants()[0]
	for _, h := range handlers {
		b.Run(h.name, func(b *testing.B) {
			g := backendtest.Group(b, v, 1)
			ls, err := g.Listen("127.0.0.1:0", loop.ListenOptions{})
			require.NoError(b, err)
			ctx, stop := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- g.Serve(ctx, ls, &tcp.Server{Handler: h.handler}) }()
			roundTrips(b, h.dial, ls.Addr().String())
			stop()
			require.NoError(b, <-done)
		})
	}
	b.Run("compat.Conn", func(b *testing.B) {
		g := backendtest.Group(b, v, 1)
		ln, err := compat.Listen(g, "127.0.0.1:0", loop.ListenOptions{})
		require.NoError(b, err)
		serveAndClose(b, ln, echo, plain)
	})
	b.Run("net", func(b *testing.B) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		serveAndClose(b, ln, echo, plain)
	})
	b.Run("net,tls.Conn", func(b *testing.B) {
		ln, err := tls.Listen("tcp", "127.0.0.1:0", serverConfig)
		require.NoError(b, err)
		serveAndClose(b, ln, echo, encrypted)
	})
}

func serveAndClose(b *testing.B, ln net.Listener, echo func(net.Conn) error, dial func(string) (net.Conn, error)) {
	go func() {
		if c, err := ln.Accept(); err == nil {
			_ = echo(c) // it ends with its peer
			_ = c.Close()
		}
	}()
	roundTrips(b, dial, ln.Addr().String())
	require.NoError(b, ln.Close())
}

func roundTrips(b *testing.B, dial func(string) (net.Conn, error), address string) {
	c, err := dial(address)
	require.NoError(b, err)
	p := make([]byte, 64)
	for b.Loop() {
		if _, err := c.Write(p); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, p); err != nil {
			b.Fatal(err)
		}
	}
	require.NoError(b, c.Close())
}
