package ws_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// A message may be sent on a connection of another loop than the one that it
// came in on, by a task of that other loop: its memory belongs to the first.
func TestSendOfAnotherLoopsMessage(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		for _, kept := range []bool{true, false} {
			testSendAcross(t, v, e, kept)
		}
	})
}

func testSendAcross(t *testing.T, v backendtest.Variant, e ws.Engine, kept bool) {
	q := runtime.NewQueue[*ws.Message](100)
	loops := make(chan *runtime.Loop, 1)
	srv := echoServer(e)
	srv.Handler = func(ctx context.Context, c *ws.Conn) error {
		loops <- c.Loop()
		m, err := c.Receive(ctx)
		if err != nil {
			return err
		}
		if string(m.Bytes()) == "take" { // what others receive
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

// A message that a Reader has left half-way makes Readable ready no longer than
// there is something to skip: a task that waits for it must let others run.
func TestReadableAfterAbandonedReader(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		turns := make(chan int, 1)
		srv := echoServer(e)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			_, r, err := c.NextReader(ctx)
			if err != nil {
				return err
			}
			if _, err := io.ReadFull(r, make([]byte, 2)); err != nil {
				return err
			}
			for i := 0; ; i++ {
				if i == 1000 {
					turns <- i
					return nil
				}
				if _, err := runtime.WaitAny(ctx, c.Readable()); err != nil {
					return err
				}
				m, err := c.TryReceive()
				if err != nil {
					return err
				}
				if m != nil {
					turns <- i
					return c.Send(ctx, m)
				}
			}
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.send(fr(frame.Text, false, "abcdef"))
		p.send(fr(frame.Continuation, false, "more"))
		time.AfterFunc(50*time.Millisecond, func() { // nothing depends on how long
			_, _ = p.Write(append(fr(frame.Continuation, true, "end"), text("next")...))
		})
		require.Less(t, <-turns, 100)
		p.want(frame.Text, "next")
	})
}

// MaxMessage does not bound a Reader; but it bounds the Receive that follows a
// NextReader which was given up when it had seen no more than the header.
func TestMaxMessageAfterNextReaderGivenUp(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		result := make(chan error, 1)
		gaveUp := make(chan struct{})
		srv := echoServer(e)
		srv.MaxMessage = 1000
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
				return err
			}
			_, _, err := c.NextReader(ctx)
			if err == nil {
				result <- errors.New("a Reader without payload")
				return nil
			}
			if err := c.SetReadDeadline(time.Time{}); err != nil {
				return err
			}
			close(gaveUp)
			m, err := c.Receive(ctx)
			if m != nil {
				m.Release()
			}
			result <- err
			return err
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		f := fr(frame.Binary, true, strings.Repeat("x", 70_000))
		p.send(f[:14]) // the header
		<-gaveUp
		p.send(f[14:])
		err := <-result
		require.Equal(t, ws.StatusMessageTooBig, ws.CloseStatus(err), "%v", err)
		p.wantCloseFrame(ws.StatusMessageTooBig)
	})
}

// A message that was taken in before somebody asked for a Reader of it is one
// message for the hook.
func TestMessageInOnce(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		var sizes []int
		srv := echoServer(e)
		srv.Hooks.MessageIn = func(_ *ws.Conn, _ ws.Type, n int) { sizes = append(sizes, n) }
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			if _, err := runtime.WaitAny(ctx, c.Readable()); err != nil {
				return err
			}
			_, r, err := c.NextReader(ctx)
			if err != nil {
				return err
			}
			p, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			if err := c.SendText(ctx, string(p)); err != nil {
				return err
			}
			_, err = c.Receive(ctx)
			return err
		}
		closed := make(chan struct{})
		srv.Hooks.Closed = func(*ws.Conn, ws.StatusCode, error) { close(closed) }
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		p.send(text("hello"))
		p.want(frame.Text, "hello")
		p.send(closeFrame(1000, ""))
		<-closed
		require.Equal(t, []int{5}, sizes)
	})
}

// A Ping goes on to look for its pong when the one who received has stopped.
func TestPingAfterReceiverStops(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		result := make(chan error, 1)
		stopped := make(chan struct{})
		srv := echoServer(e)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			// It runs when Receive waits.
			pinger, err := runtime.Go(ctx, "ping", func(ctx context.Context) error {
				_, err := c.Ping(ctx)
				return err
			})
			if err != nil {
				return err
			}
			m, err := c.Receive(ctx)
			if err != nil {
				return err
			}
			m.Release()
			close(stopped)
			result <- pinger.Wait(ctx)
			return nil
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		h, payload, err := p.read()
		require.NoError(t, err)
		require.Equal(t, frame.Ping, h.Op)
		p.send(text("stop receiving"))
		<-stopped
		p.send(fr(frame.Pong, true, payload))
		select {
		case err := <-result:
			require.NoError(t, err)
		case <-time.After(patience):
			t.Fatal("the ping has not seen its pong")
		}
		p.Close()
	})
}

// What other goroutines send while a Writer is open follows its message. But a
// handler that leaves a Writer open may have fed the compressor, or sent half
// a message: what others have queued must not go on in the middle of that.
func TestWriterLeftOpen(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		for i := range 4 {
			var compression *ws.Compression
			if i&1 != 0 {
				compression = &ws.Compression{Threshold: -1}
			}
			closes := i&2 != 0 // then what is behind the Writer follows
			g := backendtest.Group(t, v, 1)
			srv := echoServer(e)
			srv.Compression = compression
			srv.Handler = func(ctx context.Context, c *ws.Conn) error {
				w, err := c.NextWriter(ctx, ws.Text)
				if err != nil {
					return err
				}
				if _, err := w.Write([]byte(strings.Repeat("stale", 4000))); err != nil { // more than a fragment
					return err
				}
				queued := make(chan error, 1)
				go func() { queued <- c.SendText(ctx, "fresh") }() // it is behind the Writer
				if oerr := runtime.Offload(ctx, func() { err = <-queued }); oerr != nil {
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
			client(t, g, "ws://"+addr, ws.DialOptions{Options: ws.Options{Engine: e, Compression: compression}}, func(ctx context.Context, c *ws.Conn) error {
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
				return nil // closed: nothing else may come
			})
		}
	})
}
