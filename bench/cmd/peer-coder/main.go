// Command peer-coder PORT is an echo server on github.com/coder/websocket: no
// compression, one reused buffer for the message, one frame back.
package main

import (
	"bytes"
	"net/http"

	"github.com/coder/websocket"

	"github.com/noria-go/noria/bench/internal/peer"
)

func main() {
	peer.ServeHTTP(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(peer.MaxMessage)
		ctx := r.Context()
		var message bytes.Buffer
		for {
			kind, in, err := c.Reader(ctx)
			if err != nil {
				return
			}
			message.Reset()
			if _, err := message.ReadFrom(in); err != nil {
				return
			}
			if err := c.Write(ctx, kind, message.Bytes()); err != nil {
				return
			}
		}
	})
}
