package ws_test

import (
	"context"
	"errors"
	"fmt"
	"net"
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

// Many goroutines and tasks of other loops send on one connection: the messages of each
// arrive in order, and none is lost.
func TestSendFromAnywhere(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		const senders, each = 8, 200
		g := backendtest.Group(t, v, 2)
		srv := echoServer()
		srv.SendQueue = 10_000 // small, so that they have to wait
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			var wg sync.WaitGroup
			send := func(ctx context.Context, id int) error {
				for i := range each {
					if err := c.SendText(ctx, fmt.Sprintf("%d %d %s", id, i, strings.Repeat("x", i))); err != nil {
						return err
					}
				}
				return nil
			}
			errs := make([]error, senders)
			for id := range senders {
				wg.Go(func() {
					if id%2 == 0 {
						errs[id] = send(context.Background(), id)
						return
					}
					errs[id] = g.Loop().Call(context.Background(), "sender", func(ctx context.Context) error { return send(ctx, id) })
				})
			}
			if err := loop.Offload(ctx, wg.Wait); err != nil {
				return err
			}
			return errors.Join(errs...)
		}
		p := connect(t, serve(t, g, srv))
		next := make([]int, senders)
		for range senders * each {
			h, payload, err := p.read()
			require.NoError(t, err)
			require.Equal(t, frame.Text, h.Op)
			var id, i int
			_, err = fmt.Sscanf(payload, "%d %d", &id, &i)
			require.NoError(t, err)
			require.Equal(t, next[id], i)
			next[id]++
		}
		p.wantClose(ws.StatusNormalClosure)
	})
}

// A function given to Post may send while there is room. Without room its Send fails: if it
// waited, it would block the loop.
func TestSendFromPostedFunction(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.SendQueue = 10_000
		srv.WriteTimeout = -1
		conns := make(chan *ws.Conn, 1)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			conns <- c
			return receiveOne(ctx, c)
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		defer p.Close()
		c := <-conns
		sent := make(chan error, 1)
		require.NoError(t, c.Loop().Post(func() {
			for {
				if err := c.SendBinary(context.Background(), make([]byte, 1000)); err != nil {
					sent <- err
					return
				}
			}
		}))
		require.ErrorIs(t, <-sent, loop.ErrOffLoop)
	})
}

// A call that waits for room fails when the connection ends.
func TestSendWaitsNoLongerThanConn(t *testing.T) {
	ends := map[string]func(p *peer){
		"a Close frame":  func(p *peer) { p.send(closeFrame(1000, "")) },
		"a broken frame": func(p *peer) { p.send(fr(frame.Continuation, true, "")) },
		"the end of it":  func(p *peer) { require.NoError(p.t, p.Conn.(*net.TCPConn).CloseWrite()) },
	}
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for name, end := range ends {
			for _, budget := range []bool{true, false} {
				for _, here := range []bool{true, false} { // the sender is a task of the loop
					t.Run(fmt.Sprintf("%s/budget=%v/here=%v", name, budget, here), func(t *testing.T) {
						srv := echoServer()
						srv.WriteTimeout, srv.SendQueue = -1, 64<<10
						if budget {
							srv.SendQueue, srv.Budget = 10<<20, ws.NewBudget(64<<10)
						}
						var sent atomic.Int64
						payload := make([]byte, 20_000)
						result, failed := make(chan error, 1), make(chan struct{})
						srv.Handler = func(ctx context.Context, c *ws.Conn) error {
							send := func(ctx context.Context) error {
								for {
									if err := c.SendBinary(ctx, payload); err != nil {
										return err
									}
									if here && sent.Add(1)%10 == 0 {
										if err := loop.Yield(ctx); err != nil {
											return err
										}
									} else if !here {
										sent.Add(1)
									}
								}
							}
							go func() {
								if here {
									result <- c.Loop().Call(context.Background(), "sender", send)
								} else {
									result <- send(context.Background())
								}
								close(failed)
							}()
							_, err := c.Receive(ctx)
							if oerr := loop.Offload(ctx, func() { <-failed }); oerr != nil {
								return oerr
							}
							return err
						}
						p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
						settled(t, &sent)
						end(p)
						select {
						case err := <-result:
							require.Error(t, err)
						case <-time.After(patience):
							t.Error("the sender still waits")
						}
						p.Close()
					})
				}
			}
		}
	})
}

