package ws_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// An ending is one way in which a connection ends, and what Hooks.Closed reports of it.
type ending struct {
	name    string
	code    ws.StatusCode
	cause   func(error) bool
	failed  bool // Stats counts it as failed
	options func(*ws.Options)
	handler ws.HandlerFunc
	peer    func(p *peer)
	drains  bool // the server stops, once the handler runs
}

func noCause(err error) bool { return err == nil }

func causedBy(want error) func(error) bool {
	return func(err error) bool { return errors.Is(err, want) }
}

func closedByPeer(code ws.StatusCode) func(error) bool {
	return func(err error) bool {
		var closed *ws.CloseError
		return errors.As(err, &closed) && closed.Code == code
	}
}

func brokenByPeer(code ws.StatusCode) func(error) bool {
	return func(err error) bool {
		var broken *ws.ProtocolError
		return errors.As(err, &broken) && broken.Code == code
	}
}

// receiveOne waits for a message and releases it, or returns why none arrived.
func receiveOne(ctx context.Context, c *ws.Conn) error {
	m, err := c.Receive(ctx)
	if err == nil {
		m.Release()
	}
	return err
}

// receiveQuietly is a handler that receives once and does not return the error.
func receiveQuietly(ctx context.Context, c *ws.Conn) error {
	_ = receiveOne(ctx, c)
	return nil
}

func closeHere(_ context.Context, c *ws.Conn) error { return c.Close(4001, "enough") }

// flood sends until that fails.
func flood(ctx context.Context, c *ws.Conn) error {
	for payload := make([]byte, 10_000); ; {
		if err := c.SendBinary(ctx, payload); err != nil {
			return err
		}
	}
}

// untilCancelled waits for the end of ctx.
func untilCancelled(ctx context.Context) {
	var never loop.Event
	_ = never.Wait(ctx)
}

// answer waits for a Close frame and answers it.
func answer(want ws.StatusCode, with []byte) func(p *peer) {
	return func(p *peer) {
		p.wantCloseFrame(want)
		p.send(with)
		p.wantEnd()
	}
}

// sends sends bytes, and then reads until the end.
func sends(b []byte) func(p *peer) {
	return func(p *peer) {
		p.send(b)
		toTheEnd(p)
	}
}

// toTheEnd reads until the end, and hangs up.
func toTheEnd(p *peer) {
	_, _ = io.Copy(io.Discard, p.r)
	_ = p.Close()
}

func hangUp(p *peer) { _ = p.Conn.(*net.TCPConn).CloseWrite(); toTheEnd(p) }

func reset(p *peer) {
	_ = p.Conn.(*net.TCPConn).SetLinger(0)
	_ = p.Close()
}

var errOwn = errors.New("an error of the handler's own")

