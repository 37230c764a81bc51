package ws_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// poll receives as those do who wait for several things at once.
func poll(ctx context.Context, c *ws.Conn) error {
	for {
		if _, err := loop.WaitAny(ctx, c.Readable()); err != nil {
			return err
		}
		m, err := c.TryReceive()
		if m != nil {
			m.Release()
		}
		if m != nil || err != nil {
			return err
		}
	}
}

// Who would receive while somebody closes waits for the end, and is told of it, as the
// hook is: not that another call is receiving.
func TestReceiveWhileClosing(t *testing.T) {
	for name, receive := range map[string]func(ctx context.Context, c *ws.Conn) error{
		"Receive":    receiveOne,
		"NextReader": func(ctx context.Context, c *ws.Conn) error { _, _, err := c.NextReader(ctx); return err },
		"Readable":   poll,
		"goroutine":  goroutine(receiveOne),
		"CloseRead": func(ctx context.Context, c *ws.Conn) error {
			read := c.CloseRead(ctx)
			untilCancelled(read)
			return context.Cause(read)
		},
	} {
		for _, before := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,before=%v", name, before), func(t *testing.T) {
				backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
					result, cause := make(chan error, 1), make(chan error, 1)
					srv := echoServer()
					srv.CloseTimeout = time.Hour // nobody waits for it
					srv.Hooks.Closed = func(_ *ws.Conn, _ ws.StatusCode, err error) { cause <- err }
					srv.Handler = func(ctx context.Context, c *ws.Conn) error {
						var err error
						if before { // it begins when the other one waits
							_, err = loop.Go(ctx, "closes", func(context.Context) error { return c.Close(4001, "") })
						} else {
							_, err = closeBeside(ctx, c)
						}
						if err == nil {
							err = receive(ctx, c)
						}
						result <- err
						return err
					}
					p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
					p.wantCloseFrame(4001)
					p.send(append(text("too late, unless it waits"), closeFrame(4001, "")...))
					toTheEnd(p)
					err := <-result
					switch {
					case name == "CloseRead" && before: // nothing was to come
						require.Error(t, err)
					case before && err == nil: // it got the message
					default:
						require.True(t, closedByPeer(4001)(err), "%v", err)
					}
					require.NoError(t, <-cause)
				})
			})
		}
	}
}

// Who lets others have a turn while it inflates is receiving still: Close goes on when
// it has done, and nothing of it is lost, or left behind.
func TestCloseWhileInflating(t *testing.T) {
	messages := append(deflated(frame.Binary, strings.Repeat("\x00", 5<<19)), deflated(frame.Binary, strings.Repeat("\x01", 8<<20))...)
	for name, receive := range map[string]func(ctx context.Context, c *ws.Conn) error{
		"Receive": receiveOne,
		"Reader": func(ctx context.Context, c *ws.Conn) error {
			_, r, err := c.NextReader(ctx)
			if err == nil {
				_, err = io.Copy(io.Discard, struct{ io.Reader }{r})
			}
			if errors.Is(err, net.ErrClosed) {
				err = nil
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				result := make(chan error, 1)
				srv := echoServer()
				srv.MaxMessage, srv.Compression, srv.CloseTimeout = -1, &ws.Compression{}, time.Hour
				srv.Handler = func(ctx context.Context, c *ws.Conn) error {
					if _, err := loop.WaitAny(ctx, c.Readable()); err != nil {
						return err
					}
					_, err := loop.Go(ctx, "closes", func(context.Context) error { return c.Close(4001, "") })
					result <- errors.Join(err, receive(ctx, c))
					return nil
				}
				p := connectPacked(t, serve(t, backendtest.Group(t, v, 1), srv), "permessage-deflate")
				p.send(bytes.Clone(messages))
				p.wantCloseFrame(4001)
				p.send(closeFrame(4001, ""))
				toTheEnd(p)
				require.NoError(t, <-result)
			})
		})
	}
}

// Nor does who waits for Readable meanwhile, which takes nothing, make it lose anything.
func TestReadableBesideReader(t *testing.T) {
	content := strings.Repeat("0123456789", 600_000)
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		result := make(chan error, 1)
		srv := echoServer()
		srv.MaxMessage, srv.Compression, srv.PingInterval = -1, &ws.Compression{}, -1
		srv.Handler = func(ctx context.Context, c *ws.Conn) (err error) {
			defer func() { result <- err }()
			_, r, err := c.NextReader(ctx)
			if err != nil {
				return err
			}
			others, err := loop.Go(ctx, "polls", func(ctx context.Context) error {
				for {
					if _, err := loop.WaitAny(ctx, c.Readable()); err != nil {
						return err
					}
					if err := loop.Yield(ctx); err != nil {
						return err
					}
				}
			})
			if err != nil {
				return err
			}
			defer others.Cancel(false)
			got, err := io.ReadAll(struct{ io.Reader }{r})
			if err == nil && string(got) != content {
				err = fmt.Errorf("%d bytes, other ones", len(got))
			}
			return err
		}
		p := connectPacked(t, serve(t, backendtest.Group(t, v, 1), srv), "permessage-deflate")
		p.send(deflated(frame.Binary, content))
		require.NoError(t, <-result)
		p.send(closeFrame(1000, ""))
	})
}

