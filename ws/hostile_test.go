package ws_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// many is how many peers attack at once.
func many() int {
	if testing.Short() {
		return 150
	}
	return 1000
}

// requireEchoes checks that p is served while other connections misbehave.
func (p *peer) requireEchoes(n int) {
	p.t.Helper()
	for i := range n {
		msg := fmt.Sprintf("message %d", i)
		p.send(text(msg))
		p.want(frame.Text, msg)
	}
}

// traps.md, "What a WebSocket server meets", 1: many slow handshakes at once end after
// HandshakeTimeout, and another connection is served meanwhile.
func TestSlowHandshakes(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.HandshakeTimeout = 400 * time.Millisecond
		g := backendtest.Group(t, v, 1)
		addr := serve(t, g, srv)
		good := connect(t, addr)
		peers := make([]*peer, many())
		for i := range peers {
			peers[i] = dialTCP(t, addr)
			peers[i].send([]byte(request[:1+i%(len(request)-1)]))
		}
		good.requireEchoes(100)
		// Bytes that arrive in time do not extend it.
		dribbler := dialTCP(t, addr)
		dribbler.send([]byte(request[:len(request)-2] + "X: "))
		dribbling, stop := context.WithCancel(context.Background())
		defer stop()
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			for tick := time.NewTicker(srv.HandshakeTimeout / 10); ; {
				select {
				case <-tick.C:
					_, _ = dribbler.Write([]byte("x")) // it may be over
				case <-dribbling.Done():
					return
				}
			}
		}()
		require.Contains(t, dribbler.head(), " 408 ")
		stop()
		<-stopped
		toTheEnd(dribbler)
		for _, p := range peers {
			require.Contains(t, p.head(), " 408 ")
			_, err := io.Copy(io.Discard, p.r)
			require.NoError(t, err)
			p.Close()
		}
		good.requireEchoes(10)
		// Their tasks and buffers are gone. The good peer's task and the listener's are left.
		require.Eventually(t, func() bool {
			st, err := g.Stats()
			require.NoError(t, err)
			return st[0].Streams == 1 && st[0].Pool.Outstanding == 0
		}, patience, time.Millisecond)
	})
}

// traps.md 2: bad requests get a response that says why.
func TestBadRequests(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.Origins = []string{"https://*.example.com"}
		addr := serve(t, backendtest.Group(t, v, 1), srv)
		change := func(from, to string) string { return strings.Replace(request, from, to, 1) }
		for name, c := range map[string]struct{ request, want string }{
			"20 MB of headers":          {change("\r\n\r\n", "\r\n"+strings.Repeat("X: "+strings.Repeat("y", 997)+"\r\n", 20_000)), " 431 "},
			"a line without end":        {"GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 20<<20), " 431 "},
			"bare LF":                   {strings.ReplaceAll(request, "\r\n", "\n"), " 400 "},
			"a folded line":             {change("Upgrade: websocket", "Upgrade:\r\n websocket"), " 400 "},
			"no Host":                   {change("Host: localhost\r\n", ""), " 400 "},
			"two Hosts":                 {change("Host: localhost", "Host: localhost\r\nHost: other"), " 400 "},
			"two Content-Lengths":       {change("Host: localhost", "Host: localhost\r\nContent-Length: 0\r\nContent-Length: 1"), " 400 "},
			"Transfer-Encoding":         {change("Host: localhost", "Host: localhost\r\nTransfer-Encoding: chunked"), " 400 "},
			"a short key":               {change("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ=="), " 400 "},
			"another version":           {change("Version: 13", "Version: 8"), "Sec-Websocket-Version: 13"},
			"another version's status":  {change("Version: 13", "Version: 8"), " 426 "},
			"a POST":                    {change("GET", "POST"), " 405 "},
			"no upgrade":                {change("Upgrade: websocket\r\n", ""), " 426 "},
			"not HTTP":                  {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", " 400 "},
			"a foreign origin":          {change("Host: localhost", "Host: localhost\r\nOrigin: https://evil.example"), " 403 "},
			"an origin that is allowed": {change("Host: localhost", "Host: localhost\r\nOrigin: https://www.example.com"), " 101 "},
			"the same origin":           {change("Host: localhost", "Host: localhost\r\nOrigin: http://localhost"), " 101 "},
		} {
			t.Run(name, func(t *testing.T) {
				p := dialTCP(t, addr)
				go func() { _, _ = p.Write([]byte(c.request)) }() // it may not be taken to its end
				require.Contains(t, p.head(), c.want)
			})
		}
	})
}