func endings() []ending {
	return []ending{
		{name: "closed here, echoed", code: 4001, cause: noCause, handler: closeHere, peer: answer(4001, closeFrame(4001, "enough"))},
		{name: "closed here, answered with another code", code: 4001, cause: noCause, handler: closeHere, peer: answer(4001, closeFrame(1000, ""))},
		{name: "closed here, answered without a code", code: 4001, cause: noCause, handler: closeHere, peer: answer(4001, fr(frame.Close, true, ""))},
		{name: "closed here, never answered", code: 4001, cause: noCause, handler: closeHere, peer: toTheEnd,
			options: func(o *ws.Options) { o.CloseTimeout = 20 * time.Millisecond }},
		{name: "closed here, the peer vanishes", code: 4001, cause: causedBy(ws.ErrAbnormalClosure), handler: closeHere,
			peer: func(p *peer) { p.wantCloseFrame(4001); hangUp(p) }},
		{name: "closed by another task, echoed to the handler", code: 1000, cause: noCause, peer: answer(1000, closeFrame(1000, "")),
			handler: func(ctx context.Context, c *ws.Conn) error {
				if _, err := loop.Go(ctx, "closes", func(context.Context) error { return c.Close(1000, "") }); err != nil {
					return err
				}
				return receiveOne(ctx, c)
			}},
		{name: "closed by another task, the handler sends", code: 1000, cause: noCause, failed: true, peer: answer(1000, closeFrame(1000, "")),
			handler: func(ctx context.Context, c *ws.Conn) error {
				closer, err := loop.Go(ctx, "closes", func(context.Context) error { return c.Close(1000, "") })
				if err != nil {
					return err
				}
				return errors.Join(closer.Wait(ctx), c.SendText(ctx, "late"))
			}},

		{name: "closed by the peer", code: 1000, cause: closedByPeer(1000), handler: receiveOne, peer: sends(closeFrame(1000, ""))},
		{name: "closed by the peer, the handler returns nil", code: 4002, cause: closedByPeer(4002), handler: receiveQuietly, peer: sends(closeFrame(4002, "bye"))},
		{name: "closed by the peer with a code of its own", code: 4002, cause: closedByPeer(4002), failed: true, handler: receiveOne, peer: sends(closeFrame(4002, "bye"))},
		{name: "closed by the peer without a code", code: ws.StatusNoStatus, cause: closedByPeer(ws.StatusNoStatus), handler: receiveOne, peer: sends(fr(frame.Close, true, ""))},

		{name: "the handler returns nil", code: 1000, cause: noCause, handler: func(context.Context, *ws.Conn) error { return nil }, peer: answer(1000, closeFrame(1000, ""))},
		{name: "the handler returns an error", code: 1011, cause: causedBy(errOwn), failed: true,
			handler: func(context.Context, *ws.Conn) error { return errOwn }, peer: answer(1011, closeFrame(1011, ""))},
		{name: "the handler panics", code: 1011, cause: func(err error) bool { return err != nil }, failed: true,
			handler: func(context.Context, *ws.Conn) error { panic("as it was told") }, peer: toTheEnd},

		{name: "the peer hangs up", code: 1006, cause: causedBy(ws.ErrAbnormalClosure), failed: true, handler: receiveOne, peer: hangUp},
		{name: "the peer hangs up, the handler returns nil", code: 1006, cause: causedBy(ws.ErrAbnormalClosure), handler: receiveQuietly, peer: hangUp},
		{name: "the peer resets", code: 1006, cause: causedBy(ws.ErrAbnormalClosure), failed: true, handler: receiveOne, peer: reset},
		{name: "the peer does not answer pings", code: 1006, cause: causedBy(ws.ErrPongTimeout), failed: true, handler: receiveOne, peer: toTheEnd,
			options: func(o *ws.Options) { o.PingInterval, o.PongTimeout = 20*time.Millisecond, 20*time.Millisecond }},

		{name: "the peer breaks the protocol", code: 1002, cause: brokenByPeer(1002), failed: true, handler: receiveOne, peer: sends(fr(frame.Continuation, true, ""))},
		{name: "the peer breaks the protocol, the handler returns nil", code: 1002, cause: brokenByPeer(1002), handler: receiveQuietly, peer: sends(fr(frame.Continuation, true, ""))},
		{name: "a message is too big", code: 1009, cause: brokenByPeer(1009), failed: true, handler: receiveOne, peer: sends(text("0123456789")),
			options: func(o *ws.Options) { o.MaxMessage = 9 }},

		{name: "CloseNow", code: 1006, cause: causedBy(net.ErrClosed), peer: sends(text("go")),
			handler: func(ctx context.Context, c *ws.Conn) error { return errors.Join(receiveOne(ctx, c), c.CloseNow()) }},

		{name: "the server stops", code: 1001, cause: noCause, drains: true, handler: receiveOne, peer: answer(1001, closeFrame(1001, ""))},
		{name: "the server stops, the handler sends", code: 1001, cause: noCause, drains: true, peer: answer(1001, closeFrame(1001, "")),
			handler: func(ctx context.Context, c *ws.Conn) error { untilCancelled(ctx); return c.SendText(ctx, "late") }},
		{name: "the server stops, a goroutine of the handler sends", code: 1001, cause: noCause, drains: true, peer: answer(1001, closeFrame(1001, "")),
			handler: func(ctx context.Context, c *ws.Conn) error {
				untilCancelled(ctx)
				sent := make(chan error, 1)
				go func() { sent <- c.SendText(context.Background(), "late") }()
				return <-sent // a call that is refused needs no turn of the loop
			}},
		{name: "the server stops, the handler has an error of its own", code: 1001, cause: causedBy(errOwn), failed: true, drains: true, peer: answer(1001, closeFrame(1001, "")),
			handler: func(ctx context.Context, c *ws.Conn) error { untilCancelled(ctx); return errOwn }},

		{name: "the peer is too slow for Disconnect", code: 1008, cause: causedBy(ws.ErrTooSlow), failed: true, handler: flood,
			options: func(o *ws.Options) { o.Policy, o.SendQueue = ws.PolicyDisconnect, 50_000 }},
		{name: "the peer is too slow for WriteTimeout", code: 1006, cause: causedBy(ws.ErrTooSlow), failed: true, handler: flood,
			options: func(o *ws.Options) { o.WriteTimeout, o.SendQueue = 50*time.Millisecond, 50_000 }},
	}
}

