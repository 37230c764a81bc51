package websocket_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/conformance/websocket"
	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws"
)

// maxMessage is one byte more than the longest message that Autobahn sends.
const maxMessage = 16<<20 + 1

// each runs f on every backend; in the short form without the variant of io_uring that
// lacks newer features.
func each(t *testing.T, f func(t *testing.T, g *loop.Group, o ws.Options)) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		if testing.Short() && v.Name == "io_uring-plain" {
			return
		}
		f(t, backendtest.Group(t, v, 1), ws.Options{
			MaxMessage:  maxMessage,
			Compression: &ws.Compression{Threshold: -1},
			Logger:      slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
	})
}

// suite returns options for all cases, with fewer messages a case in groups 12 and 13
// unless NORIA_MESSAGES says how many (Autobahn sends 1000).
func suite(t *testing.T) websocket.Options {
	o := websocket.Options{Traps: true, MaxMessage: maxMessage, Messages: 50, Patience: 30 * time.Second}
	if testing.Short() {
		o.Messages = 3
	}
	if s := os.Getenv("NORIA_MESSAGES"); s != "" {
		n, err := strconv.Atoi(s)
		require.NoError(t, err)
		o.Messages = n
	}
	return o
}

func TestNoriaServer(t *testing.T) {
	each(t, func(t *testing.T, g *loop.Group, options ws.Options) {
		ctx, cancel := context.WithCancel(context.Background())
		ls, err := g.Listen("127.0.0.1:0", loop.ListenOptions{})
		require.NoError(t, err)
		served := make(chan error, 1)
		srv := &ws.Server{Handler: echo, Options: options, DrainTime: 100 * time.Millisecond, HandshakeTimeout: 2 * time.Second}
		go func() { served <- g.Serve(ctx, ls, srv) }()
		o := suite(t)
		o.HandshakeTimeout = srv.HandshakeTimeout
		websocket.TestServer(t, fmt.Sprintf("ws://%s/", ls.Addr()), o)
		cancel()
		require.NoError(t, <-served)
	})
}

func TestNoriaClient(t *testing.T) {
	// In these subgroups Autobahn's server asks the client not to refer to earlier
	// messages. It may ask that only if the client's offer says that it can.
	asking := []string{"13.2.*", "13.5.*", "13.6.*", "13.7.*"}
	each(t, func(t *testing.T, g *loop.Group, options ws.Options) {
		options.CloseTimeout = time.Second
		o := suite(t)
		forgetful := o
		forgetful.Include, forgetful.Traps = asking, false
		o.Exclude = asking
		websocket.TestClient(t, agent(g, options), o)

		compression := *options.Compression
		compression.ClientNoContextTakeover = true
		options.Compression = &compression
		websocket.TestClient(t, agent(g, options), forgetful)
	})
}

// agent returns a client that echoes until its connection ends.
func agent(g *loop.Group, options ws.Options) func(ctx context.Context, url string) error {
	return func(ctx context.Context, url string) error {
		return g.Loops()[0].Call(ctx, "agent", func(ctx context.Context) error {
			c, err := ws.Dial(ctx, url, ws.DialOptions{Options: options})
			if err != nil {
				return err
			}
			err = echo(ctx, c)
			if closeErr := c.Close(ws.StatusNormalClosure, ""); !errors.Is(closeErr, net.ErrClosed) {
				err = errors.Join(err, closeErr)
			}
			return err
		})
	}
}

// echo sends every message of c back until the peer closes.
func echo(ctx context.Context, c *ws.Conn) error {
	for {
		m, err := c.Receive(ctx)
		if err != nil {
			return err
		}
		if err := c.Send(ctx, m); err != nil {
			return err
		}
	}
}
