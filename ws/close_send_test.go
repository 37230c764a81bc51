package ws_test

import (
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
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// A Writer that is used after Close fails with net.ErrClosed, as other calls do.
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

// Close waits for the message that a Writer has begun, and not for a Writer that another
// task asks for meanwhile.
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

// Close waits for a Writer and sends its frame right after that Writer's message: a Send
// between the two is refused.
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

// Close does not wait for a Writer longer than CloseTimeout: the caller may have left its
// own Writer open.
func TestCloseWithWriterOpen(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.CloseTimeout = 50 * time.Millisecond
		closed := make(chan error, 1)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			w, err := c.NextWriter(ctx, ws.TypeText)
			if err != nil {
				return err
			}
			if _, err := w.Write([]byte("half")); err != nil {
				return err
			}
			if err := w.Flush(); err != nil {
				return err
			}
			// A message of another goroutine waits behind the Writer, and is lost.
			if err := loop.Offload(ctx, func() { _ = c.SendText(context.Background(), "other") }); err != nil {
				return err
			}
			closed <- c.Close(ws.StatusInternalError, "gave up")
			return nil
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		require.NoError(t, <-closed)
		h, payload, err := p.read()
		require.NoError(t, err)
		require.Equal(t, "half", payload)
		require.False(t, h.Fin)
		p.wantCloseFrame(ws.StatusInternalError)
	})
}

// Close does not wait for a Writer on which nothing was written.
func TestCloseWithUnusedWriter(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.CloseTimeout = time.Hour // not reached
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			_, err := c.NextWriter(ctx, ws.TypeBinary)
			return errors.Join(err, c.Close(4001, ""))
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.wantClose(4001)
	})
}

// Messages sent after the Close frame are refused, and not accepted and lost.
func TestSendAfterCloseFrame(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.CloseTimeout = patience
		conns := make(chan *ws.Conn, 1)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			conns <- c
			return nil
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.wantCloseFrame(ws.StatusNormalClosure)
		require.ErrorIs(t, (<-conns).SendText(context.Background(), "late"), runtime.ErrClosed)
		p.send(fr(frame.Close, true, "\x03\xe8"))
	})
}

// A call that waits to send fails at once when Close is called, even if Close waits for
// the end of a Writer's message.
func TestCloseTellsWhoWaits(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.CloseTimeout, srv.SendQueue = time.Hour, 1000 // not reached
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			w, err := c.NextWriter(ctx, ws.TypeText)
			if err != nil {
				return err
			}
			_, err = io.WriteString(w, "half")
			err = errors.Join(err, onGoroutineNow(func() error { return c.SendText(ctx, strings.Repeat("x", 2000)) }))
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
