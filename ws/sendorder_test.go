package ws_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// onGoroutineNow calls f on a goroutine and blocks the loop until f returns: what f sends is
// accepted, and the loop has not taken it yet.
func onGoroutineNow(f func() error) error {
	done := make(chan error)
	go func() { done <- f() }()
	return <-done
}

// Messages of a task follow those that other threads have sent before, by whatever method.
func TestTasksDoNotOvertake(t *testing.T) {
	long := strings.Repeat("long ", 60_000)
	ways := []struct {
		name, want string // a long want is compressed
		send       func(ctx context.Context, c *ws.Conn) error
	}{
		{"Send", "last", func(ctx context.Context, c *ws.Conn) error {
			return c.Send(ctx, ws.NewMessage(ws.TypeText, []byte("last")))
		}},
		{"Send of a message received", "first", echoOne},
		{"SendText", "last", func(ctx context.Context, c *ws.Conn) error { return c.SendText(ctx, "last") }},
		{"SendPrepared", "last", func(ctx context.Context, c *ws.Conn) error {
			return c.SendPrepared(ctx, ws.Prepare(ws.TypeText, []byte("last")))
		}},
		{"Writer", "last", writeLast},
		{"Send that takes turns", long, func(ctx context.Context, c *ws.Conn) error {
			return c.Send(ctx, ws.NewMessage(ws.TypeText, []byte(long)))
		}},
		{"Writer on a goroutine", "last", goroutine(writeLast)},
		{"Send on a goroutine that takes turns", long, goroutine(func(ctx context.Context, c *ws.Conn) error {
			return c.Send(ctx, ws.NewMessage(ws.TypeText, []byte(long)))
		})},
	}
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, way := range ways {
			for _, queue := range []int{0, 1} { // 1: the queue is full after each message
				t.Run(fmt.Sprintf("%s,SendQueue=%d", way.name, queue), func(t *testing.T) {
					srv := echoServer()
					srv.SendQueue = queue
					srv.Compression = &ws.Compression{}
					srv.Handler = func(ctx context.Context, c *ws.Conn) error {
						if err := echoOne(ctx, c); err != nil {
							return err
						}
						err := onGoroutineNow(func() error {
							var errs error
							for i := range 3 {
								ctx, cancel := context.WithCancel(context.Background())
								if queue == 1 && i > 0 {
									cancel() // the message has no room
								}
								errs = errors.Join(errs, c.SendText(ctx, fmt.Sprint(i)))
								cancel()
							}
							return errs
						})
						if queue == 1 && errors.Is(err, context.Canceled) {
							err = nil
						}
						return errors.Join(err, way.send(ctx, c))
					}
					g := backendtest.Group(t, v, 2)
					addr := serve(t, g, srv)
					opts := ws.DialOptions{}
					if way.want == long {
						opts.Compression = &ws.Compression{}
					}
					client(t, g, "ws://"+addr, opts, func(ctx context.Context, c *ws.Conn) error {
						if err := errors.Join(c.SendText(ctx, "first"), c.SendText(ctx, "first")); err != nil {
							return err
						}
						want := []string{"first", "0", "1", "2", way.want}
						if queue == 1 {
							want = []string{"first", "0", way.want}
						}
						for _, want := range want {
							if err := receiveText(ctx, c, want); err != nil {
								return err
							}
						}
						return nil
					})
				})
			}
		}
	})
}

func writeLast(ctx context.Context, c *ws.Conn) error {
	w, err := c.NextWriter(ctx, ws.TypeText)
	if err != nil {
		return err
	}
	_, err = w.Write([]byte("last"))
	return errors.Join(err, w.Close())
}

func echoOne(ctx context.Context, c *ws.Conn) error {
	m, err := c.Receive(ctx)
	if err != nil {
		return err
	}
	return c.Send(ctx, m)
}

