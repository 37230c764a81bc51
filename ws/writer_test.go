package ws_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// After Flush the peer can read all that was written, even what the compressor held.
func TestWriterFlush(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, compression := range []*ws.Compression{nil, {}, {Threshold: -1}, {ServerNoContextTakeover: true}, {ServerMaxWindowBits: 10}} {
			parts := []string{"first", "second", strings.Repeat("long", 10_000), "", "last", strings.Repeat("r", 16<<10), ""}
			g := backendtest.Group(t, v, 2)
			next := make(chan struct{}, 1) // the peer has read what was flushed
			srv := echoServer()
			srv.Compression = compression
			srv.OnGoroutine = true
			srv.Handler = func(ctx context.Context, c *ws.Conn) error {
				for range 3 {
					w, err := c.NextWriter(ctx, ws.TypeText)
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
			client(t, g, "ws://"+addr, ws.DialOptions{Options: ws.Options{Compression: compression}}, func(ctx context.Context, c *ws.Conn) error {
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

// A Writer whose context has ended does what it can do without waiting, on the loop and on
// a goroutine, and other messages follow it.
func TestWriterAfterContext(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, flush := range []bool{false, true} {
			for _, elsewhere := range []bool{false, true} {
				t.Run(fmt.Sprintf("flush=%v,elsewhere=%v", flush, elsewhere), func(t *testing.T) {
					write := func(ctx context.Context, c *ws.Conn) error {
						wctx, cancel := context.WithCancel(ctx)
						defer cancel()
						w, err := c.NextWriter(wctx, ws.TypeText)
						if err != nil {
							return err
						}
						_, err = w.Write([]byte("first"))
						if flush {
							err = errors.Join(err, w.Flush())
						}
						cancel()
						return errors.Join(err, w.Close())
					}
					if elsewhere {
						write = goroutine(write)
					}
					srv := echoServer()
					srv.Handler = func(ctx context.Context, c *ws.Conn) error {
						if err := write(ctx, c); err != nil {
							return err
						}
						return c.SendText(ctx, "second")
					}
					g := backendtest.Group(t, v, 2)
					addr := serve(t, g, srv)
					client(t, g, "ws://"+addr, ws.DialOptions{}, func(ctx context.Context, c *ws.Conn) error {
						return errors.Join(receiveText(ctx, c, "first"), receiveText(ctx, c, "second"))
					})
				})
			}
		}
	})
}

// Messages that other goroutines send while a Writer is open follow its message. If a
// handler leaves a Writer open that has fed the compressor or sent half a message, they
// must not be sent in the middle of it.
func TestWriterLeftOpen(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for i := range 4 {
			var compression *ws.Compression
			if i&1 != 0 {
				compression = &ws.Compression{Threshold: -1}
			}
			closes := i&2 != 0 // then the message behind the Writer follows
			g := backendtest.Group(t, v, 1)
			srv := echoServer()
			srv.Compression = compression
			srv.Handler = func(ctx context.Context, c *ws.Conn) error {
				w, err := c.NextWriter(ctx, ws.TypeText)
				if err != nil {
					return err
				}
				if _, err := w.Write([]byte(strings.Repeat("stale", 4000))); err != nil { // more than a fragment
					return err
				}
				queued := make(chan error, 1)
				go func() { queued <- c.SendText(ctx, "fresh") }() // waits behind the Writer
				if oerr := loop.Offload(ctx, func() { err = <-queued }); oerr != nil {
					return oerr
				}
				if closes {
					if err := w.Close(); err != nil {
						return err
					}
					_, err = c.Receive(ctx)
				}
				return err
			}
			addr := serve(t, g, srv)
			client(t, g, "ws://"+addr, ws.DialOptions{Options: ws.Options{Compression: compression}}, func(ctx context.Context, c *ws.Conn) error {
				if closes {
					for _, n := range []int{20_000, 5} {
						m, err := c.Receive(ctx)
						if err != nil {
							return err
						}
						if m.Len() != n {
							return errors.New("another message")
						}
						m.Release()
					}
					return nil
				}
				m, err := c.Receive(ctx)
				if err == nil {
					got := string(m.Bytes())
					m.Release()
					return errors.New("received " + got[:min(len(got), 20)])
				}
				if broken := (*ws.ProtocolError)(nil); errors.As(err, &broken) {
					return err
				}
				return nil // closed: nothing else may arrive
			})
		}
	})
}

// A Writer that is left open must not make the peer count as too slow, even if the peer
// kept other messages waiting before.
func TestWriterIsNotThePeer(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		const limit = 4 << 20
		result := make(chan error, 1)
		stuck, open := make(chan struct{}), make(chan struct{})
		srv := echoServer()
		srv.SendQueue, srv.WriteTimeout, srv.PingInterval = limit, 400*time.Millisecond, -1
		srv.Handler = func(ctx context.Context, c *ws.Conn) (err error) {
			defer func() { result <- err }()
			for same, last := 0, 0; same < 1000; same++ { // until the kernel takes nothing more
				if c.Queued() < limit {
					if err := c.SendBinary(ctx, make([]byte, 256_000)); err != nil {
						return err
					}
				}
				if q := c.Queued(); q != last {
					same, last = 0, q
				}
				_ = loop.Yield(ctx)
			}
			if err := onGoroutineNow(func() error { return c.SendText(context.Background(), "one") }); err != nil {
				return err
			}
			for range 10 { // until takeCross waits for room
				_ = loop.Yield(ctx)
			}
			close(stuck)
			for c.Queued() >= limit {
				_ = loop.Yield(ctx)
			}
			w, err := c.NextWriter(ctx, ws.TypeBinary)
			if err != nil {
				return err
			}
			close(open)
			var sent loop.Event
			done := make(chan error, 1)
			go func() {
				err := c.SendBinary(context.Background(), make([]byte, limit))
				if err == nil {
					err = c.SendText(context.Background(), "it has to wait")
				}
				done <- err
				sent.Set()
			}()
			wctx, cancel := context.WithTimeout(ctx, 2*srv.WriteTimeout)
			defer cancel()
			if _, err := loop.WaitAny(wctx, &sent); err == nil {
				return <-done
			}
			_, err = w.Write([]byte("x"))
			err = errors.Join(err, w.Close(), sent.Wait(ctx))
			if err == nil {
				err = <-done
			}
			return err
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		<-stuck
		for on := true; on; { // not so fast that less than half is left
			select {
			case <-open:
				on = false
			default:
				_, err := io.CopyN(io.Discard, p.r, 16<<10)
				require.NoError(t, err)
			}
		}
		go func() { _, _ = io.Copy(io.Discard, p.r) }()
		require.NoError(t, <-result)
		p.send(closeFrame(1000, ""))
	})
}

// WriteTimeout does not apply while a message waits for a Writer to end its own. The test
// keeps the Writer open as long as two other connections need, one after the other, to
// reach that limit.
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

// Other messages wait for a Writer, so its Close reaches a loop that has MaxPosts posts
// waiting. So do the connection's Close, and Keep.
func TestWriterEndsWhilePostsAreFull(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g, err := loop.StartGroup(loop.GroupOptions{Loops: 1, New: func(int) (runtime.Runtime, error) { return v.New() },
			Loop: loop.LoopOptions{MaxPosts: 2, StallAfter: -1}})
		require.NoError(t, err)
		defer func() { require.NoError(t, g.Stop()) }()
		l := g.Loops()[0]
		// full calls f while the loop accepts no more posts.
		full := func(f func() error) error {
			held, gate, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
			if err := l.Post(func() { close(held); <-gate }); err != nil {
				return err
			}
			<-held
			err := errors.Join(l.Post(func() {}), l.Post(func() {}))
			go func() { done <- f() }()
			for range 1000 { // turns for f to wait or to be refused
				goruntime.Gosched()
			}
			close(gate)
			return errors.Join(err, <-done)
		}
		srv := echoServer()
		srv.OnGoroutine = true
		result := make(chan error, 1)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			m, err := c.Receive(ctx)
			if err != nil {
				return err
			}
			err = full(func() error { m.Keep(); return nil })
			w, werr := c.NextWriter(ctx, ws.TypeText)
			if err = errors.Join(err, werr); err != nil {
				return err
			}
			_, err = w.Write([]byte("first"))
			err = errors.Join(err, full(w.Close), c.SendText(ctx, "second"))
			result <- errors.Join(err, full(func() error { return c.Close(4001, "") }))
			m.Release()
			return nil
		}
		p := connect(t, serve(t, g, srv))
		p.send(text("hello"))
		p.want(frame.Text, "first")
		p.want(frame.Text, "second")
		p.wantClose(4001)
		require.NoError(t, <-result)
	})
}

