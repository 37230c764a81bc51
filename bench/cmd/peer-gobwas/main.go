// Command peer-gobwas PORT is an echo server on github.com/gobwas/ws in the way that
// its authors call fastest: the low-level functions and its own buffers. Frames that
// were read together are written together.
package main

import (
	"bufio"
	"errors"
	"io"
	"log"
	"net"

	"github.com/gobwas/ws"

	"github.com/noria-go/noria/bench/internal/peer"
)

func main() {
	ln := peer.Listen()
	for {
		c, err := ln.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer c.Close()
			if err := echo(c); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				log.Print(err)
			}
		}()
	}
}

func echo(c net.Conn) error {
	if _, err := ws.Upgrade(c); err != nil {
		return err
	}
	in, out := bufio.NewReaderSize(c, peer.BufferSize), bufio.NewWriterSize(c, peer.BufferSize)
	var payload []byte
	for {
		h, err := ws.ReadHeader(in)
		if err != nil {
			return err
		}
		if h.Length > peer.MaxMessage {
			return errors.New("the frame is too long")
		}
		if int(h.Length) > cap(payload) {
			payload = make([]byte, h.Length)
		}
		payload = payload[:h.Length]
		if _, err := io.ReadFull(in, payload); err != nil {
			return err
		}
		ws.Cipher(payload, h.Mask, 0)
		switch h.OpCode {
		case ws.OpClose:
			err = ws.WriteFrame(out, ws.NewCloseFrame(payload))
		case ws.OpPing:
			err = ws.WriteFrame(out, ws.NewPongFrame(payload))
		case ws.OpPong:
		default:
			h.Masked = false
			if err = ws.WriteHeader(out, h); err == nil {
				_, err = out.Write(payload)
			}
		}
		if err != nil {
			return err
		}
		if in.Buffered() == 0 || h.OpCode == ws.OpClose {
			if err := out.Flush(); err != nil || h.OpCode == ws.OpClose {
				return err
			}
		}
	}
}
