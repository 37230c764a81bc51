package ws

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
)

// A ping comes PingInterval after the handshake, the last message or the last pong, and
// at most one check later: not a whole interval. The test's calls stand for the timer's.
func TestKeepAliveCountsFromTheLastBytes(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		checks := func(c *Conn) (n int) {
			for pinged := false; !pinged; pinged = c.pinged {
				c.checkAlive()
				n++
			}
			return n
		}
		got := make(chan int, 3)
		srv := &Server{Options: Options{PingInterval: time.Hour}, Handler: func(ctx context.Context, c *Conn) error {
			got <- checks(c) // idle since the handshake
			m, err := c.Receive(ctx)
			if err != nil {
				return err
			}
			m.Release()
			got <- checks(c) // idle since a message
			c.receivePong(make([]byte, 8))
			got <- checks(c) // idle since a pong
			return nil
		}}
		g := backendtest.Group(t, v, 1)
		ls, err := g.Listen("127.0.0.1:0", loop.ListenOptions{})
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- g.Serve(ctx, ls, srv) }()
		nc, err := net.Dial("tcp", ls.Addr().String())
		require.NoError(t, err)
		_, err = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		require.NoError(t, err)
		r := bufio.NewReader(nc)
		resp, err := http.ReadResponse(r, nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
		require.Equal(t, aliveChecks, <-got)
		_, err = io.WriteString(nc, "\x81\x81\x00\x00\x00\x00m")
		require.NoError(t, err)
		require.Equal(t, 1+aliveChecks, <-got, "the first one sees the message")
		require.Equal(t, aliveChecks, <-got)
		require.NoError(t, nc.Close())
		stop()
		require.NoError(t, <-served)
	})
}
