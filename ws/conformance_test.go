package ws_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/noria-go/noria/conformance/websocket"
	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/ws"
)

// conformant are options under which the suite's largest messages fit.
func conformant(e ws.Engine) ws.Options {
	return ws.Options{Engine: e, MaxMessage: 64 << 20, Compression: &ws.Compression{}}
}

// conformance says how much is asked. The short form is every case of groups 1
// to 10, and of 12 and 13 with fewer messages.
func conformance() websocket.Options {
	o := websocket.Options{Traps: true, MaxMessage: 64 << 20}
	if testing.Short() {
		o.Messages = 5
	}
	if s := os.Getenv("WS_CASES"); s != "" {
		o.Include = strings.Split(s, ",")
	}
	return o
}

func TestServerConforms(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		addr := serve(t, backendtest.Group(t, v, 1), &ws.Server{Handler: ws.Echo, Options: conformant(e)})
		websocket.TestServer(t, "ws://"+addr+"/", conformance())
	})
}

func TestClientConforms(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		g := backendtest.Group(t, v, 1)
		websocket.TestClient(t, func(ctx context.Context, url string) error {
			return g.Loops()[0].Call(ctx, "client", func(ctx context.Context) error {
				// A server may ask this of clients that say they can: of others the
				// cases are not implemented.
				opts := conformant(e)
				opts.Compression = &ws.Compression{ClientNoContextTakeover: true}
				c, err := ws.Dial(ctx, url, ws.DialOptions{Options: opts})
				if err != nil {
					return err
				}
				err = ws.Echo(ctx, c)
				_ = c.Close(ws.StatusNormalClosure, "")
				return err
			})
		}, conformance())
	})
}
