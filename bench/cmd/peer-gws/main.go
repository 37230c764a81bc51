// Command peer-gws PORT is an echo server on github.com/lxzan/gws with the library's
// own server. Messages come from its pool and go back once they are sent.
package main

import (
	"log"

	"github.com/lxzan/gws"

	"github.com/noria-go/noria/bench/internal/peer"
)

type echo struct{ gws.BuiltinEventHandler }

func (echo) OnPing(c *gws.Conn, payload []byte) { _ = c.WritePong(payload) } // a failure ends the read loop

func (echo) OnMessage(c *gws.Conn, m *gws.Message) {
	_ = c.WriteMessage(m.Opcode, m.Bytes()) // a failure ends the read loop
	_ = m.Close()                           // cannot fail: it returns the memory to the pool
}

func main() {
	srv := gws.NewServer(echo{}, &gws.ServerOption{ReadBufferSize: peer.BufferSize, ReadMaxPayloadSize: peer.MaxMessage, WriteMaxPayloadSize: peer.MaxMessage})
	log.Fatal(srv.RunListener(peer.Listen()))
}
