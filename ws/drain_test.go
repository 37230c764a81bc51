package ws_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// During a drain a Writer may end its message. Messages that other threads have sent
// follow it, and then the Close frame.
func TestDrainWaitsForWriter(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, how := range []string{"ends it", "leaves it", "is killed"} {
			srv := echoServer()
			if how == "is killed" {
				srv.DrainTime = 50 * time.Millisecond
			}
			ready := make(chan struct{})
			var never loop.Event
			srv.Handler = func(ctx context.Context, c *ws.Conn) error {
				w, err := c.NextWriter(ctx, ws.TypeText)
				if err != nil {
					return err
				}
				_, _ = w.Write([]byte("first, "))
				if err := w.Flush(); err != nil {
					return err
				}
				err = loop.Offload(ctx, func() {
					if err := c.SendText(context.Background(), "second"); err != nil {
						t.Error(err)
					}
				})
				if err != nil {
					return err
				}
				close(ready)
				if how == "is killed" {
					return never.Wait(context.Background())
				}
				_ = never.Wait(ctx) // until the drain
				if how == "leaves it" {
					return nil
				}
				_, _ = w.Write([]byte("to its end"))
				return w.Close()
			}
			g := backendtest.Group(t, v, 1)
			ls, err := g.Listen("127.0.0.1:0", loop.ListenOptions{})
			require.NoError(t, err)
			ctx, stop := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- g.Serve(ctx, ls, srv) }()
			p := connect(t, ls.Addr().String())
			<-ready
			stop()
			h, first, err := p.read()
			require.NoError(t, err)
			require.False(t, h.Fin)
			require.Equal(t, "first, ", first)
			if how == "ends it" {
				p.want(frame.Continuation, "to its end")
				p.want(frame.Text, "second")
			} // else nothing may be sent in the middle of that message
			h, _, err = p.read()
			require.NoError(t, err)
			require.Equal(t, frame.Close, h.Op, how)
			if how != "is killed" { // else the connection is cut
				p.send(closeFrame(1001, ""))
				p.wantEnd()
			}
			require.NoError(t, <-done)
		}
	})
}

// When a server drains, the message of a Writer that waits for a slow peer precedes the
// Close frame, although the Writer's context has ended.
func TestDrainWaitsForSlowWriter(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		const size = 8 << 20
		for _, place := range []string{"task", "goroutine"} {
			t.Run(place, func(t *testing.T) {
				begun, draining := make(chan struct{}), make(chan struct{})
				result := make(chan error, 1)
				srv := echoServer()
				srv.DrainTime, srv.DrainSpread, srv.OnGoroutine = patience, -1, place == "goroutine"
				srv.Handler = func(ctx context.Context, c *ws.Conn) error {
					context.AfterFunc(ctx, func() { close(draining) })
					w, err := c.NextWriter(ctx, ws.TypeBinary)
					if err != nil {
						return err
					}
					_, err = w.Write(make([]byte, 100_000))
					close(begun)
					_, werr := w.Write(make([]byte, size-100_000))
					err = errors.Join(err, werr, w.Close())
					result <- err
					return err
				}
				addr, stop := serveUntil(t, backendtest.Group(t, v, 1), srv)
				p := connect(t, addr)
				<-begun
				stop()
				<-draining
				n := 0
				for last := false; !last; {
					h, payload, err := p.read()
					require.NoError(t, err, "after %d bytes", n)
					n += len(payload)
					last = h.Fin
				}
				require.Equal(t, size, n)
				p.wantClose(ws.StatusGoingAway)
				require.NoError(t, <-result)
			})
		}
	})
}

// So does a message of which nothing was sent yet.
func TestDrainWaitsForShortWriter(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		begun := make(chan struct{})
		srv := echoServer()
		srv.DrainTime, srv.DrainSpread = patience, -1
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			w, err := c.NextWriter(ctx, ws.TypeText)
			if err != nil {
				return err
			}
			_, err = io.WriteString(w, "a few words")
			close(begun)
			untilCancelled(ctx)
			return errors.Join(err, w.Close())
		}
		addr, stop := serveUntil(t, backendtest.Group(t, v, 1), srv)
		p := connect(t, addr)
		<-begun
		stop()
		p.want(frame.Text, "a few words")
		p.wantClose(ws.StatusGoingAway)
	})
}