// What comes while this end closes is dropped, however long it is.
func TestCloseDropsLongMessage(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		long := fr(frame.Binary, true, strings.Repeat("x", 5000))
		for _, ahead := range []bool{false, true} { // it was taken in before
			cause := make(chan error, 1)
			srv := echoServer()
			srv.MaxMessage, srv.CloseTimeout = 1000, time.Hour
			srv.Hooks.Closed = func(_ *ws.Conn, _ ws.StatusCode, err error) { cause <- err }
			srv.Handler = func(ctx context.Context, c *ws.Conn) error {
				_, r, err := c.NextReader(ctx) // it takes any length
				if err == nil {
					_, err = io.Copy(io.Discard, r)
				}
				if ahead {
					_, werr := loop.WaitAny(ctx, c.Readable())
					err = errors.Join(err, werr)
				}
				return errors.Join(err, c.Close(4001, ""))
			}
			p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
			p.send(append(bytes.Clone(long), long...))
			p.wantCloseFrame(4001)
			p.send(append(bytes.Clone(long), closeFrame(4001, "")...))
			toTheEnd(p)
			require.NoError(t, <-cause)
		}
	})
}

// What is written of a message when Close comes, and goes on to come, was closed here.
func TestCloseWhileLent(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		result := make(chan error, 1)
		srv := echoServer()
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			_, r, err := c.NextReader(ctx)
			if err != nil {
				return err
			}
			var done loop.Event
			task, err := writeBeside(ctx, r, &done)
			err = errors.Join(err, c.Close(4001, ""))
			done.Set()
			result <- errors.Join(err, task.Wait(ctx))
			return nil
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.send(fr(frame.Text, false, "half a message"))
		p.wantCloseFrame(4001)
		p.send(append(fr(frame.Continuation, true, "the rest"), closeFrame(4001, "")...))
		toTheEnd(p)
		err := <-result
		require.ErrorIs(t, err, net.ErrClosed)
		require.NotErrorIs(t, err, ws.ErrSkipped)
	})
}

// Close does not wait for a Writer on which nothing was written.
func TestCloseWithUnusedWriter(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.CloseTimeout = time.Hour // nobody waits for it
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			_, err := c.NextWriter(ctx, ws.TypeBinary)
			return errors.Join(err, c.Close(4001, ""))
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.wantClose(4001)
	})
}

// A Writer that its owner leaves open is no reason to hold the peer responsible, also
// if that had kept others waiting before.
func TestWriterIsNotThePeer(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		const limit = 4 << 20
		result := make(chan error, 1)
		stuck, open := make(chan struct{}), make(chan struct{})
		srv := echoServer()
		srv.SendQueue, srv.WriteTimeout, srv.PingInterval = limit, 400*time.Millisecond, -1
		srv.Handler = func(ctx context.Context, c *ws.Conn) (err error) {
			defer func() { result <- err }()
			for same, last := 0, 0; same < 1000; same++ { // until the kernel takes no more
				if c.Queued() < limit {
					if err := c.SendBinary(ctx, make([]byte, 256_000)); err != nil {
						return err
					}
				}
				if q := c.Queued(); q != last {
					same, last = 0, q
				}
				_ = loop.Yield(ctx)
			}
			if err := elsewhereNow(func() error { return c.SendText(context.Background(), "one") }); err != nil {
				return err
			}
			for range 10 { // its function waits for room
				_ = loop.Yield(ctx)
			}
			close(stuck)
			for c.Queued() >= limit {
				_ = loop.Yield(ctx)
			}
			w, err := c.NextWriter(ctx, ws.TypeBinary)
			if err != nil {
				return err
			}
			close(open)
			var sent loop.Event
			done := make(chan error, 1)
			go func() {
				err := c.SendBinary(context.Background(), make([]byte, limit))
				if err == nil {
					err = c.SendText(context.Background(), "it has to wait")
				}
				done <- err
				sent.Set()
			}()
			wctx, cancel := context.WithTimeout(ctx, 2*srv.WriteTimeout)
			defer cancel()
			if _, err := loop.WaitAny(wctx, &sent); err == nil {
				return <-done
			}
			_, err = w.Write([]byte("x"))
			err = errors.Join(err, w.Close(), sent.Wait(ctx))
			if err == nil {
				err = <-done
			}
			return err
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		<-stuck
		for on := true; on; { // not so fast that less than half is left
			select {
			case <-open:
				on = false
			default:
				_, err := io.CopyN(io.Discard, p.r, 16<<10)
				require.NoError(t, err)
			}
		}
		go func() { _, _ = io.Copy(io.Discard, p.r) }()
		require.NoError(t, <-result)
		p.send(closeFrame(1000, ""))
	})
}
