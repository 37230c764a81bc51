// Command gobwas is a WebSocket echo server: gobwas/ws, a synchronous library
// that loses header bytes when it is interrupted, over the growable adapter.
// The handler is the thirty lines that porting took.
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/gobwas/ws"

	"github.com/noria-go/noria"
	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/tcp"
)

func main() {
	address := flag.String("addr", "127.0.0.1:7001", "where to listen")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log.Printf("ws://%s", *address)
	if err := noria.ListenAndServe(ctx, *address, &tcp.Server{Handler: echo}); err != nil {
		log.Fatal(err)
	}
}

const maxFrame = 32 << 20 // bytes, with its header

var errDone = errors.New("the peer has said goodbye")

func echo(_ context.Context, c *tcp.Conn) error {
	s, err := compat.NewGrowableSyncStream(c, compat.Options{Exact: true, Max: maxFrame})
	if err != nil {
		return err
	}
	defer func() { _, _ = s.Take() }() // the server closes it
	upgrade := func(rw io.ReadWriter) error { _, err := ws.Upgrade(rw); return err }
	if err := compat.RunHead(s, "\r\n\r\n", 8<<10, upgrade); err != nil {
		return err
	}
	for err == nil {
		err = compat.Run(s, func(rw io.ReadWriter) error {
			h, err := ws.ReadHeader(rw)
			if err == nil {
				err = s.Want(int(min(h.Length, maxFrame+1))) // nothing is allocated before it is there
			}
			if err != nil {
				return err
			}
			p := make([]byte, h.Length)
			if _, err := io.ReadFull(rw, p); err != nil {
				return err
			}
			ws.Cipher(p, h.Mask, 0)
			switch h.OpCode {
			case ws.OpPing:
				return ws.WriteFrame(rw, ws.NewPongFrame(p))
			case ws.OpPong:
				return nil
			case ws.OpClose:
				return errors.Join(ws.WriteFrame(rw, ws.NewCloseFrame(p)), errDone)
			}
			return ws.WriteFrame(rw, ws.NewFrame(h.OpCode, h.Fin, p))
		})
	}
	if errors.Is(err, errDone) || err == io.EOF {
		return nil
	}
	return err
}
