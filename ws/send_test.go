package ws_test

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
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

// A hook that panics for a message of another thread stops no other message.
func TestPanicInMessageOut(t *testing.T) {
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
			if err := <-done; err != nil { // all are queued when the loop goes on
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

// settled waits until n has been the same for a while: whoever counts waits,
// mostly. Nothing depends on it.
func settled(t *testing.T, n *atomic.Int64) {
	last := int64(-1)
	require.Eventually(t, func() bool {
		before := last
		last = n.Load()
		return last > 0 && last == before
	}, patience, 30*time.Millisecond)
}

// Whoever waits for room is told when the connection has ended.
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

// What Send has accepted from other threads goes out ahead of the Close frame of
// a server that stops, also if the peer has let it wait.
func TestDrainSendsWhatWasAccepted(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.SendQueue = 200_000
		var accepted atomic.Int64
		failed := make(chan struct{})
		payload := strings.Repeat("x", 20_000)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			go func() {
				defer close(failed)
				for c.SendText(context.Background(), payload) == nil {
					accepted.Add(1)
				}
			}()
			_, err := c.Receive(ctx)
			return err
		}
		g := backendtest.Group(t, v, 1)
		ls, err := g.Listen("127.0.0.1:0", loop.ServeOptions{})
		require.NoError(t, err)
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- g.Serve(ctx, ls, srv) }()
		p := connect(t, ls.Addr().String())
		settled(t, &accepted) // the kernel and the queues are full
		stop()
		<-failed
		for range accepted.Load() {
			p.want(frame.Text, payload)
		}
		p.wantClose(ws.StatusGoingAway)
		require.NoError(t, <-done)
	})
}

// A message that a Writer has begun is ended before a server that stops says so,
// and what other threads have sent meanwhile is between the two.
func TestDrainWaitsForWriter(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, how := range []string{"ends it", "leaves it", "is killed"} {
			srv := echoServer()
			if how == "is killed" {
				srv.DrainTime = 50 * time.Millisecond
			}
			ready := make(chan struct{})
			var never loop.Event
			srv.Handler = func(ctx context.Context, c *ws.Conn) error {
				w, err := c.NextWriter(ctx, ws.TypeText)
				if err != nil {
					return err
				}
				_, _ = w.Write([]byte("first, "))
				if err := w.Flush(); err != nil {
					return err
				}
				err = loop.Offload(ctx, func() {
					if err := c.SendText(context.Background(), "second"); err != nil {
						t.Error(err)
					}
				})
				if err != nil {
					return err
				}
				close(ready)
				if how == "is killed" {
					return never.Wait(context.Background())
				}
				_ = never.Wait(ctx) // until the drain
				if how == "leaves it" {
					return nil
				}
				_, _ = w.Write([]byte("to its end"))
				return w.Close()
			}
			g := backendtest.Group(t, v, 1)
			ls, err := g.Listen("127.0.0.1:0", loop.ServeOptions{})
			require.NoError(t, err)
			ctx, stop := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- g.Serve(ctx, ls, srv) }()
			p := connect(t, ls.Addr().String())
			<-ready
			stop()
			h, first, err := p.read()
			require.NoError(t, err)
			require.False(t, h.Fin)
			require.Equal(t, "first, ", first)
			if how == "ends it" {
				p.want(frame.Continuation, "to its end")
				p.want(frame.Text, "second")
			} // else nothing may stand in the middle of that message
			h, _, err = p.read()
			require.NoError(t, err)
			require.Equal(t, frame.Close, h.Op, how)
			if how != "is killed" { // else it ends by force
				p.send(closeFrame(1001, ""))
				p.wantEnd()
			}
			require.NoError(t, <-done)
		}
	})
}

