package ws_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http/httptest"
	goruntime "runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// Calls of a goroutine on a connection reach a loop that has MaxPosts posts waiting.
func TestConnWhilePostsAreFull(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.CrowdedGroup(t, v, 1)
		full := func(f func() error) error { return backendtest.WhileCrowded(t, g.Loops()[0], f) }
		result := make(chan error, 1)
		addr := serve(t, g, &ws.Server{OnGoroutine: true, Handler: func(ctx context.Context, c *ws.Conn) error {
			var m *ws.Message
			err := full(func() (err error) { m, err = c.Receive(ctx); return err })
			if err == nil {
				err = full(func() error { return c.Send(ctx, m) })
			}
			var w *ws.Writer
			err = errors.Join(err,
				full(func() error { return c.SetReadDeadline(time.Time{}) }),
				full(func() (err error) { w, err = c.NextWriter(ctx, ws.TypeText); return err }))
			if err == nil {
				_, err = w.Write([]byte("written"))
				err = errors.Join(err, full(w.Close))
			}
			result <- errors.Join(err, full(func() error { return c.Close(4001, "") }))
			return nil
		}})
		p := connect(t, addr)
		p.send(text("hello"))
		p.want(frame.Text, "hello")
		p.want(frame.Text, "written")
		p.wantClose(4001)
		require.NoError(t, <-result)
	})
}

// Hooks.MessageDropped is called for messages of other threads that were dropped.
func TestDroppedWhilePostsAreFull(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.CrowdedGroup(t, v, 1)
		payload := bytes.Repeat([]byte("x"), 10_000)
		dropped, result := make(chan int, 2), make(chan error, 1)
		srv := &ws.Server{OnGoroutine: true, Options: ws.Options{Policy: ws.PolicyDrop, SendQueue: 50_000}}
		srv.Hooks.MessageDropped = func(_ *ws.Conn, _ ws.Type, n int) { dropped <- n }
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			var err error
			for err == nil {
				err = c.SendBinary(ctx, payload)
			}
			if !errors.Is(err, ws.ErrDropped) {
				result <- err
				return err
			}
			<-dropped
			release := backendtest.Crowd(t, c.Loop())
			err = c.SendBinary(ctx, payload[1:])
			release()
			result <- err
			return c.CloseNow()
		}
		p := connect(t, serve(t, g, srv))
		defer p.Close()
		require.ErrorIs(t, <-result, ws.ErrDropped)
		require.Equal(t, len(payload)-1, <-dropped)
	})
}

// The end of its context ends a Dial that waits for the server's response.
func TestDialEndsWhilePostsAreFull(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.CrowdedGroup(t, v, 1)
		ctx, cancel := context.WithCancel(context.Background())
		dialed := make(chan error, 1)
		require.NoError(t, g.Loops()[0].Go("dial", func(own context.Context) error {
			dctx, end := context.WithCancel(own)
			defer context.AfterFunc(ctx, end)()
			defer end()
			_, err := ws.Dial(dctx, "ws://"+ln.Addr().String(), ws.DialOptions{HandshakeTimeout: time.Hour})
			return err
		}, func(err error) { dialed <- err }))
		nc, err := ln.Accept()
		require.NoError(t, err)
		defer nc.Close()
		_, err = nc.Read(make([]byte, 1)) // the request
		require.NoError(t, err)
		require.NoError(t, backendtest.WhileCrowded(t, g.Loops()[0], func() error { cancel(); return nil }))
		require.ErrorIs(t, <-dialed, context.Canceled)
	})
}

// A request that net/http has read is upgraded by a loop whose posts are full.
func TestHTTPHandlerWhilePostsAreFull(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.CrowdedGroup(t, v, 1)
		s := httptest.NewServer(echoServer().HTTPHandler(g))
		defer s.Close()
		p := dialTCP(t, s.Listener.Addr().String())
		release := backendtest.Crowd(t, g.Loops()[0])
		p.send([]byte(request))
		require.Contains(t, p.head(), " 101 ")
		for range 1000 { // turns for net/http's goroutine to hand the connection over
			goruntime.Gosched()
		}
		release()
		p.send(text("hello"))
		p.want(frame.Text, "hello")
	})
}