// A task sends while a goroutine sends without a pause: the task's messages arrive in
// order, and none of either is lost.
func TestTaskAmongOthers(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		const n = 100
		var sent atomic.Int64
		srv := echoServer()
		srv.SendQueue = 1000
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			stop := make(chan error, 1)
			fctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			go func() {
				for {
					if err := c.SendText(fctx, "other"); err != nil {
						stop <- err
						return
					}
					sent.Add(1)
				}
			}()
			for i := range n {
				if err := c.SendText(ctx, fmt.Sprint(i)); err != nil {
					return err
				}
			}
			cancel()
			return loop.Offload(ctx, func() { <-stop })
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		others := int64(0)
		for i := 0; i < n; {
			h, payload, err := p.read()
			require.NoError(t, err)
			require.Equal(t, frame.Text, h.Op)
			if payload == "other" {
				others++
				continue
			}
			require.Equal(t, fmt.Sprint(i), payload)
			i++
		}
		for {
			h, _, err := p.read()
			require.NoError(t, err)
			if h.Op == frame.Close {
				break
			}
			others++
		}
		require.Equal(t, sent.Load(), others)
	})
}

// A hook that panics while a Send waits for room, for a message of another thread that
// goes first or for the Send's own that is dropped, ends the handler and leaks nothing.
func TestPanicWhileSending(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, c := range []struct {
			name   string
			before func(ctx context.Context, c *ws.Conn) error
		}{
			{"MessageSent", func(_ context.Context, c *ws.Conn) error {
				return onGoroutineNow(func() error { return c.SendText(context.Background(), "other") })
			}},
			{"MessageDropped", func(ctx context.Context, c *ws.Conn) error {
				if err := flood(ctx, c); !errors.Is(err, ws.ErrDropped) {
					return fmt.Errorf("flood: %w", err)
				}
				return nil
			}},
		} {
			t.Run(c.name, func(t *testing.T) {
				sent := make(chan struct{})
				srv := echoServer()
				srv.Policy = ws.PolicyDrop
				fail := func(_ *ws.Conn, _ ws.Type, n int) {
					if n < 10 { // not for the messages of the flood
						panic("as it was told")
					}
				}
				srv.Hooks.MessageSent, srv.Hooks.MessageDropped = fail, fail
				srv.Handler = func(ctx context.Context, conn *ws.Conn) error {
					defer close(sent)
					m, err := conn.Receive(ctx)
					if err != nil {
						return err
					}
					if err := c.before(ctx, conn); err != nil {
						return err
					}
					err = conn.Send(ctx, m)
					return fmt.Errorf("no panic: %w", err)
				}
				p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
				p.send(text("mine"))
				<-sent
				for code := 0; code == 0; {
					h, payload, err := p.read()
					require.NoError(t, err)
					if h.Op == frame.Close {
						code = int(payload[0])<<8 | int(payload[1])
						require.Equal(t, ws.StatusInternalError, ws.StatusCode(code))
					}
				}
			})
		}
	})
}

// A hook that panics for a message that precedes the Close frame ends the connection and
// leaks nothing.
func TestPanicWhileClosing(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		closed := make(chan ws.StatusCode, 2)
		srv := echoServer()
		srv.Hooks.MessageSent = func(*ws.Conn, ws.Type, int) { panic("as it was told") }
		srv.Hooks.Closed = func(_ *ws.Conn, code ws.StatusCode, _ error) { closed <- code }
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			if _, err := c.Receive(ctx); err != nil { // and forgets it
				return err
			}
			return onGoroutineNow(func() error { return c.SendText(context.Background(), "other") })
		}
		g := backendtest.Group(t, v, 1)
		p := connect(t, serve(t, g, srv))
		p.send(text("mine"))
		p.want(frame.Text, "other")
		p.wantCloseFrame(ws.StatusNormalClosure)
		p.wantEnd()
		require.Equal(t, ws.StatusNormalClosure, <-closed)
		require.NoError(t, g.Stop())
		require.Empty(t, closed)
	})
}

// A peer that reads everything is not too slow, whichever thread fills the queue.
func TestPolicyAmongOthers(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, policy := range []ws.Policy{ws.PolicyDrop, ws.PolicyDisconnect} {
			srv := echoServer()
			srv.SendQueue, srv.Policy = 1000, policy
			srv.Handler = func(ctx context.Context, c *ws.Conn) error {
				fill := strings.Repeat("x", 1200)
				if err := c.SendText(ctx, fill); err != nil {
					return err
				}
				err := onGoroutineNow(func() error { return c.SendText(context.Background(), fill) })
				return errors.Join(err, c.SendText(ctx, "last"))
			}
			p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
			for range 2 {
				p.want(frame.Text, strings.Repeat("x", 1200))
			}
			p.want(frame.Text, "last")
			p.wantClose(ws.StatusNormalClosure)
		}
	})
}
