package ws_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// The tests of this file are of what others do with a connection while it is closed.

// Who looks meanwhile may be the one who finds the peer's Close frame: Close does not
// wait on for it.
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

// It is told so too if the peer does not answer in time: not that its own time is over.
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

// A Reader that is begun when Close waits for who receives is told of that, as one that
// was begun before is.
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

// What goes on after a Close says so, a Writer as all else.
func TestWriterAfterClose(t *testing.T) {
	for _, begun := range []bool{false, true} {
		t.Run(fmt.Sprint("begun=", begun), func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				result := make(chan [2]error, 1)
				srv := echoServer()
				srv.CloseTimeout = 20 * time.Millisecond
				srv.Handler = func(ctx context.Context, c *ws.Conn) error {
					w, err := c.NextWriter(ctx, ws.TypeBinary)
					if err != nil {
						return err
					}
					if begun {
						_, err = w.Write([]byte("x"))
						err = errors.Join(err, w.Flush())
					}
					err = errors.Join(err, c.Close(4001, ""))
					_, werr := w.Write(make([]byte, 100_000))
					result <- [2]error{werr, w.Close()}
					return err
				}
				toTheEnd(connect(t, serve(t, backendtest.Group(t, v, 1), srv)))
				for _, err := range <-result {
					require.ErrorIs(t, err, net.ErrClosed)
				}
			})
		})
	}
}

// Close waits for the message that a Writer has begun, and not for one that somebody
// has asked for meanwhile.
func TestCloseBesideWriters(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		result := make(chan error, 1)
		srv := echoServer()
		srv.CloseTimeout = time.Hour
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			w, err := c.NextWriter(ctx, ws.TypeBinary)
			if err != nil {
				return err
			}
			_, err = w.Write([]byte("x"))
			var closed loop.Event
			_, gerr := loop.Go(ctx, "writes next", func(ctx context.Context) error {
				next, err := c.NextWriter(ctx, ws.TypeBinary)
				if err == nil {
					_, werr := loop.WaitAny(ctx, &closed)
					_, err = next.Write([]byte("y"))
					err = errors.Join(werr, err, next.Close())
				}
				result <- err
				return nil
			})
			err = errors.Join(err, gerr, loop.Yield(ctx))
			closer, cerr := closeBeside(ctx, c)
			err = errors.Join(err, cerr, w.Close())
			if err == nil {
				err = closer.Wait(ctx)
			}
			closed.Set()
			return err
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.want(frame.Binary, "x")
		p.wantCloseFrame(4001)
		p.send(closeFrame(4001, ""))
		p.wantEnd()
		require.ErrorIs(t, <-result, net.ErrClosed)
	})
}

// A deadline that somebody sets, as one does to wake who reads from a net.Conn, does not
// end the closing handshake.
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

// Nor does keep-alive, which asks nobody then. The second connection, whose peer
// answers no ping, tells when it would have.
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

// What is dropped is not looked at: it need not even be what it says.
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

// Who reads while Close waits for the end of a connection that the peer has closed is
// told that, whoever has found it out.
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

// Close that waits for a Writer comes right after that Writer: what is sent when the
// Writer has ended, and before Close goes on, is refused.
func TestSendBetweenWriterAndClose(t *testing.T) {
	for name, send := range map[string]func(ctx context.Context, c *ws.Conn) error{
		"Send": func(ctx context.Context, c *ws.Conn) error {
			return c.Send(ctx, ws.NewMessage(ws.TypeText, []byte("too late")))
		},
		"SendText": func(ctx context.Context, c *ws.Conn) error { return c.SendText(ctx, "too late") },
		"SendPrepared": func(ctx context.Context, c *ws.Conn) error {
			return c.SendPrepared(ctx, ws.Prepare(ws.TypeText, []byte("too late")))
		},
		"NextWriter": func(ctx context.Context, c *ws.Conn) error { _, err := c.NextWriter(ctx, ws.TypeText); return err },
	} {
		t.Run(name, func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				result := make(chan error, 1)
				addr := serve(t, backendtest.Group(t, v, 1), &ws.Server{Handler: func(ctx context.Context, c *ws.Conn) error {
					w, err := c.NextWriter(ctx, ws.TypeText)
					if err != nil {
						return err
					}
					_, err = io.WriteString(w, "in time")
					closer, cerr := closeBeside(ctx, c)
					if err = errors.Join(err, cerr, w.Close()); err == nil {
						result <- send(ctx, c)
						err = closer.Wait(ctx)
					}
					return err
				}})
				p := connect(t, addr)
				p.want(frame.Text, "in time")
				p.wantClose(4001)
				require.ErrorIs(t, <-result, net.ErrClosed)
			})
		})
	}
}