func receiveText(ctx context.Context, c *ws.Conn, want string) error {
	m, err := c.Receive(ctx)
	if err != nil {
		return err
	}
	defer m.Release()
	if got := string(m.Bytes()); got != want {
		return fmt.Errorf("got %.20q, want %.20q", got, want)
	}
	return nil
}

// A hook that panics when a Writer ends its message does not block other messages.
func TestPanicAtWriterClose(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, place := range []string{"task", "goroutine"} {
			t.Run(place, func(t *testing.T) {
				srv := echoServer()
				srv.Hooks.MessageSent = func(_ *ws.Conn, _ ws.Type, n int) {
					if n == len("last") {
						panic("as it was told")
					}
				}
				srv.Handler = func(ctx context.Context, c *ws.Conn) error {
					write := writeLast
					if place == "goroutine" {
						write = goroutine(writeLast)
					}
					child, err := loop.Go(ctx, "writes", func(ctx context.Context) error { return write(ctx, c) })
					if err != nil {
						return err
					}
					if err := child.Wait(ctx); !strings.Contains(fmt.Sprint(err), "as it was told") {
						return fmt.Errorf("no panic: %w", err)
					}
					return c.SendText(ctx, "behind it")
				}
				p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
				p.want(frame.Text, "last")
				p.want(frame.Text, "behind it")
				p.wantClose(ws.StatusNormalClosure)
			})
		}
	})
}

