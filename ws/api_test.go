package ws_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// Streaming: what is read as it comes is written as it is read.
func TestReaderAndWriter(t *testing.T) {
	for _, compressed := range []bool{false, true} {
		for _, goroutine := range []bool{false, true} {
			t.Run(fmt.Sprintf("deflate=%v,goroutine=%v", compressed, goroutine), func(t *testing.T) {
				each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
					g := backendtest.Group(t, v, 2)
					srv := echoServer(e)
					srv.MaxMessage, srv.OnGoroutine = 1000, goroutine // which does not bound a Reader
					opts := ws.DialOptions{Options: ws.Options{Engine: e, MaxMessage: 2 << 20}}
					if compressed {
						srv.Compression, opts.Compression = &ws.Compression{}, &ws.Compression{}
					}
					srv.Handler = func(ctx context.Context, c *ws.Conn) error {
						for {
							typ, r, err := c.NextReader(ctx)
							if err != nil {
								return err
							}
							w, err := c.NextWriter(ctx, typ)
							if err != nil {
								return err
							}
							if _, err := io.Copy(w, r); err != nil {
								return err
							}
							if err := w.Close(); err != nil {
								return err
							}
						}
					}
					client(t, g, "ws://"+serve(t, g, srv), opts, func(ctx context.Context, c *ws.Conn) error {
						for _, n := range []int{0, 1, 999, 100_000, 1 << 20} {
							want := bytes.Repeat([]byte("noria "), n/6+1)[:n]
							if err := c.SendBinary(ctx, want); err != nil {
								return err
							}
							m, err := c.Receive(ctx)
							if err != nil {
								return err
							}
							if !bytes.Equal(m.Bytes(), want) {
								return fmt.Errorf("%d bytes came back as %d", n, m.Len())
							}
							m.Release()
						}
						return nil
					})
				})
			})
		}
	}
}

// Many goroutines and tasks of other loops send on one connection: each one's
// messages arrive in their order, and none is lost.
func TestSendFromAnywhere(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		const senders, each = 8, 200
		g := backendtest.Group(t, v, 2)
		srv := echoServer(e)
		srv.SendQueue = 10_000 // so that they have to wait
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			var wg sync.WaitGroup
			send := func(ctx context.Context, id int) error {
				for i := range each {
					if err := c.SendText(ctx, fmt.Sprintf("%d %d %s", id, i, strings.Repeat("x", i))); err != nil {
						return err
					}
				}
				return nil
			}
			errs := make([]error, senders)
			for id := range senders {
				wg.Go(func() {
					if id%2 == 0 {
						errs[id] = send(context.Background(), id)
						return
					}
					errs[id] = g.Loop().Call(context.Background(), "sender", func(ctx context.Context) error { return send(ctx, id) })
				})
			}
			if err := runtime.Offload(ctx, wg.Wait); err != nil {
				return err
			}
			return errors.Join(errs...)
		}
		p := connect(t, serve(t, g, srv))
		next := make([]int, senders)
		for range senders * each {
			h, payload, err := p.read()
			require.NoError(t, err)
			require.Equal(t, frame.Text, h.Op)
			var id, i int
			_, err = fmt.Sscanf(payload, "%d %d", &id, &i)
			require.NoError(t, err)
			require.Equal(t, next[id], i)
			next[id]++
		}
		p.wantClose(ws.StatusNormalClosure)
	})
}

// A broadcast, to plain and to compressed connections, among other messages.
func TestPrepared(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		g := backendtest.Group(t, v, 2)
		small, large := ws.Prepare(ws.Text, []byte("small")), ws.Prepare(ws.Binary, bytes.Repeat([]byte("large "), 5000))
		srv := echoServer(e)
		srv.Compression = &ws.Compression{}
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			for range 3 {
				m, err := c.Receive(ctx)
				if err != nil {
					return err
				}
				if err := errors.Join(c.SendPrepared(ctx, small), c.SendPrepared(ctx, large), c.Send(ctx, m)); err != nil {
					return err
				}
			}
			_, err := c.Receive(ctx)
			return err
		}
		addr := serve(t, g, srv)
		for _, compression := range []*ws.Compression{nil, {}} {
			client(t, g, "ws://"+addr, ws.DialOptions{Options: ws.Options{Engine: e, Compression: compression}}, func(ctx context.Context, c *ws.Conn) error {
				for range 3 {
					mine := strings.Repeat("large mine ", 100)
					if err := c.SendText(ctx, mine); err != nil {
						return err
					}
					for _, want := range []string{"small", strings.Repeat("large ", 5000), mine} {
						m, err := c.Receive(ctx)
						if err != nil {
							return err
						}
						if string(m.Bytes()) != want {
							return fmt.Errorf("got %.40q, want %.40q", m.Bytes(), want)
						}
						m.Release()
					}
				}
				return nil
			})
		}
	})
}

