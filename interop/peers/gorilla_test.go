package peers

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/ws"
)

func TestGorillaClient(t *testing.T) {
	each(t, func(t *testing.T, v variant) {
		url := v.serve(t, &ws.Server{Handler: handler, Options: v.options(), Subprotocols: []string{"echo"}})
		open := func() *websocket.Conn {
			d := websocket.Dialer{EnableCompression: v.compress != "", Subprotocols: []string{"x", "echo"}, HandshakeTimeout: patience}
			c, r, err := d.Dial(url, nil)
			require.NoError(t, err)
			require.NoError(t, r.Body.Close())
			require.Equal(t, "echo", c.Subprotocol())
			require.Equal(t, v.compress != "", r.Header.Get("Sec-WebSocket-Extensions") != "")
			require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
			require.NoError(t, c.SetWriteDeadline(time.Now().Add(patience)))
			return c
		}
		c := open()
		for _, m := range messages() {
			typ := websocket.BinaryMessage
			if m.text {
				typ = websocket.TextMessage
			}
			require.NoError(t, c.WriteMessage(typ, m.data))
			got, data, err := c.ReadMessage()
			require.NoError(t, err)
			require.Equal(t, typ, got)
			require.True(t, bytes.Equal(m.data, data), "%d bytes came back as %d", len(m.data), len(data))
		}
		w, err := c.NextWriter(websocket.TextMessage) // 4 KiB a fragment
		require.NoError(t, err)
		want := bytes.Repeat([]byte("piece by piece "), 10_000)
		for p := want; len(p) > 0; p = p[min(len(p), 997):] {
			_, err = w.Write(p[:min(len(p), 997)])
			require.NoError(t, err)
		}
		require.NoError(t, w.Close())
		_, data, err := c.ReadMessage()
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, data))
		pong := make(chan string, 1)
		c.SetPongHandler(func(s string) error { pong <- s; return nil })
		require.NoError(t, c.WriteControl(websocket.PingMessage, []byte("are you there"), time.Now().Add(patience)))
		require.NoError(t, c.WriteMessage(websocket.TextMessage, []byte("then echo")))
		_, _, err = c.ReadMessage()
		require.NoError(t, err)
		require.Equal(t, "are you there", <-pong)
		require.NoError(t, c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4321, "bye"), time.Now().Add(patience)))
		_, _, err = c.ReadMessage()
		require.True(t, websocket.IsCloseError(err, 4321), "%v", err)
		require.NoError(t, c.Close())

		for _, code := range closeCodes {
			c := open()
			require.NoError(t, c.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, "close %d", code)))
			_, _, err := c.ReadMessage()
			require.True(t, websocket.IsCloseError(err, code), "%d: %v", code, err)
			require.ErrorContains(t, err, "as you wish")
			require.NoError(t, c.Close())
		}
		for _, tt := range []struct {
			typ  int
			data []byte
			code int
		}{
			{websocket.TextMessage, []byte("not \xff UTF-8"), 1007},
			{websocket.BinaryMessage, make([]byte, 16<<20+1), 1009},
		} {
			c := open()
			_ = c.WriteMessage(tt.typ, tt.data) // the server may close first
			_, _, err := c.ReadMessage()
			require.True(t, websocket.IsCloseError(err, tt.code), "%v", err)
			require.NoError(t, c.Close())
		}
	})
}

func TestGorillaServer(t *testing.T) {
	each(t, func(t *testing.T, v variant) {
		codes := make(chan int, 100)
		up := websocket.Upgrader{EnableCompression: v.compress != "", Subprotocols: []string{"echo"}}
		url := listen(t, func(w http.ResponseWriter, r *http.Request) {
			c, err := up.Upgrade(w, r, nil)
			if err != nil {
				t.Errorf("upgrade: %v", err)
				return
			}
			defer c.Close()
			for {
				typ, data, err := c.ReadMessage()
				if err != nil {
					code := -1
					if closed, ok := err.(*websocket.CloseError); ok {
						code = closed.Code
					}
					codes <- code
					return
				}
				var code int
				if n, _ := fmt.Sscanf(string(data), "close %d", &code); n == 1 {
					_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, "as you wish"), time.Now().Add(patience))
					_, _, _ = c.ReadMessage() // the answer
					return
				}
				if err := c.WriteMessage(typ, data); err != nil {
					t.Errorf("write: %v", err)
					return
				}
			}
		})
		v.dial(t, url, echoes)
		require.Equal(t, 1000, <-codes)
		v.asksToClose(t, url)
		v.dial(t, url, func(ctx context.Context, c *ws.Conn) error {
			if _, err := c.Ping(ctx); err != nil {
				return err
			}
			return c.Close(4242, "enough")
		})
		require.Equal(t, 4242, <-codes)
	})
}
