package ws_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/tcp"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// A handler on a goroutine may block, and uses the same methods.
func TestOnGoroutine(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.OnGoroutine = true
		var mu sync.Mutex
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			for {
				m, err := c.Receive(ctx)
				if err != nil {
					return err
				}
				mu.Lock() // a task must not do this
				goruntime.Gosched()
				mu.Unlock()
				if err := c.Send(ctx, m); err != nil {
					return err
				}
			}
		}
		addr := serve(t, backendtest.Group(t, v, 1), srv)
		var peers []*peer
		for range 4 {
			peers = append(peers, connect(t, addr))
		}
		for range 10 {
			for _, p := range peers {
				p.requireEchoes(1)
			}
		}
		peers[0].send(closeFrame(1000, ""))
		peers[0].wantCloseFrame(ws.StatusNormalClosure)
		peers[0].wantEnd()
	})
}

// A handshake that is refused is counted and logged, whether the Server or net/http has
// accepted the connection. A request that HandleHTTP answers is not counted.
func TestRefusedHandshakes(t *testing.T) {
	cause := errors.New("what the client must not see")
	for _, by := range []string{"Serve", "HTTPHandler"} {
		t.Run(by, func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				var log bytes.Buffer
				srv := echoServer()
				srv.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
				srv.Authorize = func(r *ws.Request) (http.Header, error) {
					if r.URI == "/refused" {
						return nil, &ws.Refusal{Status: http.StatusTooManyRequests, Err: cause}
					}
					return nil, nil
				}
				srv.HandleHTTP = func(r *ws.Request) *ws.Response { return &ws.Response{Status: http.StatusOK} }
				g := backendtest.Group(t, v, 1)
				var addr string
				if by == "Serve" {
					addr = serve(t, g, srv)
				} else {
					s := httptest.NewServer(srv.HTTPHandler(g))
					defer s.Close()
					addr = s.Listener.Addr().String()
				}
				for change, status := range map[[2]string]string{
					{"GET /", "GET /refused"}:                              " 429 ",
					{"Version: 13", "Version: 8"}:                          " 426 ",
					{"Host: x", "Host: x\r\nOrigin: https://evil.example"}: " 403 ",
				} {
					p := dialTCP(t, addr)
					p.send([]byte(strings.Replace(strings.Replace(request, "localhost", "x", 1), change[0], change[1], 1)))
					require.Contains(t, p.head(), status)
					p.Close()
				}
				require.Eventually(t, func() bool { return srv.Stats() == (tcp.Stats{Accepted: 3, Failed: 3}) }, patience, time.Millisecond, "%+v", srv.Stats())
				require.Equal(t, 3, strings.Count(log.String(), "a handshake failed"), log.String())
				require.Contains(t, log.String(), cause.Error())
				p := dialTCP(t, addr)
				p.send([]byte("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
				require.Contains(t, p.head(), " 200 ")
				require.Equal(t, int64(3), srv.Stats().Failed)
			})
		})
	}
}

// If a handler panics, its own connection is closed, with 1011.
func TestPanic(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			m, err := c.Receive(ctx)
			if err != nil {
				return err
			}
			if string(m.Bytes()) == "panic" {
				panic("as it was told")
			}
			return c.Send(ctx, m)
		}
		addr := serve(t, backendtest.Group(t, v, 1), srv)
		p := connect(t, addr)
		p.send(text("panic"))
		p.wantCloseFrame(ws.StatusInternalError)
		p = connect(t, addr)
		p.send(text("hello"))
		p.want(frame.Text, "hello")
		p.wantClose(ws.StatusNormalClosure)
	})
}

// If a hook panics, its connection is closed.
func TestPanicInOpened(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		addr, accepted := serverPeer(t, switching)
		opts := ws.DialOptions{Options: ws.Options{Hooks: ws.Hooks{Opened: func(*ws.Conn) { panic("as it was told") }}}}
		require.ErrorContains(t, backendtest.Run(t, g, func(ctx context.Context) error {
			_, err := ws.Dial(ctx, "ws://"+addr, opts)
			return err
		}), "as it was told")
		p := <-accepted
		defer p.Close()
		_, err := p.r.ReadByte()
		require.Error(t, err)
	})
}
