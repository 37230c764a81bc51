package ws_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// receiveUntil starts a task that receives until stop is called. stop waits for its end.
func receiveUntil(ctx context.Context, c *ws.Conn) (stop func(), err error) {
	rctx, cancel := context.WithCancel(ctx)
	receiver, err := loop.Go(ctx, "receives", func(context.Context) error { return receiveOne(rctx, c) })
	if err = errors.Join(err, loop.Yield(ctx)); err != nil {
		cancel()
		return nil, err
	}
	return func() { cancel(); _ = receiver.Wait(ctx) }, nil
}

// pingBeside starts a task that calls Ping, and returns when that waits for the pong.
func pingBeside(ctx context.Context, c *ws.Conn) (*loop.Task, error) {
	ping, err := loop.Go(ctx, "pings", func(ctx context.Context) error { _, err := c.Ping(ctx); return err })
	return ping, errors.Join(err, loop.Yield(ctx))
}

// Ping while no call receives, with a message in front of the pong, and while another task
// receives.
func TestPing(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 2)
		client(t, g, "ws://"+serve(t, g, echoServer()), ws.DialOptions{}, func(ctx context.Context, c *ws.Conn) error {
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
			reading, err := loop.Go(ctx, "reader", func(ctx context.Context) error {
				m, err := c.Receive(ctx)
				if err == nil {
					m.Release()
				}
				return err
			})
			if err != nil {
				return err
			}
			if err := loop.Yield(ctx); err != nil {
				return err
			}
			if _, err := c.Ping(ctx); err != nil {
				return err
			}
			return errors.Join(c.SendText(ctx, "second"), reading.Wait(ctx))
		})
	})
}

// Two Pings wait and the task that received stops: both then receive, one after the other.
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

// Ping keeps a limited number of messages that arrive in front of the pong. With more it
// fails, since its caller may be the one that should receive them.
func TestPingBehindMessages(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		const messages = 20
		srv := echoServer()
		srv.PongTimeout = 100 * time.Millisecond
		received := make(chan int, 1)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			_, err := c.Ping(ctx)
			if !errors.Is(err, runtime.ErrBusy) {
				return fmt.Errorf("ping: %w", err)
			}
			n := 0
			for ; n < messages; n++ {
				m, err := c.Receive(ctx)
				if err != nil {
					return err
				}
				m.Release()
			}
			received <- n
			_, err = c.Ping(ctx)
			return err
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		h, payload, err := p.read()
		require.NoError(t, err)
		require.Equal(t, frame.Ping, h.Op)
		for range messages {
			p.send(text("a message"))
		}
		p.send(fr(frame.Pong, true, payload))
		require.Equal(t, messages, <-received)
		_, payload, err = p.read()
		require.NoError(t, err)
		p.send(fr(frame.Pong, true, payload))
		p.wantClose(ws.StatusNormalClosure)
	})
}

// While a Reader is open a Ping decodes nothing. It waits for calls of the Reader, but not
// for ever.
func TestPingInReader(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.PongTimeout = 100 * time.Millisecond
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			_, r, err := c.NextReader(ctx)
			if err != nil {
				return err
			}
			if _, err := c.Ping(ctx); !errors.Is(err, runtime.ErrBusy) {
				return fmt.Errorf("ping: %w", err)
			}
			other, err := loop.Go(ctx, "ping", func(ctx context.Context) error {
				_, err := c.Ping(ctx)
				return err
			})
			if err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, r); err != nil {
				return err
			}
			if _, err := c.Receive(ctx); err == nil { // decodes the pong too
				return errors.New("there is no message")
			}
			return other.Wait(ctx)
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.send(fr(frame.Text, false, "begun"))
		_, first, err := p.read()
		require.NoError(t, err)
		_, second, err := p.read()
		require.NoError(t, err)
		p.send(bytes.Join([][]byte{fr(frame.Pong, true, first), fr(frame.Pong, true, second), fr(frame.Continuation, true, ""), closeFrame(1000, "")}, nil))
		p.wantCloseFrame(ws.StatusNormalClosure)
		p.wantEnd()
		require.Eventually(t, func() bool { return srv.Stats().Active == 0 }, patience, time.Millisecond)
		require.Zero(t, srv.Stats().Failed)
	})
}

// A Ping decodes its pong itself when the task that received has stopped.
func TestPingAfterReceiverStops(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		result := make(chan error, 1)
		stopped := make(chan struct{})
		srv := echoServer()
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			// Runs when Receive waits.
			pinger, err := loop.Go(ctx, "ping", func(ctx context.Context) error {
				_, err := c.Ping(ctx)
				return err
			})
			if err != nil {
				return err
			}
			m, err := c.Receive(ctx)
			if err != nil {
				return err
			}
			m.Release()
			close(stopped)
			result <- pinger.Wait(ctx)
			return nil
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		h, payload, err := p.read()
		require.NoError(t, err)
		require.Equal(t, frame.Ping, h.Op)
		p.send(text("stop receiving"))
		<-stopped
		p.send(fr(frame.Pong, true, payload))
		select {
		case err := <-result:
			require.NoError(t, err)
		case <-time.After(patience):
			t.Fatal("the ping has not seen its pong")
		}
		p.Close()
	})
}

// answers reports whether the loop runs a posted function within patience.
func answers(t *testing.T, l *loop.Loop) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, l.Call(ctx, "something else", func(context.Context) error { return nil }))
}

// A Ping after the read deadline has passed fails, and does not block the loop.
func TestPingAfterReadDeadline(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		conns, results := make(chan *ws.Conn, 1), make(chan error, 3)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
				return err
			}
			conns <- c
			_, err := c.Receive(ctx)
			results <- err
			_, err = c.Ping(ctx)
			results <- err
			if err := c.SetReadDeadline(time.Time{}); err != nil {
				return err
			}
			_, err = c.Ping(ctx)
			results <- err
			return receiveOne(ctx, c)
		}
		g := backendtest.Group(t, v, 1)
		p := connect(t, serve(t, g, srv))
		c := <-conns
		answers(t, c.Loop())
		require.ErrorIs(t, <-results, os.ErrDeadlineExceeded)
		require.ErrorIs(t, <-results, os.ErrDeadlineExceeded)
		for range 2 { // the first Ping has failed, and its pong is ignored
			h, payload, err := p.read()
			require.NoError(t, err)
			require.Equal(t, frame.Ping, h.Op)
			p.send(fr(frame.Pong, true, payload))
		}
		require.NoError(t, <-results)
	})
}
