package compat_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/runtime"
)

// pipe returns two Conns that are each other's peer, on loops of their own.
func pipe(g *runtime.Group) nettest.MakePipe {
	return func() (c1, c2 net.Conn, stop func(), err error) {
		ln, err := compat.Listen(g, "127.0.0.1:0", runtime.ServeOptions{})
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
		c1, err = compat.Dial(context.Background(), g.Loop(), ln.Addr().String(), runtime.DialOptions{})
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
		ln, err := compat.Listen(g, "127.0.0.1:0", runtime.ServeOptions{})
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
		ln, err := compat.Listen(g, "127.0.0.1:0", runtime.ServeOptions{})
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

// Connections that nobody has accepted are closed with their Listener; those that
// were accepted go on.
func TestListenerCloseEndsWhatWaits(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 2)
		ln, err := compat.Listen(g, "127.0.0.1:0", runtime.ServeOptions{})
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

func TestTakeOver(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer ln.Close()
		client, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		defer client.Close()
		nc, err := ln.Accept()
		require.NoError(t, err)

		s, pumped, err := compat.TakeOver(g.Loops()[0], nc, compat.TakeOverOptions{Unread: []byte("before ")})
		require.NoError(t, err)
		require.False(t, pumped)
		requireEcho(t, g, s, client, "before hello")
	})
}

func TestTakeOverOfTLSIsPumped(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		server := httptest.NewUnstartedServer(nil)
		server.StartTLS() // for its certificate
		config := server.TLS.Clone()
		server.Close()
		near, far := net.Pipe()
		client := tls.Client(near, &tls.Config{InsecureSkipVerify: true})
		s, pumped, err := compat.TakeOver(g.Loops()[0], tls.Server(far, config), compat.TakeOverOptions{})
		require.NoError(t, err)
		require.True(t, pumped)
		requireEcho(t, g, s, client, "hello")
		require.NoError(t, client.Close())
	})
}

// requireEcho has s echo what client sends, up to its end.
func requireEcho(t *testing.T, g *runtime.Group, s *runtime.Stream, client net.Conn, want string) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		done <- backendtest.Run(t, g, func(context.Context) error {
			_, err := io.Copy(s, s)
			return errors.Join(err, s.Close())
		})
	}()
	_, err := client.Write([]byte("hello"))
	require.NoError(t, err)
	got := make([]byte, len(want))
	_, err = io.ReadFull(client, got)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
	require.NoError(t, client.(interface{ CloseWrite() error }).CloseWrite())
	require.NoError(t, <-done)
}

// One direction ends, the other goes on.
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

// A server of net/http upgrades a connection and hands it on, whether it was
// accepted by package net or by a Listener: neither needs a pump.
func TestTakeOverHijacked(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, ours := range []bool{false, true} {
			g := backendtest.Group(t, v, 1)
			var ln net.Listener
			var err error
			if ours {
				ln, err = compat.Listen(g, "127.0.0.1:0", runtime.ServeOptions{})
			} else {
				ln, err = net.Listen("tcp", "127.0.0.1:0")
			}
			require.NoError(t, err)
			echoed := make(chan error, 1)
			srv := &httptest.Server{Listener: ln, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				nc, rw, err := w.(http.Hijacker).Hijack()
				if err != nil {
					echoed <- err
					return
				}
				unread, _ := rw.Reader.Peek(rw.Reader.Buffered())
				s, pumped, err := compat.TakeOver(g.Loops()[0], nc, compat.TakeOverOptions{Unread: bytes.Clone(unread)})
				if pumped {
					err = errors.Join(err, errors.New("it was pumped"))
				}
				if err != nil {
					echoed <- err
					return
				}
				echoed <- backendtest.Run(t, g, func(context.Context) error {
					_, err := io.Copy(s, s)
					return errors.Join(err, s.Close())
				})
			})}}
			srv.Start()
			client, err := net.Dial("tcp", ln.Addr().String())
			require.NoError(t, err)
			_, err = io.WriteString(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\nbehind the request, ")
			require.NoError(t, err)
			_, err = io.WriteString(client, "and later")
			require.NoError(t, err)
			require.NoError(t, client.(*net.TCPConn).CloseWrite())
			got, err := io.ReadAll(client)
			require.NoError(t, err)
			require.Equal(t, "behind the request, and later", string(got))
			require.NoError(t, <-echoed)
			require.NoError(t, client.Close())
			srv.Close()
		}
	})
}
