package ws_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// The end of a stream is one between messages; in the middle of one something is missing.
func TestNetConnHalfMessage(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		result := make(chan error, 1)
		srv := echoServer(e)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			_, err := io.ReadAll(c.NetConn(ctx, ws.Binary))
			result <- err
			return nil
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.send(append(fr(frame.Binary, false, "half of a mes"), closeFrame(1000, "")...))
		require.True(t, closedByPeer(1000)(<-result))
		toTheEnd(p)
	})
}

// A NetConn does what golang.org/x/net says that a net.Conn does.
func TestNetConnAsNetConn(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		if testing.Short() && e == ws.Adapter {
			return // it takes seconds, and nothing in it depends on the engine
		}
		g := backendtest.Group(t, v, 2)
		conns := make(chan *ws.Conn, 1)
		srv := echoServer(e)
		srv.OnGoroutine = true
		srv.CloseTimeout = 10 * time.Millisecond // who has closed does not read, and the other end may wait for that
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			conns <- c
			<-ctx.Done()
			return nil
		}
		addr := serve(t, g, srv)
		nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
			var c *ws.Conn
			err = g.Loops()[1].Call(context.Background(), "dial", func(ctx context.Context) (err error) {
				c, err = ws.Dial(ctx, "ws://"+addr, ws.DialOptions{Options: ws.Options{Engine: e, CloseTimeout: srv.CloseTimeout}})
				return err
			})
			if err != nil {
				return nil, nil, nil, err
			}
			d := <-conns
			return c.NetConn(context.Background(), ws.Binary), d.NetConn(context.Background(), ws.Binary), func() {
				_ = c.CloseNow()
				_ = d.CloseNow()
			}, nil
		})
	})
}
