package ws_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// exhaust takes all buffers of a pool, until restore is called.
func exhaust(pool *runtime.Pool) (restore func()) {
	var held []*runtime.Buffer
	for size := 1 << 20; size > 0; size /= 2 {
		for {
			b, err := pool.Get(size)
			if err != nil {
				break
			}
			held = append(held, b)
		}
	}
	return func() {
		for _, b := range held {
			b.Release()
		}
	}
}

// exhaustWhenSent is exhaust, once nothing is queued any more: a queued buffer would have
// room for further bytes.
func exhaustWhenSent(ctx context.Context, c *ws.Conn) (restore func()) {
	for c.Queued() > 0 {
		_ = loop.Yield(ctx)
	}
	return exhaust(c.Loop().Pool())
}

// If there is no memory for a message that was accepted from another thread, the message
// is lost and the connection ends.
func TestLostMessageEndsConnection(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		received := make(chan error, 1)
		srv := echoServer()
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			if err := echoOne(ctx, c); err != nil {
				return err
			}
			restore := exhaustWhenSent(ctx, c)
			err := onGoroutineNow(func() error { return c.SendBinary(ctx, make([]byte, 5000)) })
			for range 2 {
				err = errors.Join(err, loop.Yield(ctx))
			}
			restore()
			if err == nil {
				_, err = c.Receive(ctx)
			}
			received <- err
			return nil
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.send(text("begin"))
		require.ErrorIs(t, <-received, runtime.ErrNoBuffers)
		toTheEnd(p)
	})
}

// If there is no memory half-way through a Writer's message, the connection ends.
func TestWriterWithoutBuffers(t *testing.T) {
	noise := make([]byte, 20_000)
	for i := range noise {
		noise[i] = byte(rand.Int())
	}
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, packed := range []bool{false, true} {
			for _, place := range []string{"task", "goroutine"} {
				t.Run(fmt.Sprintf("%s,packed=%v", place, packed), func(t *testing.T) {
					written := make(chan error, 1)
					var restore func()
					onLoop := func(ctx context.Context, c *ws.Conn, f func()) error {
						return c.Loop().Call(ctx, "test", func(context.Context) error { f(); return nil })
					}
					write := func(ctx context.Context, c *ws.Conn) error {
						w, err := c.NextWriter(ctx, ws.TypeBinary)
						if err != nil {
							return err
						}
						_, err = w.Write(noise)
						if err = errors.Join(err, w.Flush()); err != nil {
							return err
						}
						for c.Queued() > 0 && c.Loop().Friend(friend.Key{}).OnLoop() { // queued buffers have room for further bytes
							_ = loop.Yield(ctx)
						}
						err = onLoop(ctx, c, func() { restore = exhaust(c.Loop().Pool()) })
						_, werr := w.Write(noise)
						written <- errors.Join(werr, w.Flush(), w.Close())
						return errors.Join(err, onLoop(ctx, c, restore))
					}
					if place == "goroutine" {
						write = goroutine(write)
					}
					srv := echoServer()
					srv.Handler = func(ctx context.Context, c *ws.Conn) error {
						return errors.Join(write(ctx, c), receiveOne(ctx, c))
					}
					g := backendtest.Group(t, v, 1)
					var p *peer
					if packed {
						srv.Compression = &ws.Compression{}
						p = connectPacked(t, serve(t, g, srv), "permessage-deflate")
					} else {
						p = connect(t, serve(t, g, srv))
					}
					require.ErrorIs(t, <-written, runtime.ErrNoBuffers)
					_, err := io.Copy(io.Discard, p.r)
					require.False(t, isTimeout(err), "the peer has half a message, and sees no end")
				})
			}
		}
	})
}

// A Ping for which there is no memory fails, and does not end the connection.
func TestPingWithoutBuffers(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		result := make(chan error, 1)
		srv := echoServer()
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			if err := echoOne(ctx, c); err != nil {
				return err
			}
			restore := exhaustWhenSent(ctx, c)
			_, err := c.Ping(ctx)
			restore()
			result <- err
			return c.SendText(ctx, "and on")
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.send(text("begin"))
		p.want(1, "begin")
		require.ErrorIs(t, <-result, runtime.ErrNoBuffers)
		p.want(1, "and on")
		p.wantClose(ws.StatusNormalClosure)
	})
}

// A Close for which there is no memory fails with ErrNoBuffers, and does not wait for an
// answer.
func TestCloseWithoutBuffers(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		result := make(chan error, 1)
		srv := echoServer()
		srv.CloseTimeout = time.Hour // not reached
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			if err := echoOne(ctx, c); err != nil {
				return err
			}
			restore := exhaustWhenSent(ctx, c)
			err := c.Close(4001, "enough")
			restore()
			result <- err
			return nil
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.send(text("begin"))
		require.ErrorIs(t, <-result, runtime.ErrNoBuffers)
		toTheEnd(p)
	})
}

// Keep-alive continues after a ping for which there was no memory.
func TestKeepAliveWithoutBuffers(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		result := make(chan error, 1)
		srv := echoServer()
		srv.PingInterval, srv.PongTimeout = 20*time.Millisecond, 20*time.Millisecond
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			restore := exhaustWhenSent(ctx, c)
			rctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond) // by then a ping was due, and its pong
			defer cancel()
			_, _ = c.Receive(rctx)
			restore()
			_, err := c.Receive(ctx)
			result <- err
			return err
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		require.ErrorIs(t, <-result, ws.ErrPongTimeout)
		toTheEnd(p)
	})
}

// If there was no memory for the Close frame that refuses or answers, the next Close frame
// has its code.
func TestCloseCodeWithoutBuffers(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for code, frames := range map[ws.StatusCode][]byte{
			ws.StatusProtocolError: fr(frame.Continuation, true, ""),
			4002:                   closeFrame(4002, ""),
		} {
			srv := echoServer()
			srv.Handler = func(ctx context.Context, c *ws.Conn) error {
				if err := echoOne(ctx, c); err != nil {
					return err
				}
				restore := exhaustWhenSent(ctx, c)
				err := receiveOne(ctx, c)
				restore()
				return err
			}
			p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
			p.send(text("begin"))
			p.want(frame.Text, "begin")
			p.send(frames)
			p.wantCloseFrame(code)
			p.send(closeFrame(int(code), ""))
			toTheEnd(p)
		}
	})
}

// If there is memory for only a part of a message, that part's memory is released.
func TestHalfMessageWithoutBuffers(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, size := range []int{2048, 4096, 8192} {
			result := make(chan error, 1)
			srv := echoServer()
			srv.Handler = func(ctx context.Context, c *ws.Conn) error {
				if err := echoOne(ctx, c); err != nil {
					return err
				}
				for c.Queued() > 0 {
					_ = loop.Yield(ctx)
				}
				pool := c.Loop().Pool()
				one, err := pool.Get(size)
				if err != nil {
					return err
				}
				restore := exhaust(pool)
				one.Release()
				err = c.Send(ctx, ws.NewMessage(ws.TypeBinary, make([]byte, 100_000)))
				restore()
				result <- err
				return err
			}
			p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
			p.send(text("begin"))
			if err := <-result; err != nil { // the message needs memory for the header only
				require.ErrorIs(t, err, runtime.ErrNoBuffers)
			}
			toTheEnd(p)
		}
	})
}
