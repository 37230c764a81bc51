package echo

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/conformance/websocket"
	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
)

// maxMessage is one byte more than the longest message that Autobahn sends.
const maxMessage = 16<<20 + 1

// serve serves a listener until the test ends and returns its address.
func serve(t *testing.T, g *loop.Group, o Options, ended func(error)) string {
	t.Helper()
	ls, err := g.Listen("127.0.0.1:0", loop.ListenOptions{})
	require.NoError(t, err)
	srv := Server(o)
	srv.DrainTime = 100 * time.Millisecond
	srv.OnEnd = func(_ *loop.Stream, err error) { ended(err) }
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx, ls, srv) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-served)
	})
	return ls.Addr().String()
}

// suite returns options for the whole suite without the cases about compression, which
// the example does not have.
func suite() websocket.Options {
	return websocket.Options{Exclude: []string{"12.*", "13.*", "trap08.*", "trap09.inflated*"},
		Traps: true, MaxMessage: maxMessage, HandshakeTimeout: options.HandshakeTimeout, Patience: 30 * time.Second}
}

var options = Options{MaxMessage: maxMessage, HandshakeTimeout: 2 * time.Second, CloseTimeout: time.Second}

// each runs f on every backend; in the short form without the variant of io_uring that
// lacks newer features.
func each(t *testing.T, f func(t *testing.T, g *loop.Group)) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		if testing.Short() && v.Name == "io_uring-plain" {
			return
		}
		f(t, backendtest.Group(t, v, 1))
	})
}

// The library's Upgrader accepts some invalid requests, refuses a valid one, and does
// not check Origin. The example passes every case about frames.
func TestServerConforms(t *testing.T) {
	each(t, func(t *testing.T, g *loop.Group) {
		addr := serve(t, g, options, func(error) {})
		r, err := websocket.RunServer(t.Context(), fmt.Sprintf("ws://%s/", addr), suite())
		require.NoError(t, err)
		requireImperfect(t, r, "trap02.bad-key", "trap02.content-length", "trap02.empty-name", "trap02.folded-first", "trap02.no-version",
			"trap02.space-before-colon", "trap02.transfer-encoding", "trap02.two-connections", "trap02.two-content-lengths", "trap02.two-hosts",
			"trap02.two-keys", "trap11.foreign-origin", "trap11.null-origin", "trap11.similar-origin")
	})
}

// The library's Dialer needs Connection in one line.
func TestClientConforms(t *testing.T) {
	each(t, func(t *testing.T, g *loop.Group) {
		r, err := websocket.RunClient(t.Context(), func(ctx context.Context, url string) error {
			return g.Loops()[0].Call(ctx, "agent", func(ctx context.Context) error { return Client(ctx, url, options) })
		}, suite())
		require.NoError(t, err)
		requireImperfect(t, r, "trap02.answer-two-connections")
	})
}

func requireImperfect(t *testing.T, r *websocket.Report, want ...string) {
	t.Helper()
	t.Log(r.Summary())
	var got []string
	for _, c := range r.Imperfect() {
		got = append(got, c.ID)
		if !slices.Contains(want, c.ID) {
			t.Logf("%s\n  %s\n  %v", c, c.Description, c.Log)
		}
	}
	require.ElementsMatch(t, want, got)
}
