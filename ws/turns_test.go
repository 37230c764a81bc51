package ws_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws"
)

// Compressing many messages that other threads have sent, each of them short enough to
// be compressed at once, does not keep the loop's tasks from their turns.
func TestManyMessagesTakeTurns(t *testing.T) {
	message := strings.Repeat("short enough ", 60_000/13)
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		const n = 20
		turns, out := 0, 0 // on the loop
		result := make(chan error, 1)
		srv := echoServer()
		srv.Compression, srv.SendQueue = &ws.Compression{}, 2*n*len(message)
		srv.Hooks.MessageSent = func(*ws.Conn, ws.Type, int) { out++ }
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			err := elsewhereNow(func() (err error) {
				for range n {
					err = errors.Join(err, c.SendText(ctx, message))
				}
				return err
			})
			for ; out < n && err == nil; turns++ {
				err = loop.Yield(ctx)
			}
			result <- err
			return err
		}
		p := connectPacked(t, serve(t, backendtest.Group(t, v, 1), srv), "permessage-deflate")
		go func() { _, _ = io.Copy(io.Discard, p.r) }()
		require.NoError(t, <-result)
		require.Greater(t, turns, n/3)
		p.send(closeFrame(1000, ""))
	})
}

// Nor does compressing those that go ahead of what a task sends.
func TestAheadTakesTurns(t *testing.T) {
	message := strings.Repeat("short enough ", 60_000/13)
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		const n = 20
		turns := 0 // on the loop
		result := make(chan error, 1)
		srv := echoServer()
		srv.Compression, srv.SendQueue = &ws.Compression{}, 2*n*len(message)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			others, err := loop.Go(ctx, "others", func(ctx context.Context) error {
				for loop.Yield(ctx) == nil {
					turns++
				}
				return nil
			})
			err = errors.Join(err, elsewhereNow(func() (err error) {
				for range n {
					err = errors.Join(err, c.SendText(ctx, message))
				}
				return err
			}), c.SendText(ctx, "last"))
			others.Cancel(false)
			result <- err
			return err
		}
		p := connectPacked(t, serve(t, backendtest.Group(t, v, 1), srv), "permessage-deflate")
		go func() { _, _ = io.Copy(io.Discard, p.r) }()
		require.NoError(t, <-result)
		require.Greater(t, turns, n/10)
		p.send(closeFrame(1000, ""))
	})
}
