package ws_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// A handler that only sends: pings are answered, and its context ends with the connection.
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
			func(err error) bool { return errors.Is(err, ws.ErrAbnormalClosure) }, ws.StatusAbnormalClosure},
	} {
		t.Run(c.name, func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				for _, place := range []string{"task", "goroutine"} {
					t.Run(place, func(t *testing.T) {
						cause := make(chan error, 1)
						srv := echoServer()
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

// When ctx ends, CloseRead stops receiving, and another call may receive.
func TestCloseReadStops(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			rctx, cancel := context.WithCancel(ctx)
			defer cancel()
			read := c.CloseRead(rctx)
			if err := loop.Yield(ctx); err != nil {
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

// context.Cause says why its context ended, even if that was the caller's context or a
// hook that panicked.
func TestCloseReadCauses(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, goroutine := range []bool{false, true} {
			wait := untilCancelled
			if goroutine {
				wait = func(ctx context.Context) { <-ctx.Done() }
			}
			causes := make(chan error, 1)
			srv := echoServer()
			srv.OnGoroutine = goroutine
			srv.Hooks.MessageReceived = func(*ws.Conn, ws.Type, int) { panic("as it was told") }
			srv.Handler = func(ctx context.Context, c *ws.Conn) error {
				tctx, cancel := context.WithTimeout(ctx, time.Millisecond)
				defer cancel()
				read := c.CloseRead(tctx)
				wait(read)
				causes <- context.Cause(read)
				read = c.CloseRead(ctx)
				err := c.SendText(ctx, "your turn")
				wait(read)
				causes <- errors.Join(err, context.Cause(read))
				return nil
			}
			p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
			require.ErrorIs(t, <-causes, context.DeadlineExceeded)
			p.want(frame.Text, "your turn")
			p.send(text("a message"))
			require.ErrorContains(t, <-causes, "panicked")
			p.wantCloseFrame(ws.StatusNormalClosure)
			p.send(closeFrame(1000, ""))
			p.wantEnd()
		}
	})
}

// A server that drains sends its Close frame at once, although CloseRead receives.
func TestCloseReadDrain(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.CloseTimeout = time.Hour // not reached
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
