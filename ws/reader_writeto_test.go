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

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// A duringWrite is a Writer that runs other code while it writes. The bytes that it was
// given must not change meanwhile.
type duringWrite struct {
	do   func() error
	less int // it writes so many bytes less than it is given
	got  []byte
}

var errShort = errors.New("this Writer writes less")

func (d *duringWrite) Write(p []byte) (int, error) {
	before := bytes.Clone(p)
	if err := d.do(); err != nil {
		return 0, err
	}
	if !bytes.Equal(before, p) {
		return 0, errors.New("the bytes have changed")
	}
	d.got = append(d.got, p[:len(p)-d.less]...)
	if d.less > 0 {
		return len(p) - d.less, errShort
	}
	return len(p), nil
}

// If the connection ends while w writes a Reader's bytes, w keeps those bytes, and WriteTo
// reports bytes that were not written.
func TestEndWhileWriteToWrites(t *testing.T) {
	content := strings.Repeat("0123456789", 1000)
	for _, c := range []struct {
		name  string
		do    func(ctx context.Context, c *ws.Conn) error
		ended bool
	}{
		{"nothing", func(context.Context, *ws.Conn) error { return nil }, false},
		{"a turn", func(ctx context.Context, _ *ws.Conn) error { return loop.Yield(ctx) }, false},
		{"Readable", func(ctx context.Context, c *ws.Conn) error { _, err := loop.WaitAny(ctx, c.Readable()); return err }, false},
		{"CloseNow", func(_ context.Context, c *ws.Conn) error { return c.CloseNow() }, true},
		{"Close", func(_ context.Context, c *ws.Conn) error { return c.Close(4001, "") }, true},
		{"Close on a goroutine", goroutine(func(_ context.Context, c *ws.Conn) error { return c.Close(4001, "") }), true},
		{"Close beside", func(ctx context.Context, c *ws.Conn) error {
			closer, err := closeBeside(ctx, c)
			return errors.Join(err, closer.Wait(ctx))
		}, true},
	} {
		for _, whole := range []bool{false, true} { // it was received before the Reader was asked for
			for _, less := range []int{0, 1} {
				read := func(ctx context.Context, conn *ws.Conn) error {
					if whole {
						if _, err := loop.WaitAny(ctx, conn.Readable()); err != nil {
							return err
						}
					}
					_, r, err := conn.NextReader(ctx)
					if err != nil {
						return err
					}
					w := &duringWrite{do: func() error { return c.do(ctx, conn) }, less: less}
					n, err := r.WriteTo(w)
					rest, rerr := io.ReadAll(r)
					got := string(w.got) + string(rest)
					switch {
					case int(n) != len(w.got):
						return fmt.Errorf("%d bytes are said to be written, which were %d", n, len(w.got))
					case !strings.HasPrefix(content, got):
						return fmt.Errorf("got %d bytes, other ones", len(got))
					case less > 0 && !errors.Is(err, errShort):
						return fmt.Errorf("the Writer's error became %w", err)
					case rerr == nil && len(got) != len(content):
						return fmt.Errorf("%d bytes are taken for all of the message (%w)", len(got), err)
					case !c.ended && rerr != nil:
						return fmt.Errorf("the rest: %w", rerr)
					}
					return nil
				}
				t.Run(fmt.Sprintf("%s,whole=%v,less=%d", c.name, whole, less), func(t *testing.T) {
					backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
						result := make(chan error, 1)
						srv := echoServer()
						srv.Handler = func(ctx context.Context, c *ws.Conn) error { result <- read(ctx, c); return nil }
						frames := [][]byte{fr(frame.Text, true, content)}
						if !whole {
							frames = [][]byte{fr(frame.Text, false, content[:6000]), fr(frame.Continuation, true, content[6000:])}
						}
						message := bytes.Join(append(frames, closeFrame(4001, "")), nil)
						p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
						p.send(message)
						require.NoError(t, <-result)
						toTheEnd(p)

						srv = echoServer()
						srv.Handler = func(ctx context.Context, c *ws.Conn) error {
							if whole {
								return c.SendText(ctx, content)
							}
							w, err := c.NextWriter(ctx, ws.TypeText)
							if err != nil {
								return err
							}
							_, err = io.WriteString(w, content[:6000])
							err = errors.Join(err, w.Flush())
							_, werr := io.WriteString(w, content[6000:])
							return errors.Join(err, werr, w.Close())
						}
						g := backendtest.Group(t, v, 2)
						addr := serve(t, g, srv)
						require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
							c, err := ws.Dial(ctx, "ws://"+addr, ws.DialOptions{})
							if err != nil {
								return err
							}
							err = read(ctx, c)
							_ = c.CloseNow() // it may be closed
							return err
						}))
					})
				})
			}
		}
	}
}

// writeBeside starts a task that calls r.WriteTo, and returns when the task waits in Write.
// Write continues when done is set.
func writeBeside(ctx context.Context, r *ws.Reader, done *loop.Event) (*loop.Task, error) {
	task, err := loop.Go(ctx, "writes", func(ctx context.Context) error {
		_, err := r.WriteTo(&duringWrite{do: func() error { _, err := loop.WaitAny(ctx, done); return err }})
		return err
	})
	return task, errors.Join(err, loop.Yield(ctx))
}

// Receiving the next message while a Reader's WriteTo waits in Write skips the rest of the
// Reader's message: WriteTo fails with ErrSkipped, and no task spins.
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

// When a handler returns, a task of its may still write a Reader's bytes.
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

// On a client, WriteTo fails with net.ErrClosed if CloseNow is called before all was
// written.
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
