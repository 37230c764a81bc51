package ws_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// When a server stops, the message of a Writer that has to wait for a slow peer goes
// ahead of the Close frame, although the Writer's context has ended.
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

// So does one of which nothing was sent yet.
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

// A client that has not finished its handshake does not hold up a server that stops.
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

// A Writer on which nothing was written keeps nobody from being told.
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

// A context that is the Writer's own, or its deadline, ends its wait also while the server stops.
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