// If there is memory for only a part of a frame, nothing follows that part: the peer would
// take it for the rest of the frame.
func TestNothingFollowsHalfAFrame(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for name, send := range map[string]func(ctx context.Context, c *ws.Conn, p []byte) error{
			"SendBinary": func(ctx context.Context, c *ws.Conn, p []byte) error { return c.SendBinary(ctx, p) },
			"SendPrepared": func(ctx context.Context, c *ws.Conn, p []byte) error {
				return c.SendPrepared(ctx, ws.Prepare(ws.TypeBinary, p))
			},
		} {
			t.Run(name, func(t *testing.T) {
				failed := make(chan error, 1)
				srv := echoServer()
				srv.PingInterval = 10 * time.Millisecond
				srv.SendQueue = 1 << 20
				srv.Handler = func(ctx context.Context, c *ws.Conn) error {
					if err := receiveOne(ctx, c); err != nil {
						return err
					}
					pool := c.Loop().Pool()
					some, err := pool.Get(64 << 10)
					if err != nil {
						return err
					}
					restore := exhaust(pool)
					some.Release()
					err = send(ctx, c, bytes.Repeat([]byte{'x'}, 256<<10))
					restore()
					failed <- err
					if _, err := c.Ping(ctx); err == nil {
						return errors.New("a ping was sent and answered")
					}
					return receiveOne(ctx, c)
				}
				p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
				p.send(text("begin"))
				if err := <-failed; err == nil {
					_, _ = io.CopyN(io.Discard, p.r, 256<<10+10)
					return // the call needed no memory
				}
				_, _ = p.Write(append(fr(frame.Ping, true, "one"), fr(frame.Ping, true, "two")...))
				all, err := io.ReadAll(p.r) // until the end, perhaps a reset
				require.False(t, isTimeout(err), "the peer has half a message, and sees no end")
				require.Empty(t, strings.Trim(string(all[min(10, len(all)):]), "x"))
			})
		}
	})
}
