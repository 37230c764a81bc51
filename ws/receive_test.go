package ws_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// A push server waits for a message of the peer and for a queue at once.
func TestReadable(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		queue := loop.NewQueue[string](10)
		srv := echoServer()
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			for {
				i, err := loop.WaitAny(ctx, c.Readable(), queue)
				if err != nil {
					return err
				}
				if i == 1 {
					s, _ := queue.TryGet()
					if err := c.SendText(ctx, s); err != nil {
						return err
					}
					continue
				}
				m, err := c.TryReceive()
				if err != nil {
					return err
				}
				if m == nil {
					return errors.New("it was readable, and there was nothing")
				}
				if err := c.Send(ctx, m); err != nil {
					return err
				}
			}
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		for i := range 20 {
			half := text("from the peer")
			p.send(half[:5]) // not yet a message: the queue must not wait for it
			require.NoError(t, queue.TryPut(fmt.Sprint(i)))
			p.want(frame.Text, fmt.Sprint(i))
			p.send(half[5:])
			p.want(frame.Text, "from the peer")
		}
	})
}

// A message that was decoded early, for Readable or while a Ping waited, may be longer
// than MaxMessage: a Reader reads it, and Receive fails.
func TestLongMessageReceivedAhead(t *testing.T) {
	content := strings.Repeat("0123456789", 500)
	beyond := strings.Repeat("0123456789", 100) + "x" // by one byte, at its end
	for name, message := range map[string][]byte{
		"frame":             fr(frame.Binary, true, content),
		"fragments":         append(fr(frame.Binary, false, content[:900]), fr(frame.Continuation, true, content[900:])...),
		"compressed":        deflated(frame.Binary, content),
		"compressed, by 1":  deflated(frame.Binary, beyond),
		"compressed, large": deflated(frame.Binary, strings.Repeat(content, 100)),
	} {
		want := content
		switch {
		case strings.HasSuffix(name, "by 1"):
			want = beyond
		case strings.HasSuffix(name, "large"):
			want = strings.Repeat(content, 100)
		}
		ahead := map[string]func(ctx context.Context, c *ws.Conn) error{
			"Readable": func(ctx context.Context, c *ws.Conn) error { _, err := loop.WaitAny(ctx, c.Readable()); return err },
			"Ping": func(ctx context.Context, c *ws.Conn) error {
				pctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond) // the peer does not answer it
				defer cancel()
				_, _ = c.Ping(pctx)
				return nil
			},
		}
		t.Run(name, func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				for how, ahead := range ahead {
					for _, streams := range []bool{true, false} {
						t.Run(fmt.Sprintf("%s,streams=%v", how, streams), func(t *testing.T) {
							result := make(chan error, 1)
							srv := echoServer()
							srv.MaxMessage, srv.PongTimeout, srv.Compression = 1000, 20*time.Millisecond, &ws.Compression{}
							srv.Handler = func(ctx context.Context, c *ws.Conn) (err error) {
								defer func() { result <- err }()
								if err := ahead(ctx, c); err != nil {
									return err
								}
								if !streams {
									return receiveOne(ctx, c)
								}
								_, r, err := c.NextReader(ctx)
								if err != nil {
									return err
								}
								p, err := io.ReadAll(r)
								if err == nil && string(p) != want {
									err = fmt.Errorf("%d bytes, other ones", len(p))
								}
								return err
							}
							p := connectPacked(t, serve(t, backendtest.Group(t, v, 1), srv), "permessage-deflate")
							p.send(message)
							if streams {
								require.NoError(t, <-result)
							} else {
								require.True(t, brokenByPeer(ws.StatusMessageTooBig)(<-result))
							}
							p.send(closeFrame(1000, ""))
							toTheEnd(p)
						})
					}
				}
			})
		})
	}
}

