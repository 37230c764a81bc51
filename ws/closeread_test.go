package ws_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
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

// When ctx ends, CloseRead lets go, and receiving is free again.
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

// Its context tells why, also where that is the caller's own, or a hook that panics.
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

// closeBeside starts a task that closes c with 4001, and returns when it waits for the peer.
func closeBeside(ctx context.Context, c *ws.Conn) (*loop.Task, error) {
	closer, err := loop.Go(ctx, "closes", func(context.Context) error { return c.Close(4001, "") })
	return closer, errors.Join(err, loop.Yield(ctx))
}

// What comes after the Close frame was sent is no reason to end the closing
// handshake: the peer gets all that it was sent.
func TestCloseWhileCloseReadReceives(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		closing, causes := make(chan struct{}), make(chan error, 2)
		srv := echoServer()
		srv.CloseTimeout = time.Hour // nobody waits for it
		srv.Hooks.Closed = func(_ *ws.Conn, _ ws.StatusCode, cause error) { causes <- cause }
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			read := c.CloseRead(ctx)
			if err := c.SendText(ctx, long); err != nil {
				return err
			}
			closer, err := closeBeside(ctx, c)
			if err != nil {
				return err
			}
			close(closing)
			err = closer.Wait(ctx)
			causes <- errors.Join(err, context.Cause(read))
			return nil
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		<-closing
		for range 3 {
			p.send(text("on its way"))
		}
		p.want(frame.Text, long)
		p.wantCloseFrame(4001)
		p.send(text("on its way still"))
		p.send(closeFrame(4001, "bye"))
		p.wantEnd()
		var closed *ws.CloseError
		require.ErrorAs(t, <-causes, &closed)
		require.Equal(t, "bye", closed.Reason)
		require.NoError(t, <-causes)
	})
}

// Nor is what another task finds wrong meanwhile.
func TestCloseWhileAnotherTaskFails(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		closing := make(chan struct{})
		srv := echoServer()
		srv.CloseTimeout = time.Hour // nobody waits for it
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			if _, err := loop.Go(ctx, "receives", func(ctx context.Context) error { return receiveOne(ctx, c) }); err != nil {
				return err
			}
			if err := c.SendText(ctx, long); err != nil {
				return err
			}
			closer, err := closeBeside(ctx, c)
			if err != nil {
				return err
			}
			close(closing)
			return closer.Wait(ctx)
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		<-closing
		p.send(raw("\x83\x80\x00\x00\x00\x00")) // a reserved opcode
		p.send(raw(long))
		p.want(frame.Text, long)
		p.wantCloseFrame(4001)
		require.NoError(t, p.Conn.(*net.TCPConn).CloseWrite())
		p.wantEnd()
	})
}

// A server that stops says so at once, although a task of the handler receives.
func TestCloseReadDrain(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
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
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		stopped := make(chan struct{})
		srv := echoServer()
		srv.CloseTimeout = time.Hour // nobody waits for it
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			receiver, err := loop.Go(ctx, "receives", func(ctx context.Context) error { return receiveOne(ctx, c) })
			if err != nil {
				return err
			}
			if err := loop.Yield(ctx); err != nil {
				return err
			}
			closer, err := closeBeside(ctx, c)
			if err != nil {
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
		{fmt.Errorf("ws: %w", ws.ErrAbnormalClosure), ws.StatusAbnormalClosure},
		{ws.ErrPongTimeout, ws.StatusAbnormalClosure},
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
