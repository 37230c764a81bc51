package ws_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// A Writer whose context has ended does what can be done at once, wherever it is
// used, and what others send goes on behind it.
func TestWriterAfterContext(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, flush := range []bool{false, true} {
			for _, elsewhere := range []bool{false, true} {
				t.Run(fmt.Sprintf("flush=%v,elsewhere=%v", flush, elsewhere), func(t *testing.T) {
					write := func(ctx context.Context, c *ws.Conn) error {
						wctx, cancel := context.WithCancel(ctx)
						defer cancel()
						w, err := c.NextWriter(wctx, ws.TypeText)
						if err != nil {
							return err
						}
						_, err = w.Write([]byte("first"))
						if flush {
							err = errors.Join(err, w.Flush())
						}
						cancel()
						return errors.Join(err, w.Close())
					}
					if elsewhere {
						write = goroutine(write)
					}
					srv := echoServer()
					srv.Handler = func(ctx context.Context, c *ws.Conn) error {
						if err := write(ctx, c); err != nil {
							return err
						}
						return c.SendText(ctx, "second")
					}
					g := backendtest.Group(t, v, 2)
					addr := serve(t, g, srv)
					client(t, g, "ws://"+addr, ws.DialOptions{}, func(ctx context.Context, c *ws.Conn) error {
						return errors.Join(receiveText(ctx, c, "first"), receiveText(ctx, c, "second"))
					})
				})
			}
		}
	})
}

// Others wait for a Writer, so that its end is taken by a loop that takes no more
// functions; and the connection's, and a message that is to be kept.
func TestWriterEndsWhilePostsAreFull(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g, err := loop.StartGroup(loop.GroupOptions{Loops: 1, New: func(int) (runtime.Runtime, error) { return v.New() },
			Loop: loop.LoopOptions{MaxPosts: 2, StallAfter: -1}})
		require.NoError(t, err)
		defer func() { require.NoError(t, g.Stop()) }()
		l := g.Loops()[0]
		// full calls f while the loop takes no more functions.
		full := func(f func() error) error {
			held, gate, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
			if err := l.Post(func() { close(held); <-gate }); err != nil {
				return err
			}
			<-held
			err := errors.Join(l.Post(func() {}), l.Post(func() {}))
			go func() { done <- f() }()
			for range 1000 { // it gets as far as it can, or is refused
				goruntime.Gosched()
			}
			close(gate)
			return errors.Join(err, <-done)
		}
		srv := echoServer()
		srv.OnGoroutine = true
		result := make(chan error, 1)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			m, err := c.Receive(ctx)
			if err != nil {
				return err
			}
			err = full(func() error { m.Keep(); return nil })
			w, werr := c.NextWriter(ctx, ws.TypeText)
			if err = errors.Join(err, werr); err != nil {
				return err
			}
			_, err = w.Write([]byte("first"))
			err = errors.Join(err, full(w.Close), c.SendText(ctx, "second"))
			result <- errors.Join(err, full(func() error { return c.Close(4001, "") }))
			m.Release()
			return nil
		}
		p := connect(t, serve(t, g, srv))
		p.send(text("hello"))
		p.want(frame.Text, "first")
		p.want(frame.Text, "second")
		p.wantClose(4001)
		require.NoError(t, <-result)
	})
}

func receiveText(ctx context.Context, c *ws.Conn, want string) error {
	m, err := c.Receive(ctx)
	if err != nil {
		return err
	}
	defer m.Release()
	if got := string(m.Bytes()); got != want {
		return fmt.Errorf("got %.20q, want %.20q", got, want)
	}
	return nil
}

// A hook that panics when a Writer ends its message holds nobody back.
func TestPanicAtWriterClose(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, place := range []string{"task", "goroutine"} {
			t.Run(place, func(t *testing.T) {
				srv := echoServer()
				srv.Hooks.MessageSent = func(_ *ws.Conn, _ ws.Type, n int) {
					if n == len("last") {
						panic("as it was told")
					}
				}
				srv.Handler = func(ctx context.Context, c *ws.Conn) error {
					write := writeLast
					if place == "goroutine" {
						write = goroutine(writeLast)
					}
					child, err := loop.Go(ctx, "writes", func(ctx context.Context) error { return write(ctx, c) })
					if err != nil {
						return err
					}
					if err := child.Wait(ctx); !strings.Contains(fmt.Sprint(err), "as it was told") {
						return fmt.Errorf("no panic: %w", err)
					}
					return c.SendText(ctx, "behind it")
				}
				p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
				p.want(frame.Text, "last")
				p.want(frame.Text, "behind it")
				p.wantClose(ws.StatusNormalClosure)
			})
		}
	})
}

// A frame of which there was no memory for all is the last thing that the peer gets:
// what followed would be taken for the rest of it.
func TestNothingFollowsHalfAFrame(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for name, send := range map[string]func(ctx context.Context, c *ws.Conn, p []byte) error{
			"SendBinary": func(ctx context.Context, c *ws.Conn, p []byte) error { return c.SendBinary(ctx, p) },
			"SendPrepared": func(ctx context.Context, c *ws.Conn, p []byte) error {
				return c.SendPrepared(ctx, ws.Prepare(ws.TypeBinary, p))
			},
		} {
			t.Run(name, func(t *testing.T) {
				failed := make(chan error, 1)
				srv := echoServer()
				srv.PingInterval = 10 * time.Millisecond
				srv.SendQueue = 1 << 20
				srv.Handler = func(ctx context.Context, c *ws.Conn) error {
					if err := receiveOne(ctx, c); err != nil {
						return err
					}
					pool := c.Loop().Pool()
					some, err := pool.Get(64 << 10)
					if err != nil {
						return err
					}
					restore := exhaust(pool)
					some.Release()
					err = send(ctx, c, bytes.Repeat([]byte{'x'}, 256<<10))
					restore()
					failed <- err
					if _, err := c.Ping(ctx); err == nil {
						return errors.New("a ping was sent and answered")
					}
					return receiveOne(ctx, c)
				}
				p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
				p.send(text("begin"))
				if err := <-failed; err == nil {
					_, _ = io.CopyN(io.Discard, p.r, 256<<10+10)
					return // it needed none
				}
				_, _ = p.Write(append(fr(frame.Ping, true, "one"), fr(frame.Ping, true, "two")...))
				all, err := io.ReadAll(p.r) // to the end, perhaps a reset
				require.False(t, isTimeout(err), "the peer has half a message, and sees no end")
				require.Empty(t, strings.Trim(string(all[min(10, len(all)):]), "x"))
			})
		}
	})
}
