package ws_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// NetConn carries bytes through messages in both directions.
func TestNetConn(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 2)
		srv := echoServer()
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			nc := c.NetConn(ctx, ws.TypeBinary)
			_, err := io.Copy(struct{ io.Writer }{nc}, struct{ io.Reader }{nc})
			return err
		}
		client(t, g, "ws://"+serve(t, g, srv), ws.DialOptions{}, func(ctx context.Context, c *ws.Conn) error {
			nc := c.NetConn(ctx, ws.TypeBinary)
			want := bytes.Repeat([]byte("bytes "), 20_000)
			for p := want; len(p) > 0; {
				n := min(len(p), 7000)
				if _, err := nc.Write(p[:n]); err != nil {
					return err
				}
				p = p[n:]
			}
			got := make([]byte, len(want))
			if _, err := io.ReadFull(nc, got); err != nil {
				return err
			}
			if !bytes.Equal(got, want) {
				return errors.New("other bytes came back")
			}
			if err := nc.SetReadDeadline(time.Now()); err != nil {
				return err
			}
			if _, err := nc.Read(got); !isTimeout(err) {
				return fmt.Errorf("a deadline: %v", err)
			}
			if n, err := nc.Read(nil); n != 0 || err != nil {
				return fmt.Errorf("reading nothing: %d, %w", n, err)
			}
			return nc.SetReadDeadline(time.Time{})
		})
	})
}

// io.EOF is the error between two messages; in the middle of one it is another.
func TestNetConnHalfMessage(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		result := make(chan error, 1)
		srv := echoServer()
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			_, err := io.ReadAll(c.NetConn(ctx, ws.TypeBinary))
			result <- err
			return nil
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.send(append(fr(frame.Binary, false, "half of a mes"), closeFrame(1000, "")...))
		require.True(t, closedByPeer(1000)(<-result))
		toTheEnd(p)
	})
}

// io.EOF means that the peer has closed. If this end closes, a Read fails with
// net.ErrClosed, whether it waits then or is called later.
func TestNetConnReadAfterClose(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		result := make(chan error, 2)
		srv := echoServer()
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			nc := c.NetConn(ctx, ws.TypeBinary)
			read := func() error {
				_, err := nc.Read(make([]byte, 10))
				result <- err
				return nil
			}
			reader, err := loop.Go(ctx, "reads", func(context.Context) error { return read() })
			return errors.Join(err, loop.Yield(ctx), nc.Close(), reader.Wait(ctx), read())
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.wantClose(ws.StatusNormalClosure)
		require.ErrorIs(t, <-result, net.ErrClosed)
		require.ErrorIs(t, <-result, net.ErrClosed)
	})
}

// A NetConn passes the suite of golang.org/x/net for a net.Conn.
func TestNetConnAsNetConn(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 2)
		conns := make(chan *ws.Conn, 1)
		srv := echoServer()
		srv.OnGoroutine = true
		srv.CloseTimeout = 10 * time.Millisecond // a client that has closed does not read, and the server may wait for it
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			conns <- c
			<-ctx.Done()
			return nil
		}
		addr := serve(t, g, srv)
		nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
			var c *ws.Conn
			err = g.Loops()[1].Call(context.Background(), "dial", func(ctx context.Context) (err error) {
				c, err = ws.Dial(ctx, "ws://"+addr, ws.DialOptions{Options: ws.Options{CloseTimeout: srv.CloseTimeout}})
				return err
			})
			if err != nil {
				return nil, nil, nil, err
			}
			d := <-conns
			return c.NetConn(context.Background(), ws.TypeBinary), d.NetConn(context.Background(), ws.TypeBinary), func() {
				_ = c.CloseNow()
				_ = d.CloseNow()
			}, nil
		})
	})
}

// After Close a NetConn fails with net.ErrClosed, whatever its deadlines were, and has
// nothing registered with its context.
func TestNetConnClosed(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		result := make(chan error, 1)
		var hangs atomic.Int64
		srv := echoServer()
		srv.OnGoroutine = true
		srv.Handler = func(_ context.Context, c *ws.Conn) error {
			nc := c.NetConn(countingContext{context.Background(), &hangs}, ws.TypeBinary)
			other := c.NetConn(countingContext{context.Background(), &hangs}, ws.TypeBinary)
			defer other.Close()
			err := errors.Join(nc.SetWriteDeadline(time.Now().Add(time.Hour)), other.SetWriteDeadline(time.Now().Add(time.Hour)))
			err = errors.Join(err, nc.SetWriteDeadline(time.Now().Add(-time.Second)), nc.Close())
			if _, werr := nc.Write([]byte("x")); !errors.Is(werr, net.ErrClosed) || errors.Is(werr, os.ErrDeadlineExceeded) {
				err = errors.Join(err, fmt.Errorf("write: %w", werr))
			}
			if derr := nc.SetWriteDeadline(time.Time{}); !errors.Is(derr, net.ErrClosed) {
				err = errors.Join(err, fmt.Errorf("deadline: %w", derr))
			}
			result <- err
			return nil
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.send(closeFrame(1000, ""))
		require.NoError(t, <-result)
		toTheEnd(p)
		require.Eventually(t, func() bool { return srv.Stats().Active == 0 }, patience, time.Millisecond)
		require.Zero(t, hangs.Load(), "what hangs on the context")
	})
}

// A countingContext counts the functions that are registered with it.
type countingContext struct {
	context.Context
	n *atomic.Int64
}

func (c countingContext) Done() <-chan struct{} { return make(chan struct{}) }

func (c countingContext) AfterFunc(func()) (stop func() bool) {
	c.n.Add(1)
	return func() bool { c.n.Add(-1); return true }
}