// traps.md 2: headers and texts of the program cannot end a line of the response.
func TestResponseHeaders(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.Authorize = func(r *ws.Request) (http.Header, error) {
			switch r.URI {
			case "/bad":
				return http.Header{"X-A": {"b\r\nSet-Cookie: c"}}, nil
			case "/refused":
				return nil, &ws.Refusal{Status: 429, Text: "later", Header: http.Header{"Retry-After": {"7"}}}
			case "/secret":
				return nil, errors.New("the secret")
			}
			return http.Header{"X-A": {"b"}}, nil
		}
		srv.HandleHTTP = func(r *ws.Request) *ws.Response {
			if r.URI != "/page" {
				return nil
			}
			return &ws.Response{Status: 200, Header: http.Header{"Content-Type": {"text/html"}}, Body: []byte("<p>hello")}
		}
		addr := serve(t, backendtest.Group(t, v, 1), srv)
		ask := func(request string) string {
			p := dialTCP(t, addr)
			p.send([]byte(request))
			head := p.head()
			if strings.Contains(head, " 101 ") {
				return head
			}
			body, err := io.ReadAll(p.r)
			require.NoError(t, err)
			return head + string(body)
		}
		get := func(uri string) string { return ask(strings.Replace(request, "GET /", "GET "+uri, 1)) }
		require.Contains(t, get("/"), "X-A: b\r\n")
		bad := get("/bad")
		require.Contains(t, bad, " 500 ")
		require.NotContains(t, bad, "Set-Cookie")
		refused := get("/refused")
		require.Contains(t, refused, " 429 ")
		require.Contains(t, refused, "Retry-After: 7\r\n")
		require.Contains(t, refused, "later")
		secret := get("/secret")
		require.Contains(t, secret, " 403 ")
		require.NotContains(t, secret, "secret")
		page := ask("GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n")
		require.Contains(t, page, " 200 ")
		require.Contains(t, page, "<p>hello")

		bads := &ws.Server{Handler: echo, Subprotocols: []string{"a\r\nb"}}
		require.ErrorContains(t, bads.Serve(context.Background(), nil), "subprotocol")
	})
}

// traps.md 5: empty fragments without end cost their sender as much as the server, and do
// not delay other connections.
func TestEmptyFragmentsWithoutEnd(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		addr := serve(t, g, echoServer())
		p, good := connect(t, addr), connect(t, addr)
		p.send(fr(frame.Text, false, "a"))
		flood := bytes.Repeat(fr(frame.Continuation, false, ""), 10_000)
		for range 20 {
			p.send(flood)
			good.requireEchoes(5)
		}
		st, err := g.Stats()
		require.NoError(t, err)
		require.Less(t, st[0].Pool.Outstanding, 20, "the fragments are not kept")
		p.send(fr(frame.Continuation, true, "b"))
		p.want(frame.Text, "ab")
	})
}

// traps.md 6: pings at a peer that does not read. Pongs are bounded, and when it
// reads after all, the newest ping is answered.
func TestPingFlood(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		var conn atomic.Pointer[ws.Conn]
		srv := echoServer()
		srv.Hooks.Opened = func(c *ws.Conn) { conn.CompareAndSwap(nil, c) }
		g := backendtest.Group(t, v, 1)
		addr := serve(t, g, srv)
		p := connect(t, addr)
		good := connect(t, addr)
		var flood []byte
		for range 1000 {
			flood = append(flood, fr(frame.Ping, true, strings.Repeat("p", 125))...)
		}
		queued := func() (n int) {
			require.NoError(t, g.Loops()[0].Call(context.Background(), "look", func(context.Context) error {
				n = conn.Load().Queued()
				return nil
			}))
			return n
		}
		most := 0
		for range 200 {
			p.send(flood)
			most = max(most, queued())
		}
		require.Positive(t, most, "the flood was too small to fill the kernel's buffers")
		require.LessOrEqual(t, most, 5000)
		good.requireEchoes(10)
		p.send(fr(frame.Ping, true, "the last"))
		for {
			h, payload, err := p.read()
			require.NoError(t, err)
			require.Equal(t, frame.Pong, h.Op)
			if payload == "the last" {
				return
			}
		}
	})
}