// Whoever waits for a Writer's message to end does not wait for the peer: no
// WriteTimeout is over, however long it takes. It takes as long as two others
// need, one after the other, to be given up for that very limit.
func TestWriterLongerThanWriteTimeout(t *testing.T) {
	waits := map[string]func(ctx context.Context, c *ws.Conn) error{
		"a task's Send":      func(ctx context.Context, c *ws.Conn) error { return c.SendText(ctx, "note") },
		"a goroutine's Send": goroutine(func(ctx context.Context, c *ws.Conn) error { return c.SendText(ctx, "note") }),
		"a goroutine's second": goroutine(func(ctx context.Context, c *ws.Conn) error {
			return errors.Join(c.SendText(ctx, strings.Repeat("x", 2000)), c.SendText(ctx, "note"))
		}),
		"a goroutine's Writer": goroutine(func(ctx context.Context, c *ws.Conn) error {
			w, err := c.NextWriter(ctx, ws.TypeText)
			if err != nil {
				return err
			}
			_, err = w.Write([]byte("note"))
			return errors.Join(err, w.Close())
		}),
	}
	block := make([]byte, 64<<10)
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		for name, wait := range waits {
			srv := echoServer()
			srv.WriteTimeout, srv.SendQueue = 30*time.Millisecond, 1000
			var later loop.Event
			gaveUp := make(chan error, 1)
			srv.Handler = func(ctx context.Context, c *ws.Conn) error {
				if c.Request().URI == "/stalled" {
					for {
						if err := c.SendBinary(ctx, block); err != nil {
							gaveUp <- err
							return err
						}
					}
				}
				w, err := c.NextWriter(ctx, ws.TypeBinary)
				if err != nil {
					return err
				}
				other, err := loop.Go(ctx, "other", func(ctx context.Context) error { return wait(ctx, c) })
				if err != nil {
					return err
				}
				_, _ = w.Write([]byte("begun, "))
				if err := errors.Join(w.Flush(), later.Wait(ctx)); err != nil {
					return err
				}
				_, _ = w.Write([]byte("ended"))
				return errors.Join(w.Close(), other.Wait(ctx))
			}
			addr := serve(t, g, srv)
			p := connect(t, addr)
			h, part, err := p.read()
			require.NoError(t, err, name)
			require.False(t, h.Fin, name)
			require.Equal(t, "begun, ", part, name)
			for range 2 {
				connectTo(t, addr, "/stalled")
				require.ErrorIs(t, <-gaveUp, ws.ErrTooSlow, name)
			}
			later.Set()
			p.want(frame.Continuation, "ended")
			for note := ""; note != "note"; {
				h, part, err := p.read()
				require.NoError(t, err, name)
				require.Equal(t, frame.Text, h.Op, name)
				note = part
			}
			p.wantClose(ws.StatusNormalClosure)
		}
	})
}

// goroutine has f called on one, while the task waits.
func goroutine(f func(ctx context.Context, c *ws.Conn) error) func(ctx context.Context, c *ws.Conn) error {
	return func(ctx context.Context, c *ws.Conn) (err error) {
		oerr := loop.Offload(ctx, func() { err = f(context.Background(), c) })
		return errors.Join(oerr, err)
	}
}

// connectPacked is connect with an offer to compress, which is accepted.
func connectPacked(t *testing.T, addr, offer string) *peer {
	p := dialTCP(t, addr)
	p.send([]byte(strings.TrimSuffix(request, "\r\n") + "Sec-WebSocket-Extensions: " + offer + "\r\n\r\n"))
	require.Contains(t, p.head(), offer)
	return p
}

// inflate returns what a compressed message's payload says: RFC 7692, section
// 7.2.2, and a last block, which flate wants.
func inflate(t *testing.T, packed string) string {
	p, err := io.ReadAll(flate.NewReader(strings.NewReader(packed + "\x00\x00\xff\xff\x01\x00\x00\xff\xff")))
	require.NoError(t, err)
	return string(p)
}

// A broadcast is compressed with the window that its peer has agreed to: what
// repeats further back than that is not found, and what does not is.
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

// On a connection that has ended no call from another thread is accepted, also if
// it is the first.
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

// A message that waits to be sent on another connection is not its receiver's any
// more, who may be gone before there is room.
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
				for ; ; filled++ { // until nothing has had room for a while
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
					err = errors.Join(err, loop.Yield(ctx)) // Send is called
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

// A loop that ends tells who sends on a connection that no task serves, and its
// bytes are not left in a Budget that others share.
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
		p := <-accepted // and reads nothing
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

// Compressing a long message does not keep the loop's other tasks from their
// turns, whoever sends it, and its neighbours stay in order.
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

// Many goroutines and tasks of other loops send on one connection: each one's
// messages arrive in their order, and none is lost.
func TestSendFromAnywhere(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		const senders, each = 8, 200
		g := backendtest.Group(t, v, 2)
		srv := echoServer()
		srv.SendQueue = 10_000 // so that they have to wait
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

// A broadcast, to plain and to compressed connections, among other messages.
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
