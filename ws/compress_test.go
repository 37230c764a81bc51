package ws_test

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// Inflating a long message yields to other tasks. If one of them ends the connection, a
// part of the message must not be received as the whole.
func TestEndWhileInflating(t *testing.T) {
	message := deflated(frame.Binary, strings.Repeat("\x00", 5<<20))
	receives := map[string]func(ctx context.Context, c *ws.Conn) (int, error){
		"Receive": func(ctx context.Context, c *ws.Conn) (int, error) {
			m, err := c.Receive(ctx)
			if m == nil {
				return 0, err
			}
			defer m.Release()
			return m.Len(), err
		},
		"Reader": func(ctx context.Context, c *ws.Conn) (int, error) {
			_, r, err := c.NextReader(ctx)
			if err != nil {
				return 0, err
			}
			n, err := io.Copy(io.Discard, struct{ io.Reader }{r})
			return int(n), err
		},
		"Reader.WriteTo": func(ctx context.Context, c *ws.Conn) (int, error) {
			_, r, err := c.NextReader(ctx)
			if err != nil {
				return 0, err
			}
			n, err := r.WriteTo(io.Discard)
			return int(n), err
		},
	}
	ends := map[string]func(c *ws.Conn) error{
		"CloseNow": (*ws.Conn).CloseNow,
		"Close":    func(c *ws.Conn) error { return c.Close(4001, "") },
	}
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for how, receive := range receives {
			for who, end := range ends {
				t.Run(how+","+who, func(t *testing.T) {
					result := make(chan error, 1)
					srv := echoServer()
					srv.Compression = &ws.Compression{}
					srv.MaxMessage = 10 << 20
					srv.Handler = func(ctx context.Context, c *ws.Conn) error {
						if _, err := loop.WaitAny(ctx, c.Readable()); err != nil { // inflating has begun
							return err
						}
						if _, err := loop.Go(ctx, "ends", func(context.Context) error { return end(c) }); err != nil {
							return err
						}
						n, err := receive(ctx, c)
						switch {
						case err == nil && (n < 5<<20 || who == "CloseNow"):
							err = fmt.Errorf("%d bytes, and no error", n)
						case n < 5<<20 && !errors.Is(err, runtime.ErrBusy):
							err = nil
						}
						result <- err
						return nil
					}
					p := connectPacked(t, serve(t, backendtest.Group(t, v, 1), srv), "permessage-deflate")
					p.send(append(bytes.Clone(message), closeFrame(4001, "")...))
					require.NoError(t, <-result)
					toTheEnd(p)
				})
			}
		}
	})
}

// A message that is flushed after each byte is compressed to many times its length. It
// must not be refused as too long.
func TestFlushedMessage(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		const size = 3000
		srv := echoServer()
		srv.MaxMessage, srv.Compression = size, &ws.Compression{}
		g := backendtest.Group(t, v, 1)
		rnd := rand.New(rand.NewPCG(backendtest.Seed(t), 0))
		client(t, g, "ws://"+serve(t, g, srv), ws.DialOptions{Options: ws.Options{Compression: &ws.Compression{}}}, func(ctx context.Context, c *ws.Conn) error {
			w, err := c.NextWriter(ctx, ws.TypeBinary)
			if err != nil {
				return err
			}
			for range size {
				if _, err := w.Write([]byte{byte(rnd.Uint32())}); err != nil {
					return err
				}
				if err := w.Flush(); err != nil {
					return err
				}
			}
			if err := w.Close(); err != nil {
				return err
			}
			m, err := c.Receive(ctx)
			if err != nil {
				return err
			}
			defer m.Release()
			if m.Len() != size {
				return fmt.Errorf("%d bytes", m.Len())
			}
			return nil
		})
	})
}

// Compressing a long message yields to the loop's other tasks, wherever it is sent from,
// and its neighbours stay in order.
func TestLongMessagesTakeTurns(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		const size = 3 << 20
		long := make([]byte, size)
		rnd := rand.New(rand.NewPCG(backendtest.Seed(t), 0))
		for i := range long {
			long[i] = "0123456789abcdef"[rnd.IntN(16)]
		}
		g := backendtest.Group(t, v, 2)
		for _, compression := range []*ws.Compression{{}, {Threshold: 100_000}} {
			srv := echoServer()
			srv.Compression = compression
			var turns, during int64
			srv.Handler = func(ctx context.Context, c *ws.Conn) error {
				other, err := loop.Go(ctx, "other", func(ctx context.Context) error {
					for loop.Yield(ctx) == nil {
						atomic.AddInt64(&turns, 1)
					}
					return nil
				})
				if err != nil {
					return err
				}
				defer other.Cancel(true)
				say := func() error {
					return errors.Join(c.SendText(ctx, "before"), c.Send(ctx, ws.NewMessage(ws.TypeBinary, long)), c.SendText(ctx, "after"))
				}
				at := atomic.LoadInt64(&turns)
				if err := say(); err != nil {
					return err
				}
				during = atomic.LoadInt64(&turns) - at
				if oerr := loop.Offload(ctx, func() { err = say() }); oerr != nil || err != nil {
					return errors.Join(oerr, err)
				}
				_, err = c.Receive(ctx)
				return err
			}
			addr := serve(t, g, srv)
			client(t, g, "ws://"+addr, ws.DialOptions{Options: ws.Options{Compression: &ws.Compression{}, MaxMessage: size}}, func(ctx context.Context, c *ws.Conn) error {
				for range 2 {
					for _, want := range []string{"before", string(long), "after"} {
						m, err := c.Receive(ctx)
						if err != nil {
							return err
						}
						if string(m.Bytes()) != want {
							return fmt.Errorf("%d bytes, and not the %d that were sent", m.Len(), len(want))
						}
						m.Release()
					}
				}
				return nil
			})
			require.GreaterOrEqual(t, during, int64(size>>16-1), "turns of another task")
		}
	})
}

// Compressing many messages of other threads, each short enough to be compressed at once,
// yields to the loop's tasks.
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
			err := onGoroutineNow(func() (err error) {
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

// So does compressing those that precede what a task sends.
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
			err = errors.Join(err, onGoroutineNow(func() (err error) {
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

// connectPacked is connect with an offer to compress, which is accepted.
func connectPacked(t *testing.T, addr, offer string) *peer {
	p := dialTCP(t, addr)
	p.send([]byte(strings.TrimSuffix(request, "\r\n") + "Sec-WebSocket-Extensions: " + offer + "\r\n\r\n"))
	require.Contains(t, p.head(), offer)
	return p
}

// inflate inflates the payload of a compressed message. It appends the tail of RFC 7692,
// section 7.2.2, and a last block, which flate needs.
func inflate(t *testing.T, packed string) string {
	p, err := io.ReadAll(flate.NewReader(strings.NewReader(packed + "\x00\x00\xff\xff\x01\x00\x00\xff\xff")))
	require.NoError(t, err)
	return string(p)
}