// traps.md 12: the connection of a peer that never answers a Close frame is closed after
// CloseTimeout.
func TestCloseUnanswered(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.CloseTimeout = 100 * time.Millisecond
		closed := make(chan ws.StatusCode, 1)
		srv.Hooks.Closed = func(_ *ws.Conn, code ws.StatusCode, cause error) { closed <- code }
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			return c.Close(4001, "enough")
		}
		addr := serve(t, backendtest.Group(t, v, 1), srv)
		p := connect(t, addr)
		p.wantCloseFrame(4001)
		p.send(bytes.Repeat(text("I go on"), 1000)) // dropped
		_, err := io.Copy(io.Discard, p.r)
		if err != nil {
			require.ErrorContains(t, err, "reset")
		}
		require.Equal(t, ws.StatusCode(4001), <-closed)
	})
}

// traps.md 13: a peer that has vanished, and one that is only quiet.
func TestKeepAlive(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, receives := range []bool{true, false} {
			srv := echoServer()
			srv.PingInterval, srv.PongTimeout = 50*time.Millisecond, 2*time.Second
			var never loop.Event
			srv.Handler = func(ctx context.Context, c *ws.Conn) error {
				if !receives { // a handler that only sends
					return never.Wait(ctx)
				}
				_, err := c.Receive(ctx)
				return err
			}
			t.Run(fmt.Sprintf("quiet,receives=%v", receives), func(t *testing.T) {
				addr := serve(t, backendtest.Group(t, v, 1), srv)
				p := connect(t, addr)
				for range 2 {
					h, payload, err := p.read()
					require.NoError(t, err)
					require.Equal(t, frame.Ping, h.Op)
					p.send(fr(frame.Pong, true, payload))
				}
			})
		}
		t.Run("gone", func(t *testing.T) {
			srv := echoServer()
			srv.PingInterval, srv.PongTimeout = 30*time.Millisecond, 30*time.Millisecond
			ended := make(chan error, 2)
			srv.Handler = func(ctx context.Context, c *ws.Conn) error {
				_, err := c.Receive(ctx)
				ended <- err
				ended <- c.SendText(ctx, "x")
				return err
			}
			addr := serve(t, backendtest.Group(t, v, 1), srv)
			p := connect(t, addr)
			require.ErrorIs(t, <-ended, ws.ErrPongTimeout)
			require.ErrorIs(t, <-ended, ws.ErrPongTimeout)
			_, err := io.Copy(io.Discard, p.r)
			require.NoError(t, err)
		})
	})
}

// traps.md 14: many peers that never read what they are sent, and many that
// send half a frame, against a pool of a few dozen receive buffers.
func TestStalledPeers(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		g := backendtest.Group(t, v, 1)
		addr := serve(t, g, srv)
		good := connect(t, addr)
		message := text(strings.Repeat("x", 30_000))
		var stuck sync.WaitGroup
		for i := range many() {
			p := dialTCP(t, addr)
			_ = p.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			upgrade(p)
			if i%2 == 0 {
				p.send(message[:1+i*37%len(message)]) // half a frame
				continue
			}
			stuck.Go(func() { // until the server takes nothing more
				_ = p.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
				for {
					if _, err := p.Write(message); err != nil {
						return
					}
				}
			})
		}
		big := strings.Repeat("y", 100_000)
		for range 20 {
			good.requireEchoes(5)
			good.send(text(big))
			good.want(frame.Text, big)
		}
		stuck.Wait()
		good.requireEchoes(100)
		st, err := g.Stats()
		require.NoError(t, err)
		// Slabs are powers of two: up to twice the bytes in them.
		per := int64(2*(ws.DefaultSendQueue+256<<10) + 256<<10)
		require.Less(t, st[0].Pool.Mapped, int64(many())*per+16<<20, "what one peer can make the server hold is bounded")
	})
}