// On a connection that has ended a Send of another thread fails, even if it is the first.
func TestSendAfterTheEnd(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		ended := make(chan *ws.Conn, 1)
		srv.Hooks.Closed = func(c *ws.Conn, _ ws.StatusCode, _ error) { ended <- c }
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.send(closeFrame(1000, ""))
		p.wantCloseFrame(ws.StatusNormalClosure)
		c := <-ended
		require.ErrorIs(t, c.SendText(context.Background(), "x"), net.ErrClosed)
		require.ErrorIs(t, c.SendPrepared(context.Background(), ws.Prepare(ws.TypeText, nil)), net.ErrClosed)
	})
}

// A message that waits to be sent on another connection is not reclaimed when the handler
// that received it returns.
func TestSendOutlivesReceiver(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, compression := range []*ws.Compression{nil, {Threshold: 100_000}} {
			const (
				size   = 200_000 // of several turns, when it is compressed
				filler = 20_000
			)
			payload := strings.Repeat("0123456789", size/10)
			var slow *ws.Conn
			there, sent := make(chan struct{}), make(chan error, 1)
			forwarder, keeper := echoServer(), echoServer()
			keeper.SendQueue, keeper.Compression = 10_000, compression
			filled := 0
			keeper.Handler = func(ctx context.Context, c *ws.Conn) error {
				slow = c
				for ; ; filled++ { // until no message has had room for a while
					short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
					err := c.SendBinary(short, make([]byte, filler))
					cancel()
					if errors.Is(err, context.DeadlineExceeded) {
						break
					}
					if err != nil {
						return err
					}
				}
				close(there)
				_, err := c.Receive(ctx)
				return err
			}
			forwarder.Handler = func(ctx context.Context, c *ws.Conn) error {
				m, err := c.Receive(ctx)
				if err != nil {
					return err
				}
				err = c.Loop().Go("forward", func(ctx context.Context) error {
					sent <- slow.Send(ctx, m)
					return nil
				}, nil)
				for range 3 {
					err = errors.Join(err, loop.Yield(ctx)) // the other task calls Send
				}
				return err
			}
			g := backendtest.Group(t, v, 1)
			to, from := serve(t, g, keeper), serve(t, g, forwarder)
			var q *peer
			if compression == nil {
				q = connect(t, to)
			} else {
				q = connectPacked(t, to, "permessage-deflate")
			}
			<-there
			p := connect(t, from)
			p.send(fr(frame.Text, true, payload))
			p.wantClose(ws.StatusNormalClosure)
			require.Eventually(t, func() bool { return forwarder.Stats().Active == 0 }, patience, time.Millisecond, "the receiver is gone")
			select {
			case err := <-sent:
				require.Fail(t, "it did not wait", "%v", err)
			default:
			}
			for range filled {
				q.want(frame.Binary, strings.Repeat("\x00", filler))
			}
			if compression == nil {
				q.want(frame.Text, payload)
			} else {
				var packed strings.Builder
				for fin := false; !fin; {
					h, part, err := q.read()
					require.NoError(t, err)
					packed.WriteString(part)
					fin = h.Fin
				}
				require.True(t, inflate(t, packed.String()) == payload)
			}
			require.NoError(t, <-sent)
		}
	})
}

// If a loop ends, a Send on a connection that no task serves fails, and the connection's
// bytes are not left in a shared Budget.
func TestLoopEndTellsSenders(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		addr, accepted := serverPeer(t, switching)
		budget := ws.NewBudget(1 << 30)
		closed := make(chan error, 2)
		opts := ws.DialOptions{Options: ws.Options{Budget: budget, SendQueue: 100_000, WriteTimeout: -1,
			Hooks: ws.Hooks{Closed: func(_ *ws.Conn, _ ws.StatusCode, err error) { closed <- err }}}}
		var c *ws.Conn
		require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) (err error) {
			c, err = ws.Dial(ctx, "ws://"+addr, opts)
			return err
		}))
		p := <-accepted // the peer reads nothing
		defer p.Close()
		var sent atomic.Int64
		failed := make(chan error, 1)
		go func() {
			for {
				if err := c.SendBinary(context.Background(), make([]byte, 20_000)); err != nil {
					failed <- err
					return
				}
				sent.Add(1)
			}
		}()
		settled(t, &sent)
		require.Positive(t, budget.Used())
		require.NoError(t, g.Stop())
		select {
		case err := <-failed:
			require.ErrorIs(t, err, net.ErrClosed)
		case <-time.After(patience):
			require.Fail(t, "it still waits")
		}
		require.ErrorIs(t, <-closed, net.ErrClosed)
		require.Empty(t, closed)
		require.Zero(t, budget.Used())
	})
}

