package tcp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	goruntime "runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/tcp"
)

// serve runs srv and returns its address and a function that stops it.
func serve(t *testing.T, g *loop.Group, srv *tcp.Server) (addr string, stop func() error) {
	t.Helper()
	if srv.Logger == nil {
		srv.Logger = slog.New(slog.DiscardHandler)
	}
	ls, err := g.Listen("127.0.0.1:0", loop.ListenOptions{Spread: true})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, ls, srv) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { _ = stop() })
	return ls.Addr().String(), stop
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = nc.Close() })
	require.NoError(t, nc.SetDeadline(time.Now().Add(20*time.Second)))
	return nc.(*net.TCPConn)
}

func echoes(t *testing.T, nc *net.TCPConn) {
	t.Helper()
	_, err := nc.Write([]byte("hello"))
	require.NoError(t, err)
	p := make([]byte, 5)
	_, err = io.ReadFull(nc, p)
	require.NoError(t, err)
	require.Equal(t, "hello", string(p))
}

func echo(_ context.Context, c *loop.Stream) error {
	_, err := io.Copy(c, c)
	return err
}

// upper is a connection with a Write of its own.
type upper struct{ *loop.Stream }

func (u upper) Write(p []byte) (int, error) { return u.Stream.Write(bytes.ToUpper(p)) }

// io.Copy hands buffers from stream to stream, but calls the Write of a type that embeds
// a stream.
func TestCopyToAWrapper(t *testing.T) {
	for name, tt := range map[string]struct {
		to   func(c *loop.Stream) io.Writer
		want string
	}{
		"a Conn":                {func(c *loop.Stream) io.Writer { return c }, "hello"},
		"a type that embeds it": {func(c *loop.Stream) io.Writer { return upper{c} }, "HELLO"},
		"a pointer to that":     {func(c *loop.Stream) io.Writer { return &upper{c} }, "HELLO"},
	} {
		for _, onGoroutine := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,goroutine=%v", name, onGoroutine), func(t *testing.T) {
				backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
					addr, stop := serve(t, backendtest.Group(t, v, 1), &tcp.Server{OnGoroutine: onGoroutine,
						Handler: func(_ context.Context, c *loop.Stream) error {
							_, err := io.Copy(tt.to(c), c)
							return err
						}})
					nc := dial(t, addr)
					_, err := io.WriteString(nc, "hello")
					require.NoError(t, err)
					require.NoError(t, nc.CloseWrite())
					got, err := io.ReadAll(nc)
					require.NoError(t, err)
					require.Equal(t, tt.want, string(got))
					require.NoError(t, stop())
				})
			})
		}
	}
}

// A handler that panics, calls runtime.Goexit or fails loses its own connection and
// nothing else.
func TestFaultyHandlers(t *testing.T) {
	for name, tt := range map[string]struct {
		end  func() error
		want tcp.Stats
	}{
		"error": {func() error { return errors.New("mine") }, tcp.Stats{Failed: 1}},
		"eof":   {func() error { return io.EOF }, tcp.Stats{}},
		"panic": {func() error { panic("mine") }, tcp.Stats{Failed: 1, Panicked: 1}},
	} {
		for _, onGoroutine := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
					g := quietGroup(t, v)
					ends := make(chan error, 2)
					srv := &tcp.Server{OnGoroutine: onGoroutine, OnEnd: func(_ *loop.Stream, err error) { ends <- err },
						Handler: func(ctx context.Context, c *loop.Stream) error {
							p := make([]byte, 1)
							if _, err := io.ReadFull(c, p); err != nil || p[0] == 'h' {
								c.Unread(runtime.NewShared(p))
								return echo(ctx, c)
							}
							return tt.end()
						}}
					addr, stop := serve(t, g, srv)
					victim, other := dial(t, addr), dial(t, addr)
					echoes(t, other)
					_, err := victim.Write([]byte("x"))
					require.NoError(t, err)
					n, err := victim.Read(make([]byte, 1))
					require.Zero(t, n)
					require.Equal(t, io.EOF, err, "its connection is closed")
					<-ends
					echoes(t, other)
					require.NoError(t, other.CloseWrite())
					require.NoError(t, <-ends)
					require.NoError(t, stop())
					want := tt.want
					want.Accepted = 2
					require.Equal(t, want, srv.Stats())
				})
			})
		}
	}
}

// quietGroup is backendtest.Group without a log of panics.
func quietGroup(t *testing.T, v backendtest.Variant) *loop.Group {
	t.Helper()
	g, err := loop.StartGroup(loop.GroupOptions{Loops: 2, New: func(int) (runtime.Runtime, error) { return v.New() },
		Loop: loop.LoopOptions{Logger: slog.New(slog.DiscardHandler)}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.Stop()) })
	return g
}

// testing.T.FailNow in a handler costs the handler's coroutine and not the loop.
func TestGoexit(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := quietGroup(t, v)
		srv := &tcp.Server{Handler: func(ctx context.Context, c *loop.Stream) error {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				goruntime.Goexit()
			}
			return nil
		}}
		addr, stop := serve(t, g, srv)
		for range 10 {
			nc := dial(t, addr)
			_, err := nc.Write([]byte("x"))
			require.NoError(t, err)
			_, err = nc.Read(make([]byte, 1))
			require.Equal(t, io.EOF, err)
		}
		require.NoError(t, stop())
		require.Equal(t, tcp.Stats{Accepted: 10, Failed: 10, Panicked: 10}, srv.Stats())
		stats, err := g.Stats()
		require.NoError(t, err)
		require.Equal(t, 10, stats[0].Lost+stats[1].Lost)
	})
}