// Polling for a message that is too long for Receive does not inflate more of it. A Reader
// can continue a message that a Receive has begun, and Receive gets the next message.
func TestLongMessagePolled(t *testing.T) {
	content := strings.Repeat("0123456789", 1<<17)
	packed := deflatedPayload(content)
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		result, next := make(chan error, 1), make(chan struct{})
		srv := echoServer()
		srv.MaxMessage, srv.Compression = 1000, &ws.Compression{}
		srv.Handler = func(ctx context.Context, c *ws.Conn) (err error) {
			defer func() { result <- err }()
			rctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			defer cancel()
			if _, err := c.Receive(rctx); !errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("receive: %w", err)
			}
			close(next)
			if _, err := loop.WaitAny(ctx, c.Readable()); err != nil {
				return err
			}
			used := c.Loop().Pool().Friend(friend.Key{}).Stats()
			for range 1000 {
				if _, err := loop.WaitAny(ctx, c.Readable()); err != nil {
					return err
				}
			}
			if now := c.Loop().Pool().Friend(friend.Key{}).Stats(); now.Mapped > used.Mapped+256<<10 {
				return fmt.Errorf("%d bytes, and then %d", used.Mapped, now.Mapped)
			}
			_, r, err := c.NextReader(ctx)
			if err != nil {
				return err
			}
			p, err := io.ReadAll(r)
			if err == nil && string(p) != content {
				err = fmt.Errorf("%d bytes, other ones", len(p))
			}
			return errors.Join(err, receiveText(ctx, c, "short"))
		}
		p := connectPacked(t, serve(t, backendtest.Group(t, v, 1), srv), "permessage-deflate")
		p.send(rsv1(fr(frame.Binary, false, packed[:3])))
		<-next
		p.send(append(fr(frame.Continuation, true, packed[3:]), text("short")...))
		require.NoError(t, <-result)
	})
}

// Hooks.MessageReceived is not called for a message that no call receives: one that
// arrives while this end closes, and one that stays in the stash of a Ping.
func TestMessageReceivedOnlyIfReceived(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		var in []int // on the loop
		srv := echoServer()
		srv.Hooks.MessageReceived = func(_ *ws.Conn, _ ws.Type, n int) { in = append(in, n) }
		ended := make(chan []int, 1)
		srv.Hooks.Closed = func(*ws.Conn, ws.StatusCode, error) { ended <- in; in = nil }
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			if err := receiveOne(ctx, c); err != nil {
				return err
			}
			if _, err := c.Ping(ctx); err != nil {
				return err
			}
			return c.Close(4001, "")
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.send(text("1"))
		h, payload, err := p.read()
		require.NoError(t, err)
		require.Equal(t, frame.Ping, h.Op)
		p.send(append(text("12"), fr(frame.Pong, true, payload)...))
		p.wantCloseFrame(4001)
		p.send(append(text("123"), closeFrame(4001, "")...))
		p.wantEnd()
		require.Equal(t, []int{1}, <-ended)
	})
}

// A deadline that passes is reported as one, on the loop and on a goroutine.
func TestDeadlineErrors(t *testing.T) {
	calls := map[string]func(ctx context.Context, c *ws.Conn) error{
		"Receive":    func(ctx context.Context, c *ws.Conn) error { _, err := c.Receive(ctx); return err },
		"NextReader": func(ctx context.Context, c *ws.Conn) error { _, _, err := c.NextReader(ctx); return err },
		"Ping":       func(ctx context.Context, c *ws.Conn) error { _, err := c.Ping(ctx); return err },
	}
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		for _, onGoroutine := range []bool{false, true} {
			srv := echoServer()
			srv.OnGoroutine = onGoroutine
			srv.Handler = func(ctx context.Context, c *ws.Conn) error {
				for name, call := range calls {
					for _, limit := range []time.Duration{0, time.Microsecond, time.Millisecond} {
						cctx, cancel := context.WithTimeout(ctx, limit)
						err := call(cctx, c)
						cancel()
						if !errors.Is(err, context.DeadlineExceeded) {
							return fmt.Errorf("%s, %v: %w", name, limit, err)
						}
						cctx, cancel = context.WithCancel(ctx)
						cancel()
						if err := call(cctx, c); !errors.Is(err, context.Canceled) {
							return fmt.Errorf("%s, cancelled: %w", name, err)
						}
					}
				}
				return nil
			}
			p := connect(t, serve(t, g, srv))
			p.wantClose(ws.StatusNormalClosure)
		}
	})
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
