package ws_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// There is no handler whose return ends the time of what a dialed connection
// has received: closing it leaves that alone.
func TestMessageOutlivesDialedConn(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		g := backendtest.Group(t, v, 1)
		addr := serve(t, g, echoServer(e))
		closes := map[string]func(*ws.Conn) error{
			"Close":    func(c *ws.Conn) error { return c.Close(ws.StatusNormalClosure, "") },
			"CloseNow": (*ws.Conn).CloseNow,
		}
		for name, end := range closes {
			for _, size := range []int{5, 100_000} {
				var elsewhere *ws.Message
				require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
					c, err := ws.Dial(ctx, "ws://"+addr, ws.DialOptions{Options: ws.Options{Engine: e}})
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

// What there was of a message that was given up must not be taken for all of it.
func TestReaderSkipped(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		type result struct {
			p    string
			err  error
			many string
		}
		// Each gives up a Reader that has read the first bytes of its message.
		for name, skip := range map[string]func(ctx context.Context, c *ws.Conn) error{
			"Receive": func(ctx context.Context, c *ws.Conn) error {
				m, err := c.Receive(ctx)
				if err == nil {
					m.Release()
				}
				return err
			},
			"NextReader": func(ctx context.Context, c *ws.Conn) error {
				_, _, err := c.NextReader(ctx)
				return err
			},
			"TryReceive": func(_ context.Context, c *ws.Conn) error { // the rest is not all here
				m, err := c.TryReceive()
				if m != nil {
					return fmt.Errorf("a message of %d bytes", m.Len())
				}
				return err
			},
			"CloseNow": func(_ context.Context, c *ws.Conn) error { return c.CloseNow() },
		} {
			for _, all := range []bool{false, true} { // its bytes were read, and its end was not
				results := make(chan result, 1)
				srv := echoServer(e)
				srv.Handler = func(ctx context.Context, c *ws.Conn) error {
					_, r, err := c.NextReader(ctx)
					if err != nil {
						return err
					}
					n := 2
					if all {
						n = 6
					}
					p := make([]byte, n)
					if _, err := io.ReadFull(r, p); err != nil {
						return err
					}
					if err := skip(ctx, c); err != nil {
						results <- result{err: err}
						return err
					}
					if all && name == "TryReceive" { // nothing was lost, and it goes on
						err := c.SetReadDeadline(time.Unix(1, 0))
						if err != nil {
							return err
						}
					}
					rest, err := io.ReadAll(r)
					n2, werr := r.WriteTo(io.Discard)
					results <- result{string(p) + string(rest), err, fmt.Sprint(n2, werr)}
					return nil
				}
				p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
				if name == "TryReceive" {
					p.send(fr(frame.Text, false, "abcdef"))
				} else {
					p.send(append(text("abcdef"), text("next")...))
				}
				got := <-results
				switch {
				case name == "CloseNow":
					require.True(t, got.err != nil || got.p == "abcdef", name)
				case all && name == "TryReceive":
					require.Error(t, got.err, name) // no more comes: see below
				case all:
					require.NoError(t, got.err, name)
					require.Equal(t, "0 <nil>", got.many, name)
					require.Equal(t, "abcdef", got.p, name)
				default:
					require.ErrorIs(t, got.err, ws.ErrSkipped, name)
					require.Contains(t, got.many, "skipped", name)
					require.Equal(t, "ab", got.p, name)
				}
			}
		}
	})
}

// What a Writer was told to flush is there, also what the compressor would
// rather have kept.
func TestWriterFlush(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		for _, compression := range []*ws.Compression{nil, {}, {Threshold: -1}, {ServerNoContextTakeover: true}, {ServerMaxWindowBits: 10}} {
			parts := []string{"first", "second", strings.Repeat("long", 10_000), "", "last", strings.Repeat("r", 16<<10), ""}
			g := backendtest.Group(t, v, 2)
			next := make(chan struct{}, 1) // the peer has what was flushed
			srv := echoServer(e)
			srv.Compression = compression
			srv.OnGoroutine = true
			srv.Handler = func(ctx context.Context, c *ws.Conn) error {
				for range 3 {
					w, err := c.NextWriter(ctx, ws.Text)
					if err != nil {
						return err
					}
					for _, p := range parts {
						if _, err := io.WriteString(w, p); err != nil {
							return err
						}
						if err := w.Flush(); err != nil {
							return err
						}
						select {
						case <-next:
						case <-time.After(patience):
							return errors.New("what was flushed has not come")
						}
					}
					if err := w.Close(); err != nil {
						return err
					}
				}
				return nil
			}
			addr := serve(t, g, srv)
			client(t, g, "ws://"+addr, ws.DialOptions{Options: ws.Options{Engine: e, Compression: compression}}, func(ctx context.Context, c *ws.Conn) error {
				for range 3 {
					_, r, err := c.NextReader(ctx)
					if err != nil {
						return err
					}
					for _, want := range parts {
						p := make([]byte, len(want))
						if _, err := io.ReadFull(r, p); err != nil {
							return err
						}
						if string(p) != want {
							return fmt.Errorf("received %.20q…, want %.20q…", p, want)
						}
						next <- struct{}{}
					}
					if n, err := r.Read(make([]byte, 1)); err != io.EOF {
						return fmt.Errorf("%d bytes more, %v", n, err)
					}
				}
				return nil
			})
		}
	})
}

