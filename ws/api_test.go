package ws_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	goruntime "runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/tcp"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// A push server waits for whichever comes first, the peer or a queue.
func TestReadable(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		queue := loop.NewQueue[string](10)
		srv := echoServer()
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			for {
				i, err := loop.WaitAny(ctx, c.Readable(), queue)
				if err != nil {
					return err
				}
				if i == 1 {
					s, _ := queue.TryGet()
					if err := c.SendText(ctx, s); err != nil {
						return err
					}
					continue
				}
				m, err := c.TryReceive()
				if err != nil {
					return err
				}
				if m == nil {
					return errors.New("it was readable, and there was nothing")
				}
				if err := c.Send(ctx, m); err != nil {
					return err
				}
			}
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		for i := range 20 {
			half := text("from the peer")
			p.send(half[:5]) // not yet a message: the queue must not wait for it
			require.NoError(t, queue.TryPut(fmt.Sprint(i)))
			p.want(frame.Text, fmt.Sprint(i))
			p.send(half[5:])
			p.want(frame.Text, "from the peer")
		}
	})
}

// A handler on a goroutine may block, and has the same API.
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
				mu.Lock() // as a task must not
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

// NetConn: bytes through messages, both ways.
func TestNetConn(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 2)
		srv := echoServer()
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			nc := c.NetConn(ctx, ws.TypeBinary)
			_, err := io.Copy(struct{ io.Writer }{nc}, struct{ io.Reader }{nc})
			return err
		}
		client(t, g, "ws://"+serve(t, g, srv), ws.DialOptions{}, func(ctx context.Context, c *ws.Conn) error {
			nc := c.NetConn(ctx, ws.TypeBinary)
			want := bytes.Repeat([]byte("bytes "), 20_000)
			for p := want; len(p) > 0; {
				n := min(len(p), 7000)
				if _, err := nc.Write(p[:n]); err != nil {
					return err
				}
				p = p[n:]
			}
			got := make([]byte, len(want))
			if _, err := io.ReadFull(nc, got); err != nil {
				return err
			}
			if !bytes.Equal(got, want) {
				return errors.New("other bytes came back")
			}
			if err := nc.SetReadDeadline(time.Now()); err != nil {
				return err
			}
			if _, err := nc.Read(got); !isTimeout(err) {
				return fmt.Errorf("a deadline: %v", err)
			}
			if n, err := nc.Read(nil); n != 0 || err != nil {
				return fmt.Errorf("reading nothing: %d, %w", n, err)
			}
			return nc.SetReadDeadline(time.Time{})
		})
	})
}

// Requests of a net/http server, plain and over TLS.
func TestHTTPHandler(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				g := backendtest.Group(t, v, 2)
				mux := http.NewServeMux()
				mux.Handle("/ws", echoServer().HTTPHandler(g))
				s := httptest.NewUnstartedServer(mux)
				scheme := "ws://"
				if secure {
					s.StartTLS()
					scheme = "wss://"
				} else {
					s.Start()
				}
				defer s.Close()
				_, trust := tlsConfigs()
				client(t, g, scheme+s.Listener.Addr().String()+"/ws", ws.DialOptions{TLS: trust}, func(ctx context.Context, c *ws.Conn) error {
					for _, n := range []int{1, 1000, 300_000} {
						if err := c.SendBinary(ctx, make([]byte, n)); err != nil {
							return err
						}
						m, err := c.Receive(ctx)
						if err != nil {
							return err
						}
						if m.Len() != n {
							return fmt.Errorf("%d bytes, want %d", m.Len(), n)
						}
						m.Release()
					}
					return nil
				})
				resp, err := s.Client().Get(s.URL + "/ws")
				require.NoError(t, err)
				require.Equal(t, http.StatusUpgradeRequired, resp.StatusCode)
				require.NoError(t, resp.Body.Close())
				s.Client().CloseIdleConnections()
			})
		})
	}
}

// A connection over TLS ends when its handler does, whether the peer hangs up or
// not.
func TestHTTPHandlerHangsUp(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		srv := echoServer()
		srv.Handler = func(context.Context, *ws.Conn) error { return nil }
		s := httptest.NewUnstartedServer(srv.HTTPHandler(g))
		s.StartTLS()
		defer s.Close()
		raw, err := net.Dial("tcp", s.Listener.Addr().String())
		require.NoError(t, err)
		defer raw.Close()
		require.NoError(t, raw.SetDeadline(time.Now().Add(30*time.Second)))
		c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
		_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
		require.NoError(t, err)
		_, err = c.Write([]byte{0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8}) // a close frame, masked with zeros
		require.NoError(t, err)
		_, err = io.ReadAll(c) // up to TLS's goodbye
		require.NoError(t, err)
		_, err = io.ReadAll(raw)
		require.NoError(t, err, "the connection itself is still open")
	})
}

// Connections that net/http accepted are counted like others, and bounded.
func TestHTTPHandlerCounts(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.MaxConns = 2
		s := httptest.NewServer(srv.HTTPHandler(backendtest.Group(t, v, 2)))
		defer s.Close()
		addr := s.Listener.Addr().String()
		p, q := connect(t, addr), connect(t, addr)
		p.requireEchoes(1)
		q.requireEchoes(1)
		require.Equal(t, tcp.Stats{Accepted: 2, Active: 2}, srv.Stats())
		full := dialTCP(t, addr)
		full.send([]byte(request))
		require.Contains(t, full.head(), " 503 ")

		p.send(closeFrame(1000, ""))
		p.wantCloseFrame(ws.StatusNormalClosure)
		q.send(fr(frame.Continuation, true, "")) // of no message
		q.wantCloseFrame(ws.StatusProtocolError)
		q.Close()
		require.Eventually(t, func() bool { return srv.Stats() == (tcp.Stats{Accepted: 2, Failed: 1}) }, patience, time.Millisecond)
		connect(t, addr).requireEchoes(1)
	})
}

