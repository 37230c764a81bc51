package ws_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// writeBeside starts a task that has r write, and returns when that waits in its
// Write, which goes on when done is set.
func writeBeside(ctx context.Context, r *ws.Reader, done *loop.Event) (*loop.Task, error) {
	task, err := loop.Go(ctx, "writes", func(ctx context.Context) error {
		_, err := r.WriteTo(&duringWrite{do: func() error { _, err := loop.WaitAny(ctx, done); return err }})
		return err
	})
	return task, errors.Join(err, loop.Yield(ctx))
}

// Who receives the next message while a Reader's WriteTo waits in its Write skips the
// rest of that one: it is told, and nobody turns on the spot.
func TestSkippedWhileLent(t *testing.T) {
	for name, receive := range map[string]func(ctx context.Context, c *ws.Conn) error{
		"Receive": func(ctx context.Context, c *ws.Conn) error { return receiveText(ctx, c, "another") },
		"Readable": func(ctx context.Context, c *ws.Conn) error {
			for range 1000 {
				if _, err := loop.WaitAny(ctx, c.Readable()); err != nil {
					return err
				}
				if m, err := c.TryReceive(); m != nil || err != nil {
					if m != nil {
						m.Release()
					}
					return err
				}
			}
			return errors.New("Readable says that there is something, and TryReceive has nothing")
		},
	} {
		t.Run(name, func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				for _, rest := range []string{"", "the rest"} {
					result, next := make(chan error, 1), make(chan struct{})
					srv := echoServer()
					srv.Handler = func(ctx context.Context, c *ws.Conn) (err error) {
						defer func() { result <- err }()
						_, r, err := c.NextReader(ctx)
						if err != nil {
							return err
						}
						var done loop.Event
						writer, err := writeBeside(ctx, r, &done)
						close(next)
						err = errors.Join(err, receive(ctx, c))
						done.Set()
						werr := writer.Wait(ctx)
						if rest != "" && !errors.Is(werr, ws.ErrSkipped) || rest == "" && werr != nil {
							err = errors.Join(err, fmt.Errorf("WriteTo: %w", werr))
						}
						return err
					}
					p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
					p.send(fr(frame.Text, false, "half a message"))
					<-next
					p.send(bytes.Join([][]byte{fr(frame.Continuation, false, rest), fr(frame.Continuation, true, ""), text("another")}, nil))
					require.NoError(t, <-result)
				}
			})
		})
	}
}

// A handler that returns does not take away what a task of its writes still.
func TestHandlerReturnsWhileLent(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, whole := range []bool{false, true} {
			result := make(chan error, 1)
			srv := echoServer()
			srv.Handler = func(ctx context.Context, c *ws.Conn) error {
				if whole {
					if _, err := loop.WaitAny(ctx, c.Readable()); err != nil {
						return err
					}
				}
				_, r, err := c.NextReader(ctx)
				if err != nil {
					return err
				}
				_, err = loop.Go(ctx, "writes", func(own context.Context) error {
					err := errors.New("it panicked")
					defer func() { result <- err }()
					_, err = r.WriteTo(&duringWrite{do: func() error { untilCancelled(own); return nil }})
					if !whole && errors.Is(err, net.ErrClosed) { // there would have been more
						err = nil
					}
					return nil
				})
				return errors.Join(err, loop.Yield(ctx))
			}
			p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
			p.send(append(fr(frame.Text, whole, string(bytes.Repeat([]byte("0123456789"), 600))), closeFrame(1000, "")...))
			require.NoError(t, <-result)
			toTheEnd(p)
		}
	})
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// On a client, what was not written when CloseNow came was closed here.
func TestClientClosesWhileLent(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			return errors.Join(c.SendText(ctx, "0123456789"), receiveOne(ctx, c))
		}
		g := backendtest.Group(t, v, 2)
		addr := serve(t, g, srv)
		require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
			c, err := ws.Dial(ctx, "ws://"+addr, ws.DialOptions{})
			if err != nil {
				return err
			}
			_, r, err := c.NextReader(ctx)
			if err != nil {
				return err
			}
			_, _ = r.WriteTo(writerFunc(func([]byte) (int, error) { return 1, errors.Join(errShort, c.CloseNow()) }))
			if _, err = io.ReadAll(r); !errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("after CloseNow: %w", err)
			}
			return nil
		}))
	})
}
