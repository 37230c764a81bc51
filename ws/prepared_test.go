package ws_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws"
)

// A long broadcast is compressed on a goroutine, also if a task is the first to send
// it, and if several are: whoever comes meanwhile waits for the first, and the
// loop's other tasks have their turns.
func TestLongPreparedTakesTurns(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		const size, peers = 4 << 20, 3
		long := make([]byte, size)
		rnd := rand.New(rand.NewPCG(backendtest.Seed(t), 0))
		for i := range long {
			long[i] = "0123456789abcdef"[rnd.IntN(16)]
		}
		g := backendtest.Group(t, v, 1)
		news := ws.Prepare(ws.TypeBinary, long)
		srv := echoServer()
		srv.Compression = &ws.Compression{}
		var turns, least atomic.Int64 // of another task during a SendPrepared
		least.Store(size)
		var together loop.Event
		var there atomic.Int32
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			other, err := loop.Go(ctx, "other", func(ctx context.Context) error {
				for loop.Yield(ctx) == nil {
					turns.Add(1)
				}
				return nil
			})
			if err != nil {
				return err
			}
			defer other.Cancel(true)
			if there.Add(1) == peers {
				together.Set()
			}
			if err := together.Wait(ctx); err != nil {
				return err
			}
			before := turns.Load()
			if err := c.SendPrepared(ctx, news); err != nil {
				return err
			}
			least.Store(min(least.Load(), turns.Load()-before))
			return receiveOne(ctx, c)
		}
		addr := serve(t, g, srv)
		opts := ws.DialOptions{Options: ws.Options{Compression: &ws.Compression{}, MaxMessage: size}}
		require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
			var all []*loop.Task
			for range peers {
				one, err := loop.Go(ctx, "client", func(ctx context.Context) error {
					c, err := ws.Dial(ctx, "ws://"+addr, opts)
					if err != nil {
						return err
					}
					defer c.CloseNow()
					m, err := c.Receive(ctx)
					if err != nil {
						return err
					}
					defer m.Release()
					if string(m.Bytes()) != string(long) {
						return fmt.Errorf("%d bytes, and not the %d that were sent", m.Len(), size)
					}
					return c.Close(ws.StatusNormalClosure, "")
				})
				if err != nil {
					return err
				}
				all = append(all, one)
			}
			for _, one := range all {
				if err := one.Wait(ctx); err != nil {
					return err
				}
			}
			return nil
		}))
		require.Positive(t, least.Load(), "turns of another task")
	})
}
