package ws_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/ws"
)

// A wss dial that fails says why, and not that something was closed here.
func TestDialErrorsOverTLS(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		g := backendtest.Group(t, v, 1)
		srv := echoServer(e)
		server, trust := tlsConfigs()
		srv.TLS = server
		srv.Check = func(*ws.Request) (http.Header, error) { return nil, errors.New("no") }
		addr := serve(t, g, srv)
		dial := func(opts ws.DialOptions) (err error) {
			require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
				_, err = ws.Dial(ctx, "wss://"+addr, opts)
				return nil
			}))
			return err
		}
		err := dial(ws.DialOptions{TLS: trust})
		var status *ws.StatusError
		require.ErrorAs(t, err, &status)
		require.NotErrorIs(t, err, net.ErrClosed)
		err = dial(ws.DialOptions{})
		require.ErrorContains(t, err, "certificate")
		require.NotErrorIs(t, err, net.ErrClosed)
	})
}

// The end of its context is what Dial tells, wherever it was.
func TestDialContextEnds(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		g := backendtest.Group(t, v, 1)
		ln, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts
		require.NoError(t, err)
		defer ln.Close()
		for _, scheme := range []string{"ws", "wss"} {
			for _, big := range []int{10, 8 << 20} { // the latter has to be waited for
				for _, want := range []error{context.Canceled, context.DeadlineExceeded} {
					t.Run(fmt.Sprintf("%s,header=%d,%v", scheme, big, want), func(t *testing.T) {
						require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
							dctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
							if want == context.Canceled {
								cancel()
								dctx, cancel = context.WithCancel(ctx)
								time.AfterFunc(20*time.Millisecond, cancel)
							}
							defer cancel()
							_, err := ws.Dial(dctx, scheme+"://"+ln.Addr().String(), ws.DialOptions{Header: http.Header{"X": {strings.Repeat("x", big)}}})
							if !errors.Is(err, want) {
								return fmt.Errorf("dial: %w", err)
							}
							return nil
						}))
					})
				}
			}
		}
	})
}