// traps.md 14: a peer that does not read, with each Policy.
func TestPolicies(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		payload := bytes.Repeat([]byte("x"), 10_000)
		for _, c := range []struct {
			name    string
			policy  ws.Policy
			timeout time.Duration
			want    error
		}{
			{"drop", ws.PolicyDrop, 0, ws.ErrDropped},
			{"disconnect", ws.PolicyDisconnect, 0, ws.ErrTooSlow},
			{"wait", ws.PolicyWait, 100 * time.Millisecond, ws.ErrTooSlow},
		} {
			for _, from := range []string{"the task", "a goroutine"} {
				t.Run(c.name+" from "+from, func(t *testing.T) {
					srv := echoServer()
					srv.Policy, srv.WriteTimeout, srv.SendQueue = c.policy, c.timeout, 50_000
					var dropped atomic.Int64
					srv.Hooks.MessageDropped = func(_ *ws.Conn, _ ws.Type, n int) { dropped.Add(int64(n)) }
					result := make(chan error, 1)
					srv.Handler = func(ctx context.Context, c *ws.Conn) error {
						flood := func() {
							var err error
							for err == nil {
								err = c.SendBinary(ctx, payload)
							}
							result <- err
						}
						if from == "the task" {
							flood()
						} else {
							go flood()
						}
						_, err := c.Receive(ctx)
						return err
					}
					addr := serve(t, backendtest.Group(t, v, 1), srv)
					p := connect(t, addr)
					require.ErrorIs(t, <-result, c.want)
					if c.policy == ws.PolicyDrop {
						require.Eventually(t, func() bool { return dropped.Load() == int64(len(payload)) }, patience, time.Millisecond)
						// The connection lives, and what was queued is whole.
						for range 3 {
							p.want(frame.Binary, string(payload))
						}
						return
					}
					_, _ = io.Copy(io.Discard, p.r) // it ends, in order or not
				})
			}
		}
	})
}

// traps.md 14: a Budget of many connections. Peers that do not read use it up, and one
// that reads is still served.
func TestBudget(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		budget := ws.NewBudget(1 << 20)
		srv.Budget, srv.Policy, srv.SendQueue = budget, ws.PolicyDrop, 10<<20
		payload := bytes.Repeat([]byte("x"), 20_000)
		var full sync.WaitGroup
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			if c.Request().URI == "/stalled" {
				for i := 0; ; i++ {
					if err := c.SendBinary(ctx, payload); errors.Is(err, ws.ErrDropped) {
						break
					}
					if i%10 == 0 {
						if err := loop.Yield(ctx); err != nil {
							return err
						}
					}
				}
				full.Done()
			}
			return echo(ctx, c)
		}
		addr := serve(t, backendtest.Group(t, v, 2), srv)
		var peers []*peer
		for range 10 {
			full.Add(1)
			peers = append(peers, connectTo(t, addr, "/stalled"))
		}
		full.Wait()
		require.GreaterOrEqual(t, budget.Used(), int64(1<<20))
		require.Less(t, budget.Used(), int64(3<<20)) // a message over for each, and what one turn adds
		connect(t, addr).requireEchoes(50)
		for _, p := range peers {
			p.Close()
		}
		require.Eventually(t, func() bool { return budget.Used() == 0 }, patience, time.Millisecond, "what was charged is given back")
	})
}

// Every way of sending charges the Budget at once.
func TestBudgetCounts(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, compression := range []*ws.Compression{nil, {Threshold: 1 << 10}} {
			srv := echoServer()
			srv.Budget, srv.Compression = ws.NewBudget(1<<20), compression
			ended := make(chan error, 1)
			srv.Handler = func(ctx context.Context, c *ws.Conn) error {
				ended <- func() error {
					long := strings.Repeat("long enough ", 1000)
					writer := func() error {
						w, err := c.NextWriter(ctx, ws.TypeText)
						if err != nil {
							return err
						}
						_, err = io.WriteString(w, long)
						return errors.Join(err, w.Close())
					}
					for name, send := range map[string]func() error{
						"short":          func() error { return c.SendText(ctx, "short") },
						"long":           func() error { return c.SendText(ctx, long) },
						"message":        func() error { return c.Send(ctx, ws.NewMessage(ws.TypeText, []byte(long))) },
						"prepared":       func() error { return c.SendPrepared(ctx, ws.Prepare(ws.TypeText, []byte(long))) },
						"prepared short": func() error { return c.SendPrepared(ctx, ws.Prepare(ws.TypeText, []byte("short"))) },
						"writer":         writer,
					} {
						before := c.Queued()
						if err := send(); err != nil {
							return fmt.Errorf("%s: %w", name, err)
						}
						if used := srv.Budget.Used(); used != int64(c.Queued()) || c.Queued() <= before {
							return fmt.Errorf("%s: %d bytes are queued, %d of them new, %d charged", name, c.Queued(), c.Queued()-before, used)
						}
					}
					return nil
				}()
				return nil
			}
			p := dialTCP(t, serve(t, backendtest.Group(t, v, 1), srv))
			p.send([]byte(strings.Replace(request, "\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", 1)))
			require.Contains(t, p.head(), " 101 ")
			require.NoError(t, <-ended)
			p.Close()
		}
	})
}