// Hooks.Closed gets the code of the first Close frame and the cause, for each way in which
// a connection can end.
func TestEndings(t *testing.T) {
	for _, c := range endings() {
		t.Run(c.name, func(t *testing.T) { backendtest.Each(t, c.test) })
	}
}

func (c *ending) test(t *testing.T, v backendtest.Variant) {
	srv := echoServer()
	if c.options != nil {
		c.options(&srv.Options)
	}
	closed := make(chan string, 2)
	srv.Hooks.Closed = func(_ *ws.Conn, code ws.StatusCode, cause error) {
		closed <- fmt.Sprintf("code %d, expected cause: %v (%v)", code, c.cause(cause), cause)
	}
	running := make(chan struct{})
	srv.Handler = func(ctx context.Context, conn *ws.Conn) error {
		close(running)
		return c.handler(ctx, conn)
	}
	addr, stop := serveUntil(t, backendtest.Group(t, v, 1), srv)
	p := connect(t, addr)
	<-running
	if c.drains {
		stop()
	}
	if c.peer != nil {
		c.peer(p)
	}
	require.Contains(t, <-closed, fmt.Sprintf("code %d, expected cause: true", c.code))
	require.Eventually(t, func() bool { return srv.Stats().Active == 0 }, patience, time.Millisecond)
	require.Empty(t, closed, "it is called once")
	require.Equal(t, c.failed, srv.Stats().Failed == 1, "failed: %d", srv.Stats().Failed)
}

// The same on the client's side, which has no handler whose error could be the cause.
func TestDialedEndings(t *testing.T) {
	for name, c := range map[string]struct {
		code  ws.StatusCode
		cause func(error) bool
		end   func(ctx context.Context, c *ws.Conn) error
		peer  func(p *peer)
	}{
		"closed here, echoed": {4001, noCause, closeHere, func(p *peer) { _, _ = io.CopyN(io.Discard, p.r, 2+4+2+6); p.send(raw("\x88\x02\x0f\xa1")) }},
		"closed by the peer":  {4002, closedByPeer(4002), receiveOne, func(p *peer) { p.send(raw("\x88\x02\x0f\xa2")) }},
		"the peer hangs up":   {1006, causedBy(ws.ErrAbnormalClosure), receiveOne, func(*peer) {}},
		"CloseNow":            {1006, causedBy(net.ErrClosed), func(_ context.Context, c *ws.Conn) error { return c.CloseNow() }, toTheEnd},
	} {
		t.Run(name, func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				addr, accepted := serverPeer(t, switching)
				closed := make(chan string, 2)
				opts := ws.DialOptions{Options: ws.Options{Hooks: ws.Hooks{Closed: func(_ *ws.Conn, code ws.StatusCode, cause error) {
					closed <- fmt.Sprintf("code %d, expected cause: %v (%v)", code, c.cause(cause), cause)
				}}}}
				go func() {
					p := <-accepted
					c.peer(p)
					p.Close()
				}()
				client(t, backendtest.Group(t, v, 1), "ws://"+addr, opts, func(ctx context.Context, conn *ws.Conn) error {
					_ = c.end(ctx, conn) // what it returns is tested elsewhere
					return nil
				})
				require.Contains(t, <-closed, fmt.Sprintf("code %d, expected cause: true", c.code))
				require.Empty(t, closed, "it is called once")
			})
		})
	}
}
