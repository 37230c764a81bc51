package ws_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// What must not hold the loop, or go on for ever; and addresses and names as they are.

// answers reports whether the loop does something else within patience.
func answers(t *testing.T, l *loop.Loop) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, l.Call(ctx, "something else", func(context.Context) error { return nil }))
}

// A Ping after a read deadline that has passed says so, and holds nobody up.
func TestPingAfterReadDeadline(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		conns, results := make(chan *ws.Conn, 1), make(chan error, 3)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
				return err
			}
			conns <- c
			_, err := c.Receive(ctx)
			results <- err
			_, err = c.Ping(ctx)
			results <- err
			if err := c.SetReadDeadline(time.Time{}); err != nil {
				return err
			}
			_, err = c.Ping(ctx)
			results <- err
			return receiveOne(ctx, c)
		}
		g := backendtest.Group(t, v, 1)
		p := connect(t, serve(t, g, srv))
		c := <-conns
		answers(t, c.Loop())
		require.ErrorIs(t, <-results, os.ErrDeadlineExceeded)
		require.ErrorIs(t, <-results, os.ErrDeadlineExceeded)
		for range 2 { // the first one's pong is of no use any more
			h, payload, err := p.read()
			require.NoError(t, err)
			require.Equal(t, frame.Ping, h.Op)
			p.send(fr(frame.Pong, true, payload))
		}
		require.NoError(t, <-results)
	})
}

// Close does not wait for a Writer longer than CloseTimeout: it may be the caller's.
func TestCloseWithWriterOpen(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.CloseTimeout = 50 * time.Millisecond
		closed := make(chan error, 1)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			w, err := c.NextWriter(ctx, ws.TypeText)
			if err != nil {
				return err
			}
			if _, err := w.Write([]byte("half")); err != nil {
				return err
			}
			if err := w.Flush(); err != nil {
				return err
			}
			// Somebody else's waits behind it, and is lost with it.
			if err := loop.Offload(ctx, func() { _ = c.SendText(context.Background(), "other") }); err != nil {
				return err
			}
			closed <- c.Close(ws.StatusInternalError, "gave up")
			return nil
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		require.NoError(t, <-closed)
		h, payload, err := p.read()
		require.NoError(t, err)
		require.Equal(t, "half", payload)
		require.False(t, h.Fin)
		p.wantCloseFrame(ws.StatusInternalError)
	})
}

// What comes after the Close frame is refused, and not accepted and lost.
func TestSendAfterCloseFrame(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.CloseTimeout = patience
		conns := make(chan *ws.Conn, 1)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			conns <- c
			return nil
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.wantCloseFrame(ws.StatusNormalClosure)
		require.ErrorIs(t, (<-conns).SendText(context.Background(), "late"), runtime.ErrClosed)
		p.send(fr(frame.Close, true, "\x03\xe8"))
	})
}

// A function that was posted may send as long as there is room, and is told when there
// is none: it must not wait, for it would hold the loop.
func TestSendFromPostedFunction(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.SendQueue = 10_000
		srv.WriteTimeout = -1
		conns := make(chan *ws.Conn, 1)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			conns <- c
			return receiveOne(ctx, c)
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		defer p.Close()
		c := <-conns
		sent := make(chan error, 1)
		require.NoError(t, c.Loop().Post(func() {
			for {
				if err := c.SendBinary(context.Background(), make([]byte, 1000)); err != nil {
					sent <- err
					return
				}
			}
		}))
		require.ErrorIs(t, <-sent, loop.ErrOffLoop)
	})
}

// The end of the drain time ends what a handler on a goroutine waits for, whatever
// context it has given.
func TestDrainOnGoroutine(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		bg := context.Background()
		for what, call := range map[string]func(c *ws.Conn) error{
			"receive": func(c *ws.Conn) error { _, err := c.Receive(bg); return err },
			"reader":  func(c *ws.Conn) error { _, _, err := c.NextReader(bg); return err },
			"ping":    func(c *ws.Conn) error { _, err := c.Ping(bg); return err },
			"netconn": func(c *ws.Conn) error { _, err := c.NetConn(bg, ws.TypeBinary).Read(make([]byte, 10)); return err },
			"writer": func(c *ws.Conn) error {
				w, err := c.NextWriter(bg, ws.TypeBinary)
				for err == nil {
					_, err = w.Write(make([]byte, 10_000))
				}
				return err
			},
		} {
			t.Run(what, func(t *testing.T) {
				srv := echoServer()
				srv.OnGoroutine = true
				srv.DrainTime = 10 * time.Millisecond
				started, ended := make(chan struct{}), make(chan error, 1)
				srv.Handler = func(_ context.Context, c *ws.Conn) error {
					close(started)
					err := call(c)
					ended <- err
					return err
				}
				addr, stop := serveUntil(t, backendtest.Group(t, v, 1), srv)
				p := connect(t, addr)
				defer p.Close()
				<-started
				stop()
				select {
				case err := <-ended:
					require.Error(t, err)
				case <-time.After(patience):
					t.Errorf("%s goes on", what)
				}
			})
		}
	})
}

// A connection that net/http accepted has the peer's address, over TLS too.
func TestHTTPHandlerAddresses(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, secure := range []bool{false, true} {
			g := backendtest.Group(t, v, 1)
			addrs := make(chan [2]string, 1)
			srv := echoServer()
			srv.Handler = func(_ context.Context, c *ws.Conn) error {
				addrs <- [2]string{fmt.Sprint(c.RemoteAddr()), fmt.Sprint(c.LocalAddr())}
				return nil
			}
			s := httptest.NewUnstartedServer(srv.HTTPHandler(g))
			var o ws.DialOptions
			if secure {
				s.StartTLS()
				o.TLS = s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
				o.TLS.ServerName = "example.com"
			} else {
				s.Start()
			}
			var want [2]string
			client(t, g, "ws"+s.URL[4:], o, func(ctx context.Context, c *ws.Conn) error {
				want = [2]string{c.LocalAddr().String(), c.RemoteAddr().String()}
				_ = receiveOne(ctx, c) // the server closes
				return nil
			})
			require.Equal(t, want, <-addrs, "secure: %v", secure)
			s.Close()
		}
	})
}

// Request tells the Host that was sent.
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