// A message that was sent from a goroutine is not the sender's any more, also
// while it waits to be sent: using it again is caught there and then.
func TestSentElsewhereIsGone(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		srv := echoServer(e)
		result := make(chan []any, 1)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			var panics []any
			again := func(f func()) {
				defer func() { panics = append(panics, recover()) }()
				f()
			}
			done := make(chan error, 1)
			go func() {
				m := ws.NewMessage(ws.Text, []byte("once"))
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
			err := <-done // the loop stands still meanwhile: nothing was sent yet
			result <- panics
			if err != nil {
				return err
			}
			return ws.Echo(ctx, c)
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

// A compressed message that a Receive had begun and that a Reader goes on with
// may be of any length.
func TestReaderOfBegunMessageIsUnbounded(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		begun := make(chan struct{})
		result := make(chan error, 1)
		const size = 1 << 20
		srv := echoServer(e)
		srv.Compression = &ws.Compression{}
		srv.MaxMessage = size / 2
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			m, err := c.Receive(ctx)
			if err != nil {
				return err
			}
			m.Release() // what follows it is here too
			if m, err := c.TryReceive(); m != nil || err != nil {
				return errors.Join(errors.New("half a message is one"), err)
			}
			close(begun)
			_, r, err := c.NextReader(ctx)
			if err != nil {
				result <- err
				return err
			}
			n, err := io.Copy(io.Discard, r)
			if err == nil && n != size {
				err = fmt.Errorf("%d bytes", n)
			}
			result <- err
			return err
		}
		addr := serve(t, backendtest.Group(t, v, 1), srv)
		p := dialTCP(t, addr)
		p.send([]byte(strings.Replace(request, "\r\n\r\n", "\r\n"+deflateOffer+"\r\n", 1)))
		require.Contains(t, p.head(), "permessage-deflate")
		payload := deflatedPayload(strings.Repeat("\x00", size))
		p.send(append(text("first"), rsv1(fr(frame.Binary, false, payload[:100]))...))
		<-begun
		p.send(fr(frame.Continuation, true, payload[100:]))
		require.NoError(t, <-result)
	})
}

// A hook that panics for a message of another thread stops no other message.
func TestPanicInMessageOut(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		const n = 5
		var panics atomic.Int32
		srv := echoServer(e)
		srv.Hooks.MessageOut = func(*ws.Conn, ws.Type, int) {
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
				done <- c.SendPrepared(ctx, ws.Prepare(ws.Text, []byte("last")))
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
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		for name, end := range ends {
			for _, budget := range []bool{true, false} {
				for _, here := range []bool{true, false} { // the sender is a task of the loop
					t.Run(fmt.Sprintf("%s/budget=%v/here=%v", name, budget, here), func(t *testing.T) {
						srv := echoServer(e)
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
										if err := runtime.Yield(ctx); err != nil {
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
							if oerr := runtime.Offload(ctx, func() { <-failed }); oerr != nil {
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
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		srv := echoServer(e)
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
		ls, err := g.Listen("127.0.0.1:0", runtime.ServeOptions{})
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
