// Command peer-gorilla PORT is an echo server on github.com/gorilla/websocket: large
// enough buffers, write buffers from a pool, one reused buffer for the message, and
// WriteMessage, which sends the message as one frame without a copy.
package main

import (
	"bytes"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"

	"github.com/noria-go/noria/bench/internal/peer"
)

func main() {
	upgrader := websocket.Upgrader{ReadBufferSize: peer.BufferSize, WriteBufferSize: peer.BufferSize, WriteBufferPool: &sync.Pool{}}
	peer.ServeHTTP(func(w http.ResponseWriter, r *http.Request) {
		c, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		var message bytes.Buffer
		for {
			kind, in, err := c.NextReader()
			if err != nil {
				return
			}
			message.Reset()
			if _, err := message.ReadFrom(in); err != nil {
				return
			}
			if err := c.WriteMessage(kind, message.Bytes()); err != nil {
				return
			}
		}
	})
}
