package ws_test

import (
	"bytes"
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

// poll receives with Readable and TryReceive, like a task that waits for several sources.
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

// closeBeside starts a task that closes c with 4001, and returns when it waits for the peer.
func closeBeside(ctx context.Context, c *ws.Conn) (*loop.Task, error) {
	closer, err := loop.Go(ctx, "closes", func(context.Context) error { return c.Close(4001, "") })
	return closer, errors.Join(err, loop.Yield(ctx))
}

// A call that receives while Close waits for the peer waits too, and returns how the
// connection ended, as the hook does. It does not return that another call is receiving.
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
					srv.CloseTimeout = time.Hour // not reached
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

// A call that yields while it inflates is still receiving: Close continues when that call
// is done, and no bytes are lost and no buffer leaks.
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

// A message that arrives while this end closes is dropped, whatever its length.
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

// Close does not check what it drops, such as corrupt compressed data.
func TestCloseDropsWhatCannotBeInflated(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		cause := make(chan error, 1)
		srv := echoServer()
		srv.CloseTimeout, srv.Compression = time.Hour, &ws.Compression{}
		srv.Hooks.Closed = func(_ *ws.Conn, _ ws.StatusCode, err error) { cause <- err }
		srv.Handler = func(_ context.Context, c *ws.Conn) error { return c.Close(4001, "") }
		p := connectPacked(t, serve(t, backendtest.Group(t, v, 1), srv), "permessage-deflate")
		p.wantCloseFrame(4001)
		corrupt := fr(frame.Binary, true, "\xff\xff\xff")
		corrupt[0] |= 0x40 // RSV1
		p.send(append(corrupt, closeFrame(4001, "")...))
		p.wantEnd()
		require.NoError(t, <-cause)
	})
}

// Another task may decode the peer's Close frame while Close waits. Close ends then.
func TestCloseBesidePoller(t *testing.T) {
	for name, polls := range map[string]func(ctx context.Context, c *ws.Conn) error{
		"Readable": func(ctx context.Context, c *ws.Conn) (err error) {
			for err == nil {
				err = poll(ctx, c)
			}
			return err
		},
		"TryReceive": func(ctx context.Context, c *ws.Conn) (err error) {
			for err == nil {
				m, rerr := c.TryReceive()
				if m != nil {
					m.Release()
				}
				err = errors.Join(rerr, loop.Yield(ctx))
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				result := make(chan error, 1)
				srv := echoServer()
				srv.CloseTimeout = time.Hour
				srv.Handler = func(ctx context.Context, c *ws.Conn) error {
					_, err := loop.Go(ctx, "polls", func(ctx context.Context) error {
						result <- polls(ctx, c)
						return nil
					})
					return errors.Join(err, loop.Yield(ctx), c.Close(4001, ""))
				}
				p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
				p.wantCloseFrame(4001)
				p.send(append(text("too late"), closeFrame(4001, "")...))
				p.wantEnd()
				err := <-result
				require.True(t, closedByPeer(4001)(err), "%v", err)
			})
		})
	}
}

// If the peer does not answer in time, that task gets net.ErrClosed, and not an error of
// Close's deadline.
func TestCloseInVainBesidePoller(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		result := make(chan error, 1)
		srv := echoServer()
		srv.CloseTimeout = 20 * time.Millisecond
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			_, err := loop.Go(ctx, "polls", func(ctx context.Context) error {
				result <- poll(ctx, c)
				return nil
			})
			return errors.Join(err, loop.Yield(ctx), c.Close(4001, ""))
		}
		toTheEnd(connect(t, serve(t, backendtest.Group(t, v, 1), srv)))
		err := <-result
		require.ErrorIs(t, err, net.ErrClosed)
		require.False(t, isTimeout(err), "%v", err)
	})
}

