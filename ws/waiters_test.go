package ws_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// receiveUntil starts a task that receives until stop, which waits for its end.
func receiveUntil(ctx context.Context, c *ws.Conn) (stop func(), err error) {
	rctx, cancel := context.WithCancel(ctx)
	receiver, err := loop.Go(ctx, "receives", func(context.Context) error { return receiveOne(rctx, c) })
	if err = errors.Join(err, loop.Yield(ctx)); err != nil {
		cancel()
		return nil, err
	}
	return func() { cancel(); _ = receiver.Wait(ctx) }, nil
}

// pingBeside starts a task that pings, and returns when it waits for the pong.
func pingBeside(ctx context.Context, c *ws.Conn) (*loop.Task, error) {
	ping, err := loop.Go(ctx, "pings", func(ctx context.Context) error { _, err := c.Ping(ctx); return err })
	return ping, errors.Join(err, loop.Yield(ctx))
}

// Two Pings wait, and who received stops: both go on to receive, one after the other.
func TestTwoPings(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		stopped, result, first := make(chan struct{}), make(chan error, 1), make(chan struct{})
		srv := echoServer()
		srv.PingInterval = -1
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			stop, err := receiveUntil(ctx, c)
			if err != nil {
				return err
			}
			one, err1 := pingBeside(ctx, c)
			two, err2 := pingBeside(ctx, c)
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			stop()
			close(stopped)
			err = one.Wait(ctx)
			close(first)
			result <- errors.Join(err, two.Wait(ctx))
			return nil
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		<-stopped
		_, one, err := p.read()
		require.NoError(t, err)
		_, two, err := p.read()
		require.NoError(t, err)
		p.send(fr(10, true, one))
		<-first
		p.send(fr(10, true, two))
		require.NoError(t, <-result)
		p.wantClose(ws.StatusNormalClosure)
	})
}

// Close goes on to receive where a Ping waits for the same.
func TestCloseBesidePing(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		stopped := make(chan struct{})
		srv := echoServer()
		srv.PingInterval, srv.CloseTimeout = -1, time.Hour // nobody waits for it
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			stop, err := receiveUntil(ctx, c)
			if err != nil {
				return err
			}
			ping, err1 := pingBeside(ctx, c)
			closer, err2 := closeBeside(ctx, c)
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			stop()
			ping.Cancel(false)
			_ = ping.Wait(ctx)
			close(stopped)
			return closer.Wait(ctx)
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.wantCloseFrame(4001)
		<-stopped
		p.send(closeFrame(4001, ""))
		p.wantEnd()
	})
}

// Close takes no longer than CloseTimeout, whatever others do about the read deadline.
func TestCloseHasItsOwnDeadline(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		closed := make(chan error, 1)
		srv := echoServer()
		srv.PingInterval, srv.CloseTimeout = -1, 50*time.Millisecond
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			closer, err := closeBeside(ctx, c)
			if err != nil {
				return err
			}
			if err = c.SetReadDeadline(time.Time{}); errors.Is(err, net.ErrClosed) {
				err = nil
			}
			closed <- errors.Join(err, closer.Wait(ctx))
			return nil
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		require.NoError(t, <-closed)
		toTheEnd(p)
	})
}

// Of many that wait for a peer that takes nothing, each is told what the Policy says.
func TestManyAreDropped(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, policy := range []ws.Policy{ws.PolicyDrop, ws.PolicyWait} {
			t.Run(fmt.Sprint(policy), func(t *testing.T) {
				srv := echoServer()
				srv.Policy, srv.SendQueue, srv.PingInterval, srv.WriteTimeout = policy, 64<<10, -1, 100*time.Millisecond
				conns := make(chan *ws.Conn, 1)
				srv.Handler = func(ctx context.Context, c *ws.Conn) error {
					conns <- c
					return receiveOne(ctx, c)
				}
				p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
				require.NoError(t, p.Conn.(*net.TCPConn).SetReadBuffer(4<<10))
				c := <-conns
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				var wg sync.WaitGroup
				errs := make(chan error, 64)
				for i := range 64 {
					wg.Go(func() {
						own := ctx
						if policy == ws.PolicyWait && i > 0 { // and the others are gone when WriteTimeout has passed
							var cancel context.CancelFunc
							own, cancel = context.WithTimeout(ctx, 80*time.Millisecond)
							defer cancel()
						}
						for {
							if err := c.SendBinary(own, make([]byte, 20_000)); err != nil {
								if own == ctx {
									errs <- err
								}
								return
							}
						}
					})
				}
				wg.Wait()
				close(errs)
				for err := range errs {
					if policy == ws.PolicyDrop {
						require.ErrorIs(t, err, ws.ErrDropped)
					} else {
						require.ErrorIs(t, err, ws.ErrTooSlow)
					}
				}
				reset(p)
			})
		}
	})
}

// Who waits to send is told at once when somebody closes, who may have to wait himself
// for the end of a Writer's message.
func TestCloseTellsWhoWaits(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.CloseTimeout, srv.SendQueue = time.Hour, 1000 // nobody waits for it
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			w, err := c.NextWriter(ctx, ws.TypeText)
			if err != nil {
				return err
			}
			_, err = io.WriteString(w, "half")
			err = errors.Join(err, elsewhereNow(func() error { return c.SendText(ctx, strings.Repeat("x", 2000)) }))
			sent := make(chan error, 1)
			go func() { sent <- c.SendText(context.Background(), "no room") }()
			for range 1000 { // it waits by then
				err = errors.Join(err, loop.Yield(ctx))
			}
			closer, cerr := closeBeside(ctx, c)
			err = errors.Join(err, cerr, loop.Offload(ctx, func() {
				if serr := <-sent; !errors.Is(serr, net.ErrClosed) {
					t.Errorf("send: %v", serr)
				}
			}), w.Close(), closer.Wait(ctx))
			return err
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.want(frame.Text, "half")
		p.want(frame.Text, strings.Repeat("x", 2000))
		p.wantClose(4001)
	})
}
