package ws_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws"
)

// A broadcast to plain and to compressed connections, between other messages.
func TestPrepared(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 2)
		small, large := ws.Prepare(ws.TypeText, []byte("small")), ws.Prepare(ws.TypeBinary, bytes.Repeat([]byte("large "), 5000))
		srv := echoServer()
		srv.Compression = &ws.Compression{}
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			for range 3 {
				m, err := c.Receive(ctx)
				if err != nil {
					return err
				}
				if err := errors.Join(c.SendPrepared(ctx, small), c.SendPrepared(ctx, large), c.Send(ctx, m)); err != nil {
					return err
				}
			}
			_, err := c.Receive(ctx)
			return err
		}
		addr := serve(t, g, srv)
		for _, compression := range []*ws.Compression{nil, {}} {
			client(t, g, "ws://"+addr, ws.DialOptions{Options: ws.Options{Compression: compression}}, func(ctx context.Context, c *ws.Conn) error {
				for range 3 {
					mine := strings.Repeat("large mine ", 100)
					if err := c.SendText(ctx, mine); err != nil {
						return err
					}
					for _, want := range []string{"small", strings.Repeat("large ", 5000), mine} {
						m, err := c.Receive(ctx)
						if err != nil {
							return err
						}
						if string(m.Bytes()) != want {
							return fmt.Errorf("got %.40q, want %.40q", m.Bytes(), want)
						}
						m.Release()
					}
				}
				return nil
			})
		}
	})
}

// A broadcast is compressed with the window that its peer has agreed to: repetitions
// within the window are found, and those further back are not.
func TestPreparedWindows(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		block := make([]byte, 2000)
		rnd := rand.New(rand.NewPCG(backendtest.Seed(t), 0))
		for i := range block {
			block[i] = byte(rnd.Uint32())
		}
		payload := bytes.Repeat(block, 30)
		news := ws.Prepare(ws.TypeBinary, payload)
		srv := echoServer()
		srv.Compression = &ws.Compression{}
		srv.Handler = func(ctx context.Context, c *ws.Conn) error { return c.SendPrepared(ctx, news) }
		addr := serve(t, backendtest.Group(t, v, 1), srv)
		for offer, most := range map[string]int{"permessage-deflate": 5000, "permessage-deflate; server_max_window_bits=9": 70_000} {
			p := connectPacked(t, addr, offer)
			_, packed, err := p.read()
			require.NoError(t, err)
			require.Less(t, len(packed), most, offer)
			require.Equal(t, most > len(payload), len(packed) > len(payload)/2, "%s: %d bytes", offer, len(packed))
			require.True(t, inflate(t, packed) == string(payload))
			p.wantClose(ws.StatusNormalClosure)
		}
	})
}

// A long broadcast is compressed on a goroutine even if one or more tasks are the first
// to send it. The later ones wait for the first, and the loop's other tasks run meanwhile.
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
