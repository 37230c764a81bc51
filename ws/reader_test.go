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

// Streaming: a handler writes the bytes of a message as it reads them.
func TestReaderAndWriter(t *testing.T) {
	for _, compressed := range []bool{false, true} {
		for _, goroutine := range []bool{false, true} {
			t.Run(fmt.Sprintf("deflate=%v,goroutine=%v", compressed, goroutine), func(t *testing.T) {
				backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
					g := backendtest.Group(t, v, 2)
					srv := echoServer()
					srv.MaxMessage, srv.OnGoroutine = 1000, goroutine // which does not bound a Reader
					opts := ws.DialOptions{Options: ws.Options{MaxMessage: 2 << 20}}
					if compressed {
						srv.Compression, opts.Compression = &ws.Compression{}, &ws.Compression{}
					}
					srv.Handler = func(ctx context.Context, c *ws.Conn) error {
						for {
							typ, r, err := c.NextReader(ctx)
							if err != nil {
								return err
							}
							w, err := c.NextWriter(ctx, typ)
							if err != nil {
								return err
							}
							if _, err := io.Copy(w, r); err != nil {
								return err
							}
							if err := w.Close(); err != nil {
								return err
							}
						}
					}
					client(t, g, "ws://"+serve(t, g, srv), opts, func(ctx context.Context, c *ws.Conn) error {
						for _, n := range []int{0, 1, 999, 100_000, 1 << 20} {
							want := bytes.Repeat([]byte("noria "), n/6+1)[:n]
							if err := c.SendBinary(ctx, want); err != nil {
								return err
							}
							m, err := c.Receive(ctx)
							if err != nil {
								return err
							}
							if !bytes.Equal(m.Bytes(), want) {
								return fmt.Errorf("%d bytes came back as %d", n, m.Len())
							}
							m.Release()
						}
						return nil
					})
				})
			})
		}
	}
}

func TestReaderSkipped(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		type result struct {
			p    string
			err  error
			many string
		}
		// Each gives up a Reader that has read the first bytes of its message.
		for name, skip := range map[string]func(ctx context.Context, c *ws.Conn) error{
			"Receive": func(ctx context.Context, c *ws.Conn) error {
				m, err := c.Receive(ctx)
				if err == nil {
					m.Release()
				}
				return err
			},
			"NextReader": func(ctx context.Context, c *ws.Conn) error {
				_, _, err := c.NextReader(ctx)
				return err
			},
			"TryReceive": func(_ context.Context, c *ws.Conn) error { // the rest is not all here
				m, err := c.TryReceive()
				if m != nil {
					return fmt.Errorf("a message of %d bytes", m.Len())
				}
				return err
			},
			"CloseNow": func(_ context.Context, c *ws.Conn) error { return c.CloseNow() },
		} {
			for _, all := range []bool{false, true} { // its bytes were read, and its end was not
				results := make(chan result, 1)
				srv := echoServer()
				srv.Handler = func(ctx context.Context, c *ws.Conn) error {
					_, r, err := c.NextReader(ctx)
					if err != nil {
						return err
					}
					n := 2
					if all {
						n = 6
					}
					p := make([]byte, n)
					if _, err := io.ReadFull(r, p); err != nil {
						return err
					}
					if err := skip(ctx, c); err != nil {
						results <- result{err: err}
						return err
					}
					if all && name == "TryReceive" { // nothing was lost: the Reader continues
						err := c.SetReadDeadline(time.Unix(1, 0))
						if err != nil {
							return err
						}
					}
					rest, err := io.ReadAll(r)
					n2, werr := r.WriteTo(io.Discard)
					results <- result{string(p) + string(rest), err, fmt.Sprint(n2, werr)}
					return nil
				}
				p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
				if name == "TryReceive" {
					p.send(fr(frame.Text, false, "abcdef"))
				} else {
					p.send(append(text("abcdef"), text("next")...))
				}
				got := <-results
				switch {
				case name == "CloseNow":
					require.True(t, got.err != nil || got.p == "abcdef", name)
				case all && name == "TryReceive":
					require.Error(t, got.err, name) // nothing more arrives: see below
				case all:
					require.NoError(t, got.err, name)
					require.Equal(t, "0 <nil>", got.many, name)
					require.Equal(t, "abcdef", got.p, name)
				default:
					require.ErrorIs(t, got.err, ws.ErrSkipped, name)
					require.Contains(t, got.many, "skipped", name)
					require.Equal(t, "ab", got.p, name)
				}
			}
		}
	})
}

// What there was of a message that was given up must not be taken for all of it.
// A Reader whose connection is closed fails with net.ErrClosed and not with ErrSkipped.
func TestReaderAfterClose(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			_, r, err := c.NextReader(ctx)
			if err != nil {
				return err
			}
			if err := c.Close(ws.StatusNormalClosure, ""); err != nil {
				return err
			}
			if _, err = r.Read(make([]byte, 10)); !errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("read: %w", err)
			}
			return nil
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.send(bytes.Join([][]byte{fr(frame.Text, false, "the beginning"), fr(frame.Continuation, true, "and the end")}, nil))
		p.wantClose(ws.StatusNormalClosure)
		require.Eventually(t, func() bool { return srv.Stats().Active == 0 }, patience, time.Millisecond)
		require.Zero(t, srv.Stats().Failed)
	})
}

