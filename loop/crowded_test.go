package loop_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
)

// MaxPosts binds what users post. A goroutine's calls on an existing connection, listener
// or group reach a loop whose posts are full.
func TestConnectionsWhilePostsAreFull(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.CrowdedGroup(t, v, 1)
		l := g.Loops()[0]
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer ln.Close()
		var s *loop.Stream
		require.NoError(t, l.Call(context.Background(), "dial", func(ctx context.Context) error {
			s, err = l.Friend(key).Dial(ctx, ln.Addr().String(), loop.DialOptions{})
			if err == nil {
				s.Friend(key).AllowGoroutines(context.Background())
			}
			return err
		}))
		peer, err := ln.Accept()
		require.NoError(t, err)
		defer peer.Close()
		_, err = peer.Write([]byte("hello"))
		require.NoError(t, err)
		var ls *loop.Listeners
		for _, c := range []struct {
			name string
			call func() error
		}{
			{"set deadline", func() error { return s.SetDeadline(time.Now().Add(time.Hour)) }},
			{"read", func() error { _, err := io.ReadFull(s, make([]byte, 5)); return err }},
			{"write", func() error { _, err := s.Write([]byte("bye")); return err }},
			{"close write", s.CloseWrite},
			{"stats", func() error { _, err := l.Friend(key).Stats(); return err }},
			{"listen", func() (err error) { ls, err = g.Listen("127.0.0.1:0", loop.ListenOptions{}); return err }},
			{"close listeners", func() error { return ls.Close() }},
			{"close", s.Close},
		} {
			require.NoError(t, backendtest.WhileCrowded(t, l, c.call), c.name)
		}
		got, err := io.ReadAll(peer)
		require.NoError(t, err)
		require.Equal(t, "bye", string(got))
	})
}

// Posts of the library take no room from posts of users.
func TestInternalPostsAreNotCounted(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		l := backendtest.CrowdedGroup(t, v, 1).Loops()[0]
		held, gate, ran := make(chan struct{}), make(chan struct{}), make(chan int, 4)
		require.NoError(t, l.Post(func() { close(held); <-gate }))
		<-held
		for i := range 3 {
			require.NoError(t, l.Friend(key).Post(func() { ran <- i }))
		}
		require.NoError(t, l.Post(func() { ran <- 3 }))
		close(gate)
		for i := range 4 {
			require.Equal(t, i, <-ran)
		}
	})
}

// A loop whose posts are full gets its share of the connections that another loop
// accepts.
func TestDealingWhilePostsAreFull(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.CrowdedGroup(t, v, 2)
		ls, err := g.Listen("127.0.0.1:0", loop.ListenOptions{Spread: true})
		require.NoError(t, err)
		accepted := make(chan *loop.Loop, 10)
		ctx, stop := context.WithCancel(context.Background())
		served := make(chan error, 1)
		go func() { served <- g.Serve(ctx, ls, acceptor(accepted)) }()
		release := backendtest.Crowd(t, g.Loops()[1])
		for range 3 { // the second is dealt to the crowded loop
			nc, err := net.Dial("tcp", ls.Addr().String())
			require.NoError(t, err)
			defer nc.Close()
		}
		for range 2 {
			require.Same(t, g.Loops()[0], <-accepted)
		}
		release()
		require.Same(t, g.Loops()[1], <-accepted)
		stop()
		require.NoError(t, <-served)
	})
}

// An acceptor is a service that reports which loop has accepted a connection, and closes
// the connection.
type acceptor chan<- *loop.Loop

func (a acceptor) Serve(ctx context.Context, ln *loop.Listener) error {
	for {
		s, err := ln.Accept(ctx)
		if err != nil {
			return err
		}
		a <- ln.Loop()
		if err := s.Close(); err != nil {
			return err
		}
	}
}
