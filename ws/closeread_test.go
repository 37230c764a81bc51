package ws_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// A handler that only sends: pings are answered, and it hears of the end.
func TestCloseRead(t *testing.T) {
	var closed *ws.CloseError
	var broken *ws.ProtocolError
	for _, c := range []struct {
		name  string
		peer  func(p *peer)
		cause func(error) bool
		code  ws.StatusCode
	}{
		{"closed", func(p *peer) { p.send(closeFrame(1001, "bye")); p.wantCloseFrame(1001); p.wantEnd() },
			func(err error) bool { return errors.As(err, &closed) && closed.Reason == "bye" }, ws.StatusGoingAway},
		{"a message", func(p *peer) {
			p.send(text("what?"))
			p.wantCloseFrame(1008)
			_, _ = io.Copy(io.Discard, p.r)
			_ = p.Close()
		},
			func(err error) bool { return errors.As(err, &broken) }, ws.StatusPolicyViolation},
		{"broken", func(p *peer) {
			p.send(raw("\x83\x80\x00\x00\x00\x00"))
			p.wantCloseFrame(1002)
			_, _ = io.Copy(io.Discard, p.r)
			_ = p.Close()
		},
			func(err error) bool { return errors.As(err, &broken) }, ws.StatusProtocolError},
		{"gone", func(p *peer) { _ = p.Close() },
			func(err error) bool { return errors.Is(err, ws.ErrAbnormal) }, ws.StatusAbnormalClosure},
	} {
		t.Run(c.name, func(t *testing.T) {
			each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
				for _, place := range []string{"task", "goroutine"} {
					t.Run(place, func(t *testing.T) {
						cause := make(chan error, 1)
						srv := echoServer(e)
						handler := func(ctx context.Context, c *ws.Conn) error {
							ctx = c.CloseRead(ctx)
							err := c.SendText(ctx, "tick")
							if place == "goroutine" {
								<-ctx.Done()
							} else {
								untilCancelled(ctx)
							}
							cause <- errors.Join(err, context.Cause(ctx))
							return nil
						}
						srv.Handler, srv.OnGoroutine = handler, place == "goroutine"
						p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
						p.want(frame.Text, "tick")
						p.send(fr(frame.Ping, true, "there?"))
						p.want(frame.Pong, "there?")
						c.peer(p)
						err := <-cause
						require.True(t, c.cause(err), "%v", err)
						require.Equal(t, c.code, ws.CloseStatus(err), "%v", err)
					})
				}
			})
		})
	}
}

// When ctx ends, CloseRead lets go, and receiving is free again.
func TestCloseReadStops(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		srv := echoServer(e)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			rctx, cancel := context.WithCancel(ctx)
			defer cancel()
			read := c.CloseRead(rctx)
			if err := runtime.Yield(ctx); err != nil {
				return err
			}
			if _, err := c.Receive(ctx); !errors.Is(err, runtime.ErrBusy) {
				return fmt.Errorf("two receive: %w", err)
			}
			cancel()
			untilCancelled(read)
			if err := context.Cause(read); !errors.Is(err, context.Canceled) {
				return fmt.Errorf("cause %w", err)
			}
			if err := c.SendText(ctx, "your turn"); err != nil {
				return err
			}
			return echoOne(ctx, c)
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.want(frame.Text, "your turn")
		p.send(text("hello"))
		p.want(frame.Text, "hello")
		p.wantClose(ws.StatusNormalClosure)
	})
}

// A server that stops says so at once, although a task of the handler receives.
func TestCloseReadDrain(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		srv := echoServer(e)
		srv.CloseTimeout = time.Hour // nobody waits for it
		running := make(chan struct{})
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			read := c.CloseRead(ctx)
			close(running)
			untilCancelled(read)
			return nil
		}
		addr, stop := serveUntil(t, backendtest.Group(t, v, 1), srv)
		p := connect(t, addr)
		<-running
		stopped := make(chan struct{})
		go func() { defer close(stopped); stop() }()
		p.wantCloseFrame(ws.StatusGoingAway)
		p.send(closeFrame(1001, ""))
		p.wantEnd()
		<-stopped
	})
}

// Close goes on to wait for the peer where the task that received has stopped.
func TestCloseTakesOverReceiving(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		stopped := make(chan struct{})
		srv := echoServer(e)
		srv.CloseTimeout = time.Hour // nobody waits for it
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			receiver, err := runtime.Go(ctx, "receives", func(ctx context.Context) error { return receiveOne(ctx, c) })
			if err != nil {
				return err
			}
			if err := runtime.Yield(ctx); err != nil {
				return err
			}
			closer, err := runtime.Go(ctx, "closes", func(ctx context.Context) error { return c.Close(4001, "") })
			if err != nil {
				return err
			}
			if err := runtime.Yield(ctx); err != nil {
				return err
			}
			receiver.Cancel(false)
			if err := receiver.Wait(ctx); !errors.Is(err, context.Canceled) {
				return fmt.Errorf("receive: %w", err)
			}
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

func TestCloseStatus(t *testing.T) {
	for _, c := range []struct {
		err  error
		want ws.StatusCode
	}{
		{nil, 0},
		{&ws.CloseError{Code: 4000}, 4000},
		{fmt.Errorf("wrapped: %w", &ws.ProtocolError{Code: ws.StatusProtocolError}), ws.StatusProtocolError},
		{fmt.Errorf("ws: %w", ws.ErrAbnormal), ws.StatusAbnormalClosure},
		{ws.ErrDead, ws.StatusAbnormalClosure},
		{ws.ErrTooSlow, ws.StatusAbnormalClosure},
		{os.ErrDeadlineExceeded, 0},
		{context.Canceled, 0},
		{ws.ErrDropped, 0},
		{ws.ErrSkipped, 0},
		{runtime.ErrBusy, 0},
	} {
		require.Equal(t, c.want, ws.CloseStatus(c.err), "%v", c.err)
	}
}