// A compressed message that a Receive has begun and a Reader continues may have any
// length.
func TestReaderOfBegunMessageIsUnbounded(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		begun := make(chan struct{})
		result := make(chan error, 1)
		const size = 1 << 20
		srv := echoServer()
		srv.Compression = &ws.Compression{}
		srv.MaxMessage = size / 2
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			m, err := c.Receive(ctx)
			if err != nil {
				return err
			}
			m.Release() // the next message has arrived too
			if m, err := c.TryReceive(); m != nil || err != nil {
				return errors.Join(errors.New("half a message is one"), err)
			}
			close(begun)
			_, r, err := c.NextReader(ctx)
			if err != nil {
				result <- err
				return err
			}
			n, err := io.Copy(io.Discard, r)
			if err == nil && n != size {
				err = fmt.Errorf("%d bytes", n)
			}
			result <- err
			return err
		}
		addr := serve(t, backendtest.Group(t, v, 1), srv)
		p := dialTCP(t, addr)
		p.send([]byte(strings.Replace(request, "\r\n\r\n", "\r\n"+deflateOffer+"\r\n", 1)))
		require.Contains(t, p.head(), "permessage-deflate")
		payload := deflatedPayload(strings.Repeat("\x00", size))
		p.send(append(text("first"), rsv1(fr(frame.Binary, false, payload[:100]))...))
		<-begun
		p.send(fr(frame.Continuation, true, payload[100:]))
		require.NoError(t, <-result)
	})
}

// MaxMessage does not bound a Reader, but it bounds a Receive after a NextReader whose
// context ended when only the header had arrived.
func TestMaxMessageAfterNextReaderGivenUp(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		result := make(chan error, 1)
		gaveUp := make(chan struct{})
		srv := echoServer()
		srv.MaxMessage = 1000
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
				return err
			}
			_, _, err := c.NextReader(ctx)
			if err == nil {
				result <- errors.New("a Reader without payload")
				return nil
			}
			if err := c.SetReadDeadline(time.Time{}); err != nil {
				return err
			}
			close(gaveUp)
			m, err := c.Receive(ctx)
			if m != nil {
				m.Release()
			}
			result <- err
			return err
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		f := fr(frame.Binary, true, strings.Repeat("x", 70_000))
		p.send(f[:14]) // the header
		<-gaveUp
		p.send(f[14:])
		err := <-result
		require.Equal(t, ws.StatusMessageTooBig, ws.CloseStatus(err), "%v", err)
		p.wantCloseFrame(ws.StatusMessageTooBig)
	})
}

// The hook is called once for a message that was decoded before the call of NextReader.
func TestMessageReceivedOnce(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		var sizes []int
		srv := echoServer()
		srv.Hooks.MessageReceived = func(_ *ws.Conn, _ ws.Type, n int) { sizes = append(sizes, n) }
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			if _, err := loop.WaitAny(ctx, c.Readable()); err != nil {
				return err
			}
			_, r, err := c.NextReader(ctx)
			if err != nil {
				return err
			}
			p, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			if err := c.SendText(ctx, string(p)); err != nil {
				return err
			}
			_, err = c.Receive(ctx)
			return err
		}
		closed := make(chan struct{})
		srv.Hooks.Closed = func(*ws.Conn, ws.StatusCode, error) { close(closed) }
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.send(text("hello"))
		p.want(frame.Text, "hello")
		p.send(closeFrame(1000, ""))
		<-closed
		require.Equal(t, []int{5}, sizes)
	})
}

// An abandoned Reader makes Readable ready only while there is something to skip: a task
// that waits for Readable must not keep other tasks from running.
func TestReadableAfterAbandonedReader(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		turns := make(chan int, 1)
		srv := echoServer()
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			_, r, err := c.NextReader(ctx)
			if err != nil {
				return err
			}
			if _, err := io.ReadFull(r, make([]byte, 2)); err != nil {
				return err
			}
			for i := 0; ; i++ {
				if i == 1000 {
					turns <- i
					return nil
				}
				if _, err := loop.WaitAny(ctx, c.Readable()); err != nil {
					return err
				}
				m, err := c.TryReceive()
				if err != nil {
					return err
				}
				if m != nil {
					turns <- i
					return c.Send(ctx, m)
				}
			}
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.send(fr(frame.Text, false, "abcdef"))
		p.send(fr(frame.Continuation, false, "more"))
		time.AfterFunc(50*time.Millisecond, func() { // nothing depends on how long
			_, _ = p.Write(append(fr(frame.Continuation, true, "end"), text("next")...))
		})
		require.Less(t, <-turns, 100)
		p.want(frame.Text, "next")
	})
}

// A task that waits for Readable while a Reader inflates takes nothing from the Reader.
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