// Ping while nobody receives, with a message in front of the pong, and while
// another task receives.
func TestPing(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		g := backendtest.Group(t, v, 2)
		client(t, g, "ws://"+serve(t, g, echoServer(e)), ws.DialOptions{Options: ws.Options{Engine: e}}, func(ctx context.Context, c *ws.Conn) error {
			if err := c.SendText(ctx, "first"); err != nil {
				return err
			}
			if d, err := c.Ping(ctx); err != nil || d <= 0 {
				return fmt.Errorf("%v, %w", d, err)
			}
			m, err := c.Receive(ctx)
			if err != nil {
				return err
			}
			if string(m.Bytes()) != "first" {
				return fmt.Errorf("got %q", m.Bytes())
			}
			m.Release()
			reading, err := runtime.Go(ctx, "reader", func(ctx context.Context) error {
				m, err := c.Receive(ctx)
				if err == nil {
					m.Release()
				}
				return err
			})
			if err != nil {
				return err
			}
			if err := runtime.Yield(ctx); err != nil {
				return err
			}
			if _, err := c.Ping(ctx); err != nil {
				return err
			}
			return errors.Join(c.SendText(ctx, "second"), reading.Wait(ctx))
		})
	})
}

// A push server waits for whichever comes first, the peer or a queue.
func TestReadable(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		queue := runtime.NewQueue[string](10)
		srv := echoServer(e)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			for {
				i, err := runtime.WaitAny(ctx, c.Readable(), queue)
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

// What a handler forgets is reclaimed and reported; what it keeps is not.
func TestReclaim(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		g := backendtest.Group(t, v, 1)
		srv := echoServer(e)
		var logged bytes.Buffer
		srv.Logger = slog.New(slog.NewTextHandler(&logged, nil))
		srv.DebugMessages = true
		messages := make(chan *ws.Message, 3)
		ended := make(chan struct{})
		srv.Hooks.Closed = func(*ws.Conn, ws.StatusCode, error) { close(ended) }
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			for i := range 3 {
				m, err := c.Receive(ctx)
				if err != nil {
					return err
				}
				if i == 1 {
					m.Keep()
				}
				messages <- m
			}
			return nil
		}
		p := connect(t, serve(t, g, srv))
		p.send(bytes.Join([][]byte{text("forgotten"), text("kept"), text("released elsewhere")}, nil))
		forgotten, kept, released := <-messages, <-messages, <-messages
		released.Release()
		p.wantClose(ws.StatusNormalClosure)
		<-ended
		require.Contains(t, logged.String(), "messages=1")
		require.Contains(t, logged.String(), "api_test.go")
		require.Panics(t, func() { forgotten.Bytes() })
		require.Panics(t, func() { forgotten.Release() })
		require.Equal(t, "kept", string(kept.Bytes()))
		kept.Release()
		require.Panics(t, func() { kept.Release() })
	})
}

// A handler on a goroutine may block, and has the same API.
func TestOnGoroutine(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		srv := echoServer(e)
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
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		g := backendtest.Group(t, v, 2)
		srv := echoServer(e)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			nc := c.NetConn(ctx, ws.Binary)
			_, err := io.Copy(struct{ io.Writer }{nc}, struct{ io.Reader }{nc})
			return err
		}
		client(t, g, "ws://"+serve(t, g, srv), ws.DialOptions{Options: ws.Options{Engine: e}}, func(ctx context.Context, c *ws.Conn) error {
			nc := c.NetConn(ctx, ws.Binary)
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
			return nc.SetReadDeadline(time.Time{})
		})
	})
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// Requests of a net/http server, plain and over TLS.
func TestHTTPHandler(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
				g := backendtest.Group(t, v, 2)
				mux := http.NewServeMux()
				mux.Handle("/ws", echoServer(e).HTTPHandler(g))
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

// A panic closes its own connection, with 1011.
func TestPanic(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		srv := echoServer(e)
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