// Close continues to wait for the peer when the task that received has stopped.
func TestCloseTakesOverReceiving(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		stopped := make(chan struct{})
		srv := echoServer()
		srv.CloseTimeout = time.Hour // not reached
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

// A message that arrives after the Close frame was sent does not end the closing
// handshake: the peer gets all that was queued.
func TestCloseWhileCloseReadReceives(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		closing, causes := make(chan struct{}), make(chan error, 2)
		srv := echoServer()
		srv.CloseTimeout = time.Hour // not reached
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

// Nor does a protocol error that another task finds meanwhile.
func TestCloseWhileAnotherTaskFails(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		closing := make(chan struct{})
		srv := echoServer()
		srv.CloseTimeout = time.Hour // not reached
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

// Close receives although a Ping waits for its pong.
func TestCloseBesidePing(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		stopped := make(chan struct{})
		srv := echoServer()
		srv.PingInterval, srv.CloseTimeout = -1, time.Hour // not reached
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

// A Reader that is begun while Close waits for another receiver fails with net.ErrClosed,
// as one that was begun before does.
func TestReaderBegunWhileClosing(t *testing.T) {
	for name, reads := range map[string]func(ctx context.Context, c *ws.Conn) (func([]byte) (int, error), error){
		"Reader": func(ctx context.Context, c *ws.Conn) (func([]byte) (int, error), error) {
			_, r, err := c.NextReader(ctx)
			if err != nil {
				return nil, err
			}
			return r.Read, nil
		},
		"NetConn": func(ctx context.Context, c *ws.Conn) (func([]byte) (int, error), error) {
			return c.NetConn(ctx, ws.TypeBinary).Read, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				result := make(chan error, 1)
				srv := echoServer()
				srv.CloseTimeout = time.Hour
				srv.Handler = func(ctx context.Context, c *ws.Conn) error {
					_, err := loop.Go(ctx, "closes", func(context.Context) error { return c.Close(4001, "") })
					if err != nil {
						return err
					}
					read, err := reads(ctx, c)
					if err != nil {
						return err
					}
					b := make([]byte, 100)
					n, err := read(b)
					if err != nil {
						return err
					}
					err = errors.Join(loop.Yield(ctx), loop.Yield(ctx)) // Close takes over
					if err == nil {
						_, err = read(b)
					}
					result <- fmt.Errorf("after %q: %w", b[:n], err)
					return nil
				}
				p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
				p.wantCloseFrame(4001)
				p.send(fr(frame.Binary, false, "half a message"))
				require.ErrorIs(t, <-result, net.ErrClosed)
				p.send(closeFrame(4001, ""))
				p.wantEnd()
			})
		})
	}
}

// A Reader used while Close waits for the end of a connection that the peer has closed
// fails with the peer's *CloseError, whichever call has decoded the Close frame.
func TestReaderWhileClosingAfterPeer(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		addr, accepted := serverPeer(t, switching)
		read := make(chan struct{})
		go func() {
			p := <-accepted
			p.send(raw("\x02\x04half\x88\x02\x0f\xa1"))
			<-read
			hangUp(p)
		}()
		client(t, backendtest.Group(t, v, 1), "ws://"+addr, ws.DialOptions{Options: ws.Options{CloseTimeout: time.Hour}}, func(ctx context.Context, c *ws.Conn) error {
			defer close(read)
			_, r, err := c.NextReader(ctx)
			if err != nil {
				return err
			}
			if _, err := io.ReadFull(r, make([]byte, 4)); err != nil {
				return err
			}
			if _, err := loop.WaitAny(ctx, c.Readable()); err != nil { // finds the Close frame
				return err
			}
			if _, err := closeBeside(ctx, c); err != nil {
				return err
			}
			if _, err = r.Read(make([]byte, 4)); closedByPeer(4001)(err) {
				return nil
			}
			return fmt.Errorf("the Reader says %v", err)
		})
	})
}

// WriteTo of a message that is still arriving when Close is called fails with
// net.ErrClosed.
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

// A read deadline that another task sets does not end the closing handshake.
func TestDeadlineWhileClosing(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		result, code := make(chan error, 1), make(chan ws.StatusCode, 1)
		srv := echoServer()
		srv.CloseTimeout = time.Hour
		srv.Hooks.Closed = func(_ *ws.Conn, c ws.StatusCode, _ error) { code <- c }
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			closer, err := closeBeside(ctx, c)
			err = errors.Join(err, c.SetReadDeadline(time.Unix(1, 0)))
			for range 3 { // it would have been seen
				err = errors.Join(err, loop.Yield(ctx))
			}
			result <- err
			return closer.Wait(ctx)
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.wantCloseFrame(4001)
		require.ErrorIs(t, <-result, net.ErrClosed)
		p.send(closeFrame(4001, ""))
		p.wantEnd()
		require.Equal(t, ws.StatusCode(4001), <-code)
	})
}

// Close takes no longer than CloseTimeout, even if another task moves the read deadline.
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

// Keep-alive sends no pings while Close waits. The second connection, whose peer answers
// no pings, shows when it would have.
func TestKeepAliveWhileClosing(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		ends := make(chan error, 2)
		srv := echoServer()
		srv.CloseTimeout, srv.PingInterval, srv.PongTimeout = time.Hour, 5*time.Millisecond, 5*time.Millisecond
		srv.Hooks.Closed = func(_ *ws.Conn, _ ws.StatusCode, err error) { ends <- err }
		first := true
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			if first {
				first = false
				return c.Close(4001, "")
			}
			return receiveOne(ctx, c)
		}
		addr := serve(t, backendtest.Group(t, v, 1), srv)
		p := connect(t, addr)
		p.wantCloseFrame(4001)
		toTheEnd(connect(t, addr))
		require.ErrorIs(t, <-ends, ws.ErrPongTimeout)
		p.send(closeFrame(4001, ""))
		p.wantEnd()
		require.NoError(t, <-ends)
	})
}

// After the peer's Close frame no message is sent, even if there was no memory to answer
// it.
func TestNoMessageAfterPeersClose(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		result := make(chan error, 1)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			m, err := c.Receive(ctx)
			if err != nil {
				return err
			}
			restore := exhaust(c.Loop().Pool())
			defer restore()
			err = receiveOne(ctx, c)
			if !closedByPeer(4002)(err) {
				return fmt.Errorf("receiving: %w", err)
			}
			result <- c.Send(ctx, m)
			return nil
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.send(append(text(strings.Repeat("x", 3000)), closeFrame(4002, "")...)) // in one receive buffer
		err := <-result
		require.True(t, closedByPeer(4002)(err), "%v", err)
		h, _, err := p.read()
		require.NoError(t, err)
		require.Equal(t, frame.Close, h.Op)
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