// An unused Writer does not delay the Close frame of a drain.
func TestDrainWithUnusedWriter(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		begun := make(chan struct{})
		srv := echoServer()
		srv.DrainTime, srv.DrainSpread = 10*patience, -1
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			ctx = context.WithoutCancel(ctx)
			_, err := c.NextWriter(ctx, ws.TypeBinary)
			close(begun)
			return errors.Join(err, receiveOne(ctx, c)) // until the peer closes
		}
		addr, stop := serveUntil(t, backendtest.Group(t, v, 1), srv)
		p := connect(t, addr)
		<-begun
		stop()
		p.wantClose(ws.StatusGoingAway)
	})
}

// A context of the Writer's own, or its deadline, ends its wait even during a drain.
func TestDrainEndsWriterByItsOwnContext(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, own := range []bool{false, true} {
			begun, result := make(chan struct{}), make(chan error, 1)
			srv := echoServer()
			srv.DrainTime, srv.DrainSpread = 10*patience, -1
			srv.Handler = func(ctx context.Context, c *ws.Conn) error {
				if err := receiveOne(ctx, c); err != nil {
					return err
				}
				wctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
				if own {
					cancel()
					wctx, cancel = context.WithCancel(context.Background())
					time.AfterFunc(50*time.Millisecond, cancel)
				}
				defer cancel()
				w, err := c.NextWriter(wctx, ws.TypeBinary)
				if err == nil {
					close(begun)
					_, err = w.Write(make([]byte, 64<<20))
				}
				result <- err
				return err
			}
			addr, stop := serveUntil(t, backendtest.Group(t, v, 1), srv)
			p := connect(t, addr)
			p.send(text("begin"))
			<-begun
			stop()
			want := context.DeadlineExceeded
			if own {
				want = context.Canceled
			}
			require.ErrorIs(t, <-result, want)
			reset(p)
		}
	})
}

// Messages that Send has accepted from other threads precede the Close frame of a drain,
// even if they had to wait for the peer.
func TestDrainSendsWhatWasAccepted(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.SendQueue = 200_000
		var accepted atomic.Int64
		failed := make(chan struct{})
		payload := strings.Repeat("x", 20_000)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			go func() {
				defer close(failed)
				for c.SendText(context.Background(), payload) == nil {
					accepted.Add(1)
				}
			}()
			_, err := c.Receive(ctx)
			return err
		}
		g := backendtest.Group(t, v, 1)
		ls, err := g.Listen("127.0.0.1:0", loop.ListenOptions{})
		require.NoError(t, err)
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- g.Serve(ctx, ls, srv) }()
		p := connect(t, ls.Addr().String())
		settled(t, &accepted) // the kernel and the queues are full
		stop()
		<-failed
		for range accepted.Load() {
			p.want(frame.Text, payload)
		}
		p.wantClose(ws.StatusGoingAway)
		require.NoError(t, <-done)
	})
}

// A client that has not finished its opening handshake does not delay the drain.
func TestDrainEndsHandshakes(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.DrainTime, srv.DrainSpread = 10*patience, -1
		srv.HandshakeTimeout = 10 * patience
		addr, stop := serveUntil(t, backendtest.Group(t, v, 1), srv)
		p := dialTCP(t, addr)
		p.send([]byte(request[:20]))
		require.Eventually(t, func() bool { return srv.Stats().Active == 1 }, patience, patience/10000)
		stop()
		require.Contains(t, p.head(), " 503 ")
		toTheEnd(p)
		require.Eventually(t, func() bool { return srv.Stats().Active == 0 }, patience, patience/10000)
		require.Zero(t, srv.Stats().Killed)
	})
}

// The end of the drain time ends the calls of a handler on a goroutine, whatever their
// contexts.
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
					t.Errorf("%s continues", what)
				}
			})
		}
	})
}