// A hook that panics for a message of another thread does not stop other messages.
func TestPanicInMessageSent(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		const n = 5
		var panics atomic.Int32
		srv := echoServer()
		srv.Hooks.MessageSent = func(*ws.Conn, ws.Type, int) {
			panics.Add(1)
			panic("as it was told")
		}
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			done := make(chan error, 1)
			go func() {
				for i := range n {
					if err := c.SendText(ctx, fmt.Sprint(i)); err != nil {
						done <- err
						return
					}
				}
				done <- c.SendPrepared(ctx, ws.Prepare(ws.TypeText, []byte("last")))
			}()
			if err := <-done; err != nil { // all are queued when the loop continues
				return err
			}
			_, err := c.Receive(ctx)
			return err
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		for i := range n {
			p.want(frame.Text, fmt.Sprint(i))
		}
		p.want(frame.Text, "last")
		p.send(closeFrame(1000, ""))
		p.wantCloseFrame(ws.StatusNormalClosure)
		require.Equal(t, int32(n+1), panics.Load())
	})
}

// Many calls wait to send to a peer that does not read: each fails as the Policy says.
func TestManyAreDropped(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, policy := range []ws.Policy{ws.PolicyDrop, ws.PolicyWait} {
			t.Run(fmt.Sprint(policy), func(t *testing.T) {
				srv := echoServer()
				srv.Policy, srv.SendQueue, srv.PingInterval, srv.WriteTimeout = policy, 64<<10, -1, 100*time.Millisecond
				conns := make(chan *ws.Conn, 1)
				srv.Handler = func(ctx context.Context, c *ws.Conn) error {
					conns <- c
					return receiveOne(ctx, c)
				}
				p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
				require.NoError(t, p.Conn.(*net.TCPConn).SetReadBuffer(4<<10))
				c := <-conns
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				var wg sync.WaitGroup
				errs := make(chan error, 64)
				for i := range 64 {
					wg.Go(func() {
						own := ctx
						if policy == ws.PolicyWait && i > 0 { // the others have failed when WriteTimeout has passed
							var cancel context.CancelFunc
							own, cancel = context.WithTimeout(ctx, 80*time.Millisecond)
							defer cancel()
						}
						for {
							if err := c.SendBinary(own, make([]byte, 20_000)); err != nil {
								if own == ctx {
									errs <- err
								}
								return
							}
						}
					})
				}
				wg.Wait()
				close(errs)
				for err := range errs {
					if policy == ws.PolicyDrop {
						require.ErrorIs(t, err, ws.ErrDropped)
					} else {
						require.ErrorIs(t, err, ws.ErrTooSlow)
					}
				}
				reset(p)
			})
		}
	})
}

// The queue of other threads bounds the number of messages too: empty ones fill it.
func TestEmptyMessagesFillTheQueue(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		const most = 10_000
		srv := echoServer()
		srv.SendQueue = 1000
		type outcome struct {
			sent int
			err  error
		}
		result := make(chan outcome, 1)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			done := make(chan struct{})
			go func() {
				defer close(done)
				over, cancel := context.WithCancel(context.Background())
				cancel() // so that a Send without room fails
				var o outcome
				for ; o.sent < most && o.err == nil; o.sent++ {
					o.err = c.SendText(over, "")
				}
				result <- o
			}()
			<-done // the loop does nothing meanwhile
			return receiveOne(ctx, c)
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		o := <-result
		require.ErrorIs(t, o.err, context.Canceled)
		for range o.sent - 1 {
			p.want(frame.Text, "")
		}
		p.send(closeFrame(1000, ""))
		p.wantCloseFrame(ws.StatusNormalClosure)
	})
}

// settled waits until n has not changed for a while, and so the goroutine that counts
// probably waits. No result depends on it.
func settled(t *testing.T, n *atomic.Int64) {
	last := int64(-1)
	require.Eventually(t, func() bool {
		before := last
		last = n.Load()
		return last > 0 && last == before
	}, patience, 30*time.Millisecond)
}

// goroutine returns a function that calls f on a goroutine, while the task waits.
func goroutine(f func(ctx context.Context, c *ws.Conn) error) func(ctx context.Context, c *ws.Conn) error {
	return func(ctx context.Context, c *ws.Conn) (err error) {
		oerr := loop.Offload(ctx, func() { err = f(context.Background(), c) })
		return errors.Join(oerr, err)
	}
}