// A handshake that is refused is counted and logged, whoever has accepted the
// connection; a request that HandleHTTP answers is none.
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

// However many come at once, no more are served than there may be; and a handler
// sees the values that the request's context has.
func TestHTTPHandlerMaxConns(t *testing.T) {
	type key struct{}
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		const clients, most = 20, 3
		srv := echoServer()
		srv.MaxConns = most
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			if ctx.Value(key{}) != "a value" {
				return errors.New("the value is missing")
			}
			return echo(ctx, c)
		}
		upgrade := srv.HTTPHandler(backendtest.Group(t, v, 2))
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			upgrade.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{}, "a value")))
		}))
		defer s.Close()
		peers := make([]*peer, clients)
		for i := range peers {
			peers[i] = dialTCP(t, s.Listener.Addr().String())
		}
		var wg sync.WaitGroup
		var served atomic.Int64
		for _, p := range peers {
			wg.Go(func() {
				_, _ = p.Write([]byte(request))
				line, _ := p.r.ReadString('\n')
				if strings.Contains(line, " 101 ") {
					served.Add(1)
				} else if !strings.Contains(line, " 503 ") {
					t.Errorf("answered with %q", line)
				}
			})
		}
		wg.Wait()
		require.Equal(t, int64(most), served.Load())
		for _, p := range peers {
			p.Close()
		}
		require.Eventually(t, func() bool { return srv.Stats().Active == 0 }, patience, time.Millisecond)
		require.Equal(t, tcp.Stats{Accepted: most, Failed: most}, srv.Stats()) // they ended without a Close frame
	})
}

// A deadline that passes is told as one, wherever the handler runs.
func TestDeadlineErrors(t *testing.T) {
	calls := map[string]func(ctx context.Context, c *ws.Conn) error{
		"Receive":    func(ctx context.Context, c *ws.Conn) error { _, err := c.Receive(ctx); return err },
		"NextReader": func(ctx context.Context, c *ws.Conn) error { _, _, err := c.NextReader(ctx); return err },
		"Ping":       func(ctx context.Context, c *ws.Conn) error { _, err := c.Ping(ctx); return err },
	}
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		for _, onGoroutine := range []bool{false, true} {
			srv := echoServer()
			srv.OnGoroutine = onGoroutine
			srv.Handler = func(ctx context.Context, c *ws.Conn) error {
				for name, call := range calls {
					for _, limit := range []time.Duration{0, time.Microsecond, time.Millisecond} {
						cctx, cancel := context.WithTimeout(ctx, limit)
						err := call(cctx, c)
						cancel()
						if !errors.Is(err, context.DeadlineExceeded) {
							return fmt.Errorf("%s, %v: %w", name, limit, err)
						}
						cctx, cancel = context.WithCancel(ctx)
						cancel()
						if err := call(cctx, c); !errors.Is(err, context.Canceled) {
							return fmt.Errorf("%s, cancelled: %w", name, err)
						}
					}
				}
				return nil
			}
			p := connect(t, serve(t, g, srv))
			p.wantClose(ws.StatusNormalClosure)
		}
	})
}

// A hook that panics leaves no connection behind.
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

// A group that has stopped upgrades nothing.
func TestHTTPHandlerStopped(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 2)
		s := httptest.NewServer(echoServer().HTTPHandler(g))
		defer s.Close()
		require.NoError(t, g.Stop())
		p := dialTCP(t, s.Listener.Addr().String())
		p.send([]byte(request))
		require.Contains(t, p.head(), " 503 ")
	})
}

// What cannot be a message is refused where it is made.
func TestTypes(t *testing.T) {
	require.PanicsWithValue(t, "ws: NewMessage of a message of type ping, want Text or Binary", func() { ws.NewMessage(ws.Type(frame.Ping), nil) })
	require.PanicsWithValue(t, "ws: Prepare of a message of type continuation, want Text or Binary", func() { ws.Prepare(0, nil) })
}

// A panic closes its own connection, with 1011.
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

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// A request over HTTP/2 cannot be upgraded, and a page can be had by one.
func TestHTTP2(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.HandleHTTP = func(r *ws.Request) *ws.Response {
			if r.URI != "/" {
				return nil
			}
			return &ws.Response{Status: http.StatusOK, Body: []byte("a page")}
		}
		s := httptest.NewUnstartedServer(srv.HTTPHandler(backendtest.Group(t, v, 1)))
		s.EnableHTTP2 = true
		s.StartTLS()
		defer s.Close()
		again := false // the answer before has not ended the connection
		trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { again = i.Reused }}
		for i, uri := range []string{"/", "/other", "/"} {
			q, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), http.MethodGet, s.URL+uri, nil)
			require.NoError(t, err)
			r, err := s.Client().Do(q)
			require.NoError(t, err)
			require.Equal(t, i > 0, again, uri)
			status := map[string]int{"/": http.StatusOK, "/other": http.StatusHTTPVersionNotSupported}[uri]
			require.Equal(t, 2, r.ProtoMajor)
			require.Equal(t, status, r.StatusCode)
			p, err := io.ReadAll(r.Body)
			require.NoError(t, errors.Join(err, r.Body.Close()))
			require.Equal(t, status == http.StatusOK, string(p) == "a page")
		}
		s.Client().CloseIdleConnections()
	})
}
