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

// What was received ahead, for Readable or while a Ping waited, may be longer than
// MaxMessage: a Reader takes it, and a Receive does not.
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
				pctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond) // it is not answered
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

// Who polls for a message that is too long for a Receive has no more of it inflated;
// and what a Receive had begun is for a Reader too, and what follows for a Receive.
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