// No more than MaxConns connections are served at once, and those that wait are served
// later.
func TestMaxConns(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 3)
		var now, most atomic.Int64
		srv := &tcp.Server{MaxConns: 3, Handler: func(ctx context.Context, c *loop.Stream) error {
			n := now.Add(1)
			defer now.Add(-1)
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
			return echo(ctx, c)
		}}
		addr, stop := serve(t, g, srv)
		var wg sync.WaitGroup
		for range 200 {
			nc := dial(t, addr)
			wg.Go(func() {
				_, _ = nc.Write([]byte("x"))
				_ = nc.CloseWrite()
				if p, err := io.ReadAll(nc); err != nil || string(p) != "x" {
					t.Errorf("got %q, %v", p, err)
				}
			})
		}
		wg.Wait()
		require.NoError(t, stop())
		require.EqualValues(t, 200, srv.Stats().Accepted)
		require.Zero(t, srv.Stats().Active)
		require.LessOrEqual(t, most.Load(), int64(3))
	})
}

// A panic of OnStart or OnEnd ends its own connection and nothing else.
func TestPanickingHooks(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := quietGroup(t, v)
		srv := &tcp.Server{MaxConns: 1, Handler: echo, DrainTime: time.Hour,
			OnEnd: func(*loop.Stream, error) { panic("mine") }}
		addr, stop := serve(t, g, srv)
		for range 3 {
			nc := dial(t, addr)
			echoes(t, nc)
			require.NoError(t, nc.CloseWrite())
			_, err := nc.Read(make([]byte, 1))
			require.Equal(t, io.EOF, err)
		}
		require.NoError(t, stop(), "it waits for a connection that is gone")
		require.Zero(t, srv.Stats().Active)
	})
}

// A handler that does not return within DrainTime is killed and counted, and its peer
// sees the end of the connection.
func TestDrainTime(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, onGoroutine := range []bool{false, true} {
			g := backendtest.Group(t, v, 2)
			ended := make(chan error, 1)
			srv := &tcp.Server{DrainTime: 30 * time.Millisecond, Handler: echo, OnGoroutine: onGoroutine,
				OnEnd: func(_ *loop.Stream, err error) { ended <- err }}
			addr, stop := serve(t, g, srv)
			nc := dial(t, addr)
			echoes(t, nc)
			require.NoError(t, stop())
			require.ErrorIs(t, <-ended, runtime.ErrCanceled)
			require.EqualValues(t, 1, srv.Stats().Killed)
			_, err := nc.Read(make([]byte, 1))
			require.Equal(t, io.EOF, err)
		}
	})
}

// A handler that is told to end may still save what it has.
func TestCleanUpWhileDraining(t *testing.T) {
	type key struct{}
	for name, derive := range map[string]func(ctx context.Context) context.Context{
		"the handler's context": func(ctx context.Context) context.Context { return ctx },
		"with a value":          func(ctx context.Context) context.Context { return context.WithValue(ctx, key{}, 1) },
		"without cancel":        context.WithoutCancel,
	} {
		for _, onGoroutine := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/goroutine=%v", name, onGoroutine), func(t *testing.T) {
				backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
					saved := false
					ended := make(chan error, 1)
					srv := &tcp.Server{OnGoroutine: onGoroutine, Handler: func(ctx context.Context, c *loop.Stream) (err error) {
						defer func() {
							err = loop.Offload(derive(ctx), func() { saved = true })
							mine, cancel := context.WithCancel(ctx)
							cancel()
							if loop.Offload(mine, func() { panic("its own context has ended") }) == nil {
								err = errors.New("Offload says nothing")
							}
						}()
						if _, err := c.Write([]byte("hello")); err != nil {
							return err
						}
						var never loop.Event
						return never.Wait(ctx)
					}, OnEnd: func(_ *loop.Stream, err error) { ended <- err }}
					addr, stop := serve(t, backendtest.Group(t, v, 1), srv)
					_, err := io.ReadFull(dial(t, addr), make([]byte, len("hello")))
					require.NoError(t, err)
					require.NoError(t, stop())
					require.NoError(t, <-ended)
					require.True(t, saved)
				})
			})
		}
	}
}

// With DrainSpread the handlers' contexts end one after another, and all of them within
// DrainTime.
func TestDrainSpread(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		const conns = 20
		var mu sync.Mutex
		var told []time.Time
		var started sync.WaitGroup
		started.Add(conns)
		srv := &tcp.Server{DrainTime: 20 * time.Second, DrainSpread: 200 * time.Millisecond,
			Handler: func(ctx context.Context, c *loop.Stream) error {
				started.Done()
				var never loop.Event
				_ = never.Wait(ctx)
				mu.Lock()
				defer mu.Unlock()
				told = append(told, time.Now())
				return nil
			}}
		addr, stop := serve(t, backendtest.Group(t, v, 2), srv)
		for range conns {
			dial(t, addr)
		}
		started.Wait()
		require.NoError(t, stop())
		require.Len(t, told, conns)
		require.Zero(t, srv.Stats().Killed)
		require.Greater(t, told[conns-1].Sub(told[0]), 50*time.Millisecond, "the contexts ended together")
	})
}

func TestNoHandler(t *testing.T) {
	require.Error(t, (&tcp.Server{}).Serve(t.Context(), nil))
}
