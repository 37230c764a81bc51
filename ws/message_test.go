package ws_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// Functions that make a message panic if the type is invalid.
func TestTypes(t *testing.T) {
	require.PanicsWithValue(t, "ws: NewMessage of a message of type ping, want TypeText or TypeBinary", func() { ws.NewMessage(ws.Type(frame.Ping), nil) })
	require.PanicsWithValue(t, "ws: Prepare of a message of type continuation, want TypeText or TypeBinary", func() { ws.Prepare(0, nil) })
}

// Messages that a handler forgets are reclaimed and reported; those that it keeps are not.
func TestReclaim(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		srv := echoServer()
		var logged bytes.Buffer
		srv.Logger = slog.New(slog.NewTextHandler(&logged, nil))
		srv.DebugMessages = true
		messages := make(chan *ws.Message, 3)
		ended := make(chan struct{})
		srv.Hooks.Closed = func(*ws.Conn, ws.StatusCode, error) { close(ended) }
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			for i := range 3 {
				m, err := c.Receive(ctx)
				if err != nil {
					return err
				}
				if i == 1 {
					m.Keep()
				}
				messages <- m
			}
			return nil
		}
		p := connect(t, serve(t, g, srv))
		p.send(bytes.Join([][]byte{text("forgotten"), text("kept"), text("released elsewhere")}, nil))
		forgotten, kept, released := <-messages, <-messages, <-messages
		released.Release()
		p.wantClose(ws.StatusNormalClosure)
		<-ended
		require.Contains(t, logged.String(), "messages=1")
		require.Contains(t, logged.String(), "message_test.go")
		require.Panics(t, func() { forgotten.Bytes() })
		require.Panics(t, func() { forgotten.Release() })
		require.Equal(t, "kept", string(kept.Bytes()))
		kept.Release()
		require.Panics(t, func() { kept.Release() })
	})
}

// A handler on a goroutine keeps messages while the loop receives others.
func TestKeepOnGoroutine(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		const messages = 200
		srv := echoServer()
		srv.OnGoroutine, srv.PingInterval = true, -1
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			var pings sync.WaitGroup
			defer pings.Wait()
			pings.Go(func() {
				for {
					if _, err := c.Ping(ctx); err != nil {
						return
					}
				}
			})
			for range messages {
				m, err := c.Receive(ctx)
				if err != nil {
					return err
				}
				m.Keep()
				pings.Go(m.Release) // another goroutine owns it from now on
			}
			return c.Close(ws.StatusNormalClosure, "")
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		sent := make(chan struct{})
		var lock sync.Mutex // of p's writing
		go func() {
			defer close(sent)
			for range messages {
				lock.Lock()
				_, err := p.Write(text("hello"))
				lock.Unlock()
				if err != nil {
					t.Error(err)
					return
				}
			}
		}()
		for {
			h, payload, err := p.read()
			require.NoError(t, err)
			if h.Op == frame.Close {
				break
			}
			require.Equal(t, frame.Ping, h.Op)
			lock.Lock()
			p.send(fr(frame.Pong, true, payload))
			lock.Unlock()
		}
		<-sent
		p.send(closeFrame(1000, ""))
		p.wantEnd()
	})
}

// Messages that a dialed connection has received stay valid when it is closed.
func TestMessageOutlivesDialedConn(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		addr := serve(t, g, echoServer())
		closes := map[string]func(*ws.Conn) error{
			"Close":    func(c *ws.Conn) error { return c.Close(ws.StatusNormalClosure, "") },
			"CloseNow": (*ws.Conn).CloseNow,
		}
		for name, end := range closes {
			for _, size := range []int{5, 100_000} {
				var elsewhere *ws.Message
				require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
					c, err := ws.Dial(ctx, "ws://"+addr, ws.DialOptions{})
					if err != nil {
						return err
					}
					var got []*ws.Message
					for i := range 3 {
						if err := c.SendBinary(ctx, bytes.Repeat([]byte{byte('a' + i)}, size)); err != nil {
							return err
						}
						m, err := c.Receive(ctx)
						if err != nil {
							return err
						}
						got = append(got, m)
					}
					if err := end(c); err != nil {
						return err
					}
					for i, m := range got {
						if !bytes.Equal(m.Bytes(), bytes.Repeat([]byte{byte('a' + i)}, size)) {
							return fmt.Errorf("after %s a message has changed", name)
						}
					}
					got[0].Release()
					got[1].Keep().Release()
					elsewhere = got[2]
					return nil
				}))
				require.Equal(t, size, len(elsewhere.Bytes()))
				elsewhere.Release()
			}
		}
	})
}

// A message that was sent from a goroutine must not be used again, even while it waits to
// be sent: using it panics.
func TestSentElsewhereIsGone(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		result := make(chan []any, 1)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			var panics []any
			again := func(f func()) {
				defer func() { panics = append(panics, recover()) }()
				f()
			}
			done := make(chan error, 1)
			go func() {
				m := ws.NewMessage(ws.TypeText, []byte("once"))
				if err := c.Send(ctx, m); err != nil {
					done <- err
					return
				}
				again(m.Release)
				again(func() { _ = c.Send(ctx, m) })
				again(func() { m.Bytes() })
				again(func() { m.Keep() })
				done <- nil
			}()
			err := <-done // the loop does nothing meanwhile, so nothing was sent yet
			result <- panics
			if err != nil {
				return err
			}
			return echo(ctx, c)
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		panics := <-result
		require.Len(t, panics, 4)
		for _, p := range panics {
			require.Contains(t, fmt.Sprint(p), "of a message that was sent or released")
		}
		p.want(frame.Text, "once")
		p.send(text("and no more"))
		p.want(frame.Text, "and no more")
	})
}

// A task of another loop may send a message on a connection of that loop, although the
// message's memory belongs to the loop that received it.
func TestSendOfAnotherLoopsMessage(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, kept := range []bool{true, false} {
			testSendAcross(t, v, kept)
		}
	})
}

func testSendAcross(t *testing.T, v backendtest.Variant, kept bool) {
	q := loop.NewQueue[*ws.Message](100)
	loops := make(chan *loop.Loop, 1)
	srv := echoServer()
	srv.Handler = func(ctx context.Context, c *ws.Conn) error {
		loops <- c.Loop()
		m, err := c.Receive(ctx)
		if err != nil {
			return err
		}
		if string(m.Bytes()) == "take" { // sends what another connection receives
			m.Release()
			for {
				m, err := q.Get(ctx)
				if err != nil {
					return err
				}
				if err := c.Send(ctx, m); err != nil {
					return err
				}
			}
		}
		m.Release()
		for {
			m, err := c.Receive(ctx)
			if err != nil {
				return err
			}
			if kept {
				m.Keep()
			}
			if err := q.Put(ctx, m); err != nil {
				return err
			}
		}
	}
	addr := serve(t, backendtest.Group(t, v, 2), srv)
	from := connect(t, addr)
	from.send(text("give"))
	home := <-loops
	var to *peer
	for {
		to = connect(t, addr)
		if <-loops != home {
			break
		}
		to.Close()
	}
	to.send(text("take"))
	for _, size := range []int{0, 10, 1000, 5000, 40_000, 200_000, 0, 10} {
		want := strings.Repeat("m", size)
		for range 20 {
			from.send(text(want))
			to.want(frame.Text, want)
		}
	}
}
