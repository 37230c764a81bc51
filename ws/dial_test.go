package ws_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/ws"
)

// A wss dial that fails returns the cause, and not net.ErrClosed.
func TestDialErrorsOverTLS(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		srv := echoServer()
		server, trust := tlsConfigs()
		srv.TLS = server
		srv.Authorize = func(*ws.Request) (http.Header, error) { return nil, errors.New("no") }
		addr := serve(t, g, srv)
		dial := func(opts ws.DialOptions) (err error) {
			require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
				_, err = ws.Dial(ctx, "wss://"+addr, opts)
				return nil
			}))
			return err
		}
		err := dial(ws.DialOptions{TLS: trust})
		var status *ws.StatusError
		require.ErrorAs(t, err, &status)
		require.NotErrorIs(t, err, net.ErrClosed)
		err = dial(ws.DialOptions{})
		require.ErrorContains(t, err, "certificate")
		require.NotErrorIs(t, err, net.ErrClosed)
	})
}

// Dial returns its context's error, whatever step the context interrupts.
func TestDialContextEnds(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		begun := make(chan func(), 1) // called when a request has begun to arrive
		go func() {                   // reads one byte of each request, and answers none
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
				_, _ = c.Read(make([]byte, 1))
				(<-begun)()
			}
		}()
		defer ln.Close()
		for _, c := range []struct {
			scheme string
			header int // bytes; the client has to wait to send many
			want   error
		}{
			{"ws", 10, context.Canceled},
			{"ws", 10, context.DeadlineExceeded},
			{"ws", 16 << 20, context.Canceled},
			{"wss", 10, context.Canceled},
			{"wss", 10, context.DeadlineExceeded},
		} {
			t.Run(fmt.Sprintf("%s,header=%d,%v", c.scheme, c.header, c.want), func(t *testing.T) {
				opts := ws.DialOptions{Header: http.Header{"X": {strings.Repeat("x", c.header)}}}
				require.ErrorIs(t, backendtest.Run(t, g, func(ctx context.Context) error {
					dctx, cancel := context.WithCancel(ctx)
					if c.want == context.DeadlineExceeded {
						cancel()
						dctx, cancel = context.WithTimeout(ctx, 20*time.Millisecond)
						begun <- func() {}
					} else {
						begun <- cancel
					}
					defer cancel()
					_, err := ws.Dial(dctx, c.scheme+"://"+ln.Addr().String(), opts)
					return err
				}), c.want)
			})
		}
	})
}

// An error of Dial does not have the password of its URL.
func TestDialKeepsThePassword(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		for _, url := range []string{"ws://me:secret@127.0.0.1:1/", "ftp://me:secret@127.0.0.1/", "ws://me:secret@127.0.0.1:port/"} {
			err := backendtest.Run(t, g, func(ctx context.Context) error {
				_, err := ws.Dial(ctx, url, ws.DialOptions{})
				return err
			})
			require.ErrorContains(t, err, "ws: dial")
			require.NotContains(t, err.Error(), "secret")
		}
	})
}

// Conn.Request has the Host that the client sent.
func TestDialHost(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		srv := echoServer()
		hosts := make(chan string, 1)
		srv.Handler = func(_ context.Context, c *ws.Conn) error { hosts <- c.Request().Host; return nil }
		client(t, g, "ws://"+serve(t, g, srv), ws.DialOptions{Host: "example.org"}, func(ctx context.Context, c *ws.Conn) error {
			require.Equal(t, "example.org", c.Request().Host)
			_ = receiveOne(ctx, c)
			return nil
		})
		require.Equal(t, "example.org", <-hosts)
	})
}
