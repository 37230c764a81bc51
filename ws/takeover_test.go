package ws_test

import (
	"io"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// A loop that has more to do than it can takes a connection of net/http's over later,
// or not at all; it does not keep one that nobody serves.
func TestHTTPHandlerOnABusyLoop(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g, err := loop.StartGroup(loop.GroupOptions{Loops: 1, New: func(int) (runtime.Runtime, error) { return v.New() },
			Loop: loop.LoopOptions{MaxPosts: 2}})
		require.NoError(t, err)
		defer func() { require.NoError(t, g.Stop()) }()
		l := g.Loops()[0]
		srv := echoServer()
		s := httptest.NewServer(srv.HTTPHandler(g))
		defer s.Close()
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						_ = l.Post(func() {})
					}
				}
			})
		}
		var peers []*peer
		for range 100 {
			p := dialTCP(t, s.Listener.Addr().String())
			p.send([]byte(request))
			peers = append(peers, p)
		}
		for _, p := range peers {
			_, err := io.ReadFull(p, make([]byte, len("HTTP/1.1 "))) // it has an answer, or was hung up on
			if err != nil {
				require.ErrorIs(t, err, io.EOF)
			}
		}
		close(stop)
		wg.Wait()
		for _, p := range peers {
			require.NoError(t, p.Close())
		}
		require.Eventually(t, func() bool {
			st, err := l.Friend(friend.Key{}).Stats()
			return err == nil && st.Streams == 0 && srv.Stats().Active == 0
		}, patience, patience/1000, "connections stay that nobody serves")
	})
}

// A group that stops while requests are upgraded leaves nobody behind: who was told
// that it is upgraded sees the end of its connection.
func TestHTTPHandlerWhileGroupStops(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		upgraded := 0
		for range 20 {
			g := backendtest.Group(t, v, 2)
			srv := echoServer()
			s := httptest.NewServer(srv.HTTPHandler(g))
			var peers []*peer
			for range 20 {
				peers = append(peers, dialTCP(t, s.Listener.Addr().String()))
			}
			var wg sync.WaitGroup
			for _, p := range peers {
				wg.Go(func() { _, _ = p.Write([]byte(request)) })
			}
			require.NoError(t, g.Stop())
			wg.Wait()
			for _, p := range peers {
				require.NoError(t, p.SetReadDeadline(time.Now().Add(patience)))
				line, _ := p.r.ReadString('\n')
				if strings.Contains(line, " 101 ") {
					upgraded++
					_, err := io.Copy(io.Discard, p.r)
					require.False(t, isTimeout(err), "no end: %v", err)
				}
				require.NoError(t, p.Close())
			}
			s.Close()
			require.Eventually(t, func() bool { return srv.Stats().Active == 0 }, patience, time.Millisecond)
		}
		t.Log(upgraded, "were upgraded")
	})
}
