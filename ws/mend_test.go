package ws_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/ws"
)

// There is no handler whose return ends the time of what a dialed connection
// has received: closing it leaves that alone.
func TestMessageOutlivesDialedConn(t *testing.T) {
	each(t, func(t *testing.T, v backendtest.Variant, e ws.Engine) {
		g := backendtest.Group(t, v, 1)
		addr := serve(t, g, echoServer(e))
		closes := map[string]func(*ws.Conn) error{
			"Close":    func(c *ws.Conn) error { return c.Close(ws.StatusNormalClosure, "") },
			"CloseNow": (*ws.Conn).CloseNow,
		}
		for name, end := range closes {
			for _, size := range []int{5, 100_000} {
				var elsewhere *ws.Message
				require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
					c, err := ws.Dial(ctx, "ws://"+addr, ws.DialOptions{Options: ws.Options{Engine: e}})
					if err != nil {
						return err
					}
					var got []*ws.Message
					for i := range 3 {
						if err := c.SendBinary(ctx, bytes.Repeat([]byte{byte('a' + i)}, size)); err != nil {
							return err
						}
						m, err := c.Receive(ctx)
						if err != nil {
							return err
						}
						got = append(got, m)
					}
					if err := end(c); err != nil {
						return err
					}
					for i, m := range got {
						if !bytes.Equal(m.Bytes(), bytes.Repeat([]byte{byte('a' + i)}, size)) {
							return fmt.Errorf("after %s a message has changed", name)
						}
					}
					got[0].Release()
					got[1].Keep().Release()
					elsewhere = got[2]
					return nil
				}))
				require.Equal(t, size, len(elsewhere.Bytes()))
				elsewhere.Release()
			}
		}
	})
}
