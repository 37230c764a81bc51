package ws_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/tcp"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// HTTPHandler upgrades requests of a net/http server, with and without TLS.
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

// acceptedOn notes the loop that each connection was accepted on.
type acceptedOn struct {
	net.Listener
	loops sync.Map // of *loop.Loop, by the peer's address
}

func (a *acceptedOn) Accept() (net.Conn, error) {
	nc, err := a.Listener.Accept()
	if c, ok := nc.(*compat.Conn); ok {
		a.loops.Store(c.RemoteAddr().String(), c.Loop())
	}
	return nc, err
}

// What a group's own listener accepts for net/http stays on its loop.
func TestHTTPHandlerKeepsTheLoop(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 4)
		ln, err := compat.Listen(g, "127.0.0.1:0", loop.ListenOptions{Spread: true})
		require.NoError(t, err)
		accepted := &acceptedOn{Listener: ln}
		served := make(chan *loop.Loop, 1)
		srv := echoServer()
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			served <- c.Loop()
			return nil
		}
		s := httptest.NewUnstartedServer(srv.HTTPHandler(g))
		require.NoError(t, s.Listener.Close())
		s.Listener = accepted
		s.Start()
		defer s.Close()
		for range 2 * len(g.Loops()) {
			g.Loop() // so that the group's next loop is not always the one that accepts
			p := connect(t, ln.Addr().String())
			on, _ := accepted.loops.Load(p.LocalAddr().String())
			require.Same(t, on, <-served)
			p.wantClose(ws.StatusNormalClosure)
		}
	})
}

// A connection over TLS ends when its handler returns, even if the peer does not hang up.
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
		_, err = io.ReadAll(c) // up to TLS's close_notify
		require.NoError(t, err)
		_, err = io.ReadAll(raw)
		require.NoError(t, err, "the connection itself is still open")
	})
}

// Connections of net/http are counted and bounded like others.
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

// However many clients connect at once, at most MaxConns are served. A handler's context
// has the values of its request's context.
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

// HTTPHandler of a group that has stopped answers with 503.
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

// A connection of net/http has the peer's address, over TLS too.
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
				_ = receiveOne(ctx, c) // until the server closes
				return nil
			})
			require.Equal(t, want, <-addrs, "secure: %v", secure)
			s.Close()
		}
	})
}

// An overloaded loop takes a connection of net/http over late, or refuses it, but does not
// keep one that no task serves.
func TestHTTPHandlerOnABusyLoop(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g, err := loop.StartGroup(loop.GroupOptions{Loops: 1, New: func(int) (runtime.Runtime, error) { return v.New() },
			Loop: loop.LoopOptions{MaxPosts: 2}})
		require.NoError(t, err)
		defer func() { require.NoError(t, g.Stop()) }()
		l := g.Loops()[0]
		srv := echoServer()
		s := httptest.NewServer(srv.HTTPHandler(g))
		defer s.Close()
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						_ = l.Post(func() {})
					}
				}
			})
		}
		var peers []*peer
		for range 100 {
			p := dialTCP(t, s.Listener.Addr().String())
			p.send([]byte(request))
			peers = append(peers, p)
		}
		for _, p := range peers {
			_, err := io.ReadFull(p, make([]byte, len("HTTP/1.1 "))) // an answer, or the end of the connection
			if err != nil {
				require.ErrorIs(t, err, io.EOF)
			}
		}
		close(stop)
		wg.Wait()
		for _, p := range peers {
			require.NoError(t, p.Close())
		}
		require.Eventually(t, func() bool {
			st, err := l.Friend(friend.Key{}).Stats()
			return err == nil && st.Streams == 0 && srv.Stats().Active == 0
		}, patience, patience/1000, "connections are left that no task serves")
	})
}

// If a group stops while requests are upgraded, each client that was told so sees the end
// of its connection.
func TestHTTPHandlerWhileGroupStops(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		upgraded := 0
		for range 20 {
			g := backendtest.Group(t, v, 2)
			srv := echoServer()
			s := httptest.NewServer(srv.HTTPHandler(g))
			var peers []*peer
			for range 20 {
				peers = append(peers, dialTCP(t, s.Listener.Addr().String()))
			}
			var wg sync.WaitGroup
			for _, p := range peers {
				wg.Go(func() { _, _ = p.Write([]byte(request)) })
			}
			require.NoError(t, g.Stop())
			wg.Wait()
			for _, p := range peers {
				require.NoError(t, p.SetReadDeadline(time.Now().Add(patience)))
				line, _ := p.r.ReadString('\n')
				if strings.Contains(line, " 101 ") {
					upgraded++
					_, err := io.Copy(io.Discard, p.r)
					require.False(t, isTimeout(err), "no end: %v", err)
				}
				require.NoError(t, p.Close())
			}
			s.Close()
			require.Eventually(t, func() bool { return srv.Stats().Active == 0 }, patience, time.Millisecond)
		}
		t.Log(upgraded, "were upgraded")
	})
}

// A request over HTTP/2 is not upgraded, but HandleHTTP can answer it.
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
		again := false // the connection was reused after the first answer
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
