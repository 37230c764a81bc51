package compat_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
)

// pipe returns a function that makes two Conns of g that are each other's peer.
func pipe(g *loop.Group) nettest.MakePipe {
	return func() (c1, c2 net.Conn, stop func(), err error) {
		ln, err := compat.Listen(g, "127.0.0.1:0", loop.ListenOptions{})
		if err != nil {
			return nil, nil, nil, err
		}
		accepted := make(chan net.Conn, 1)
		go func() {
			c, err := ln.Accept()
			if err != nil {
				c = nil
			}
			accepted <- c
		}()
		c1, err = compat.Dial(context.Background(), ln.Addr().String(), loop.DialOptions{Group: g})
		if err != nil {
			return nil, nil, nil, errors.Join(err, ln.Close())
		}
		c2 = <-accepted
		return c1, c2, func() {
			_ = c1.Close()
			_ = c2.Close()
			_ = ln.Close()
		}, nil
	}
}

func TestNettest(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		nettest.TestConn(t, pipe(backendtest.Group(t, v, 2)))
	})
}

func TestHTTPOverListener(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 2)
		ln, err := compat.Listen(g, "127.0.0.1:0", loop.ListenOptions{})
		require.NoError(t, err)
		srv := &httptest.Server{Listener: ln, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(w, r.Body)
		})}}
		srv.StartTLS()
		defer srv.Close()
		body := make([]byte, 1<<20)
		resp, err := srv.Client().Post(srv.URL, "application/octet-stream", newReader(body))
		require.NoError(t, err)
		got, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, body, got)
		require.NoError(t, resp.Body.Close())
		srv.Client().CloseIdleConnections()
	})
}

func TestListenerClose(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 2)
		ln, err := compat.Listen(g, "127.0.0.1:0", loop.ListenOptions{})
		require.NoError(t, err)
		failed := make(chan error)
		go func() {
			_, err := ln.Accept()
			failed <- err
		}()
		require.NoError(t, ln.Close())
		require.ErrorIs(t, <-failed, net.ErrClosed)
		require.ErrorIs(t, ln.Close(), net.ErrClosed)
		_, err = net.Dial("tcp", ln.Addr().String())
		require.Error(t, err)
	})
}

// A loop keeps running while its task closes the Listener.
func TestListenerCloseOnALoop(t *testing.T) {
	for name, call := range map[string]func(l *loop.Loop, f func()) error{
		"task": func(l *loop.Loop, f func()) error {
			return l.Go("close", func(context.Context) error { f(); return nil }, nil)
		},
		"posted function": (*loop.Loop).Post,
	} {
		t.Run(name, func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				g := backendtest.Group(t, v, 2)
				ln, err := compat.Listen(g, "127.0.0.1:0", loop.ListenOptions{})
				require.NoError(t, err)
				client, err := net.Dial("tcp", ln.Addr().String()) // which nobody accepts
				require.NoError(t, err)
				defer client.Close()
				closed := make(chan error, 1)
				require.NoError(t, call(g.Loops()[0], func() { closed <- ln.Close() }))
				select {
				case err := <-closed:
					require.NoError(t, err)
				case <-time.After(30 * time.Second):
					panic("the loop stands still, and so would the end of the test")
				}
				_, err = io.ReadAll(client)
				require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
				for err = nil; err == nil; {
					_, err = ln.Accept() // a posted function does not wait for the end
				}
				require.ErrorIs(t, err, net.ErrClosed)
			})
		})
	}
}

// Close of a Listener closes the connections that wait for Accept, and leaves accepted
// ones open.
func TestListenerCloseEndsWhatWaits(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 2)
		ln, err := compat.Listen(g, "127.0.0.1:0", loop.ListenOptions{})
		require.NoError(t, err)
		dial := func() net.Conn {
			c, err := net.Dial("tcp", ln.Addr().String())
			require.NoError(t, err)
			t.Cleanup(func() { _ = c.Close() })
			require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Second)))
			return c
		}
		first := dial()
		accepted, err := ln.Accept()
		require.NoError(t, err)
		var waiting []net.Conn
		for range 10 {
			waiting = append(waiting, dial())
		}
		for streams := 0; streams < 1+len(waiting); { // the loops have them, not the kernel any more
			stats, err := g.Stats()
			require.NoError(t, err)
			streams = stats[0].Streams + stats[1].Streams
		}
		require.NoError(t, ln.Close())
		for i, c := range waiting {
			_, err := c.Read(make([]byte, 1))
			require.Equal(t, io.EOF, err, "connection %d", i)
		}
		_, err = io.WriteString(first, "hello")
		require.NoError(t, err)
		_, err = io.ReadFull(accepted, make([]byte, len("hello")))
		require.NoError(t, err)
		require.NoError(t, accepted.Close())
	})
}

// Close does not wait for a peer that does not read, as in package net, and loses nothing:
// the loop sends what is left.
func TestConnCloseDoesNotWaitForThePeer(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		ln, err := compat.Listen(g, "127.0.0.1:0", loop.ListenOptions{Stream: loop.StreamOptions{Linger: time.Minute}})
		require.NoError(t, err)
		defer ln.Close()
		client, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		defer client.Close()
		nc, err := ln.Accept()
		require.NoError(t, err)
		require.NoError(t, nc.SetWriteDeadline(time.Now().Add(50*time.Millisecond)))
		n, err := nc.Write(make([]byte, 64<<20))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)

		begun := time.Now()
		require.NoError(t, nc.Close())
		require.Less(t, time.Since(begun), 30*time.Second, "it waited for the peer")
		require.ErrorIs(t, nc.Close(), net.ErrClosed)
		_, err = nc.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
		got, err := io.Copy(io.Discard, client)
		require.NoError(t, err)
		require.EqualValues(t, n, got)
	})
}

// When Close returns, the kernel has all that it could take at once.
func TestConnCloseSendsWhatIsQueued(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		c1, c2, stop, err := pipe(backendtest.Group(t, v, 1))()
		require.NoError(t, err)
		defer stop()
		lp := c1.(*compat.Conn).Loop()
		for range 3 {
			_, err = c1.Write(make([]byte, 20_000))
			require.NoError(t, err)
		}
		require.NoError(t, c1.Close())
		stats, err := lp.Friend(key).Stats()
		require.NoError(t, err)
		require.Equal(t, 1, stats.Streams, "it is still being closed")
		got, err := io.ReadAll(c2)
		require.NoError(t, err)
		require.Len(t, got, 60_000)
	})
}

// The end of one direction does not end the other.
func TestConnHalfClose(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		c1, c2, stop, err := pipe(backendtest.Group(t, v, 2))()
		require.NoError(t, err)
		defer stop()
		_, err = c1.Write([]byte("question"))
		require.NoError(t, err)
		require.NoError(t, c1.(*compat.Conn).CloseWrite())
		got, err := io.ReadAll(c2)
		require.NoError(t, err)
		require.Equal(t, "question", string(got))
		_, err = c1.Write([]byte("more"))
		require.ErrorIs(t, err, net.ErrClosed)
		_, err = c2.Write([]byte("answer"))
		require.NoError(t, err)
		require.NoError(t, c2.Close())
		got, err = io.ReadAll(c1)
		require.NoError(t, err)
		require.Equal(t, "answer", string(got))
	})
}
