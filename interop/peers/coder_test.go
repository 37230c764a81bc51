package peers

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/ws"
)

func (v variant) coderMode() websocket.CompressionMode {
	switch v.compress {
	case takeover:
		return websocket.CompressionContextTakeover
	case noTakeover:
		return websocket.CompressionNoContextTakeover
	}
	return websocket.CompressionDisabled
}

func TestCoderClient(t *testing.T) {
	each(t, func(t *testing.T, v variant) {
		url := v.serve(t, &ws.Server{Handler: handler, Options: v.options(), Subprotocols: []string{"echo"}})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		open := func() *websocket.Conn {
			c, r, err := websocket.Dial(ctx, url, &websocket.DialOptions{CompressionMode: v.coderMode(), CompressionThreshold: 1, Subprotocols: []string{"x", "echo"}})
			require.NoError(t, err)
			require.Equal(t, "echo", c.Subprotocol())
			require.Equal(t, v.compress != "", r.Header.Get("Sec-WebSocket-Extensions") != "", r.Header)
			c.SetReadLimit(-1)
			return c
		}
		c := open()
		for _, m := range messages() {
			typ := websocket.MessageBinary
			if m.text {
				typ = websocket.MessageText
			}
			require.NoError(t, c.Write(ctx, typ, m.data))
			got, data, err := c.Read(ctx)
			require.NoError(t, err)
			require.Equal(t, typ, got)
			require.True(t, bytes.Equal(m.data, data), "%d bytes came back as %d", len(m.data), len(data))
		}
		// In fragments.
		w, err := c.Writer(ctx, websocket.MessageText)
		require.NoError(t, err)
		var want bytes.Buffer
		for i := range 1000 {
			p := fmt.Appendf(nil, "part %d, ", i)
			want.Write(p)
			_, err = w.Write(p)
			require.NoError(t, err)
		}
		require.NoError(t, w.Close())
		_, data, err := c.Read(ctx)
		require.NoError(t, err)
		require.Equal(t, want.String(), string(data))
		// The client answers a ping while it reads.
		rctx := c.CloseRead(ctx)
		require.NoError(t, c.Ping(rctx))
		require.NoError(t, c.Close(4321, "bye"))

		for _, code := range closeCodes {
			c := open()
			require.NoError(t, c.Write(ctx, websocket.MessageText, fmt.Appendf(nil, "close %d", code)))
			_, _, err := c.Read(ctx)
			require.Equal(t, code, int(websocket.CloseStatus(err)), "%v", err)
			require.ErrorContains(t, err, "as you wish")
		}
		for _, tt := range []struct {
			typ  websocket.MessageType
			data []byte
			code int
		}{
			{websocket.MessageText, []byte("not \xff UTF-8"), 1007},
			{websocket.MessageBinary, make([]byte, 16<<20+1), 1009},
		} {
			c := open()
			_ = c.Write(ctx, tt.typ, tt.data) // the server may close first
			_, _, err := c.Read(ctx)
			require.Equal(t, tt.code, int(websocket.CloseStatus(err)), "%v", err)
			_ = c.CloseNow() // the server has closed the connection
		}
	})
}

func TestCoderServer(t *testing.T) {
	each(t, func(t *testing.T, v variant) {
		codes := make(chan int, 100)
		url := listen(t, func(w http.ResponseWriter, r *http.Request) {
			c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: v.coderMode(), CompressionThreshold: 1, Subprotocols: []string{"echo"}})
			if err != nil {
				t.Errorf("accept: %v", err)
				return
			}
			defer c.CloseNow()
			c.SetReadLimit(-1)
			for {
				typ, data, err := c.Read(r.Context())
				if err != nil {
					codes <- int(websocket.CloseStatus(err))
					return
				}
				var code websocket.StatusCode
				if n, _ := fmt.Sscanf(string(data), "close %d", &code); n == 1 {
					_ = c.Close(code, "as you wish")
					return
				}
				if err := c.Write(r.Context(), typ, data); err != nil {
					t.Errorf("write: %v", err)
					return
				}
			}
		})
		v.dial(t, url, echoes)
		require.Equal(t, 1000, <-codes)
		v.asksToClose(t, url)
		v.dial(t, url, func(ctx context.Context, c *ws.Conn) error {
			// The server answers a ping only while it reads, as it does here.
			if _, err := c.Ping(ctx); err != nil {
				return err
			}
			return c.Close(4242, "enough")
		})
		require.Equal(t, 4242, <-codes)
	})
}