// traps.md 15: a frame that arrives byte by byte takes little memory.
func TestByteForByte(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		addr := serve(t, g, echoServer())
		const n = 3000
		msg := strings.Repeat("z", n)
		peers := make([]*peer, 10)
		for i := range peers {
			peers[i] = connect(t, addr)
		}
		before, err := g.Stats()
		require.NoError(t, err)
		f := text(msg)
		for i := range f {
			for _, p := range peers {
				p.send(f[i : i+1])
			}
			if i == len(f)-2 {
				require.Eventually(t, func() bool {
					st, err := g.Stats()
					require.NoError(t, err)
					return st[0].Pool.Outstanding-before[0].Pool.Outstanding <= 8*len(peers) &&
						st[0].Pool.Mapped-before[0].Pool.Mapped < 4<<20
				}, patience, time.Millisecond)
			}
		}
		for _, p := range peers {
			p.want(frame.Text, msg)
		}
	})
}

// A message that arrives in many small pieces, with a wait after each, becomes few
// segments: each new one is as large as the message so far. 257 bytes would be the worst
// length if such a segment were cut down to the bytes in it.
func TestPieceByPiece(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		p := connect(t, serve(t, g, echoServer()))
		before, err := g.Stats()
		require.NoError(t, err)
		const pieces = 200
		piece := strings.Repeat("p", 257)
		for i := range pieces {
			op := frame.Continuation
			if i == 0 {
				op = frame.Binary
			}
			p.send(fr(op, false, piece))
			p.send(fr(frame.Ping, true, "")) // its pong shows that the piece was received
			h, _, err := p.read()
			require.NoError(t, err)
			require.Equal(t, frame.Pong, h.Op)
		}
		held := 0
		for deadline := time.Now().Add(patience); ; {
			st, err := g.Stats()
			require.NoError(t, err)
			if held = st[0].Pool.Outstanding - before[0].Pool.Outstanding; held <= 12 || time.Now().After(deadline) {
				break
			}
		}
		require.LessOrEqual(t, held, 12, "segments of one message")
		p.send(fr(frame.Continuation, true, ""))
		p.want(frame.Binary, strings.Repeat(piece, pieces))
	})
}

// traps.md 17: a server that drains sends every peer a Close frame, and cuts the
// connections of those that do not answer.
func TestShutdown(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.DrainTime, srv.DrainSpread = 1500*time.Millisecond, 300*time.Millisecond
		srv.CloseTimeout = time.Minute
		g := backendtest.Group(t, v, 2)
		ls, err := g.Listen("127.0.0.1:0", loop.ListenOptions{})
		require.NoError(t, err)
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- g.Serve(ctx, ls, srv) }()
		const n = 20
		var peers []*peer
		for range n {
			p := connect(t, ls.Addr().String())
			p.requireEchoes(1)
			peers = append(peers, p)
		}
		stop()
		for i, p := range peers {
			if i%2 == 0 {
				p.wantClose(ws.StatusGoingAway)
			} else { // the peer is silent, and its connection is cut
				p.wantCloseFrame(ws.StatusGoingAway)
			}
		}
		require.NoError(t, <-done)
		for _, p := range peers {
			_, _ = io.Copy(io.Discard, p.r)
		}
		require.Equal(t, int64(n/2), srv.Stats().Killed)
		require.Zero(t, srv.Stats().Active)
	})
}
