package ws_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/noria-go/noria"
	"github.com/noria-go/noria/ws"
)

// This is the program that the README begins with.
func Example() {
	echo := func(ctx context.Context, c *ws.Conn) error {
		for {
			m, err := c.Receive(ctx) // m owns its bytes: no copy was made
			if err != nil {
				return err // a peer's close comes as *ws.CloseError
			}
			if err := c.Send(ctx, m); err != nil {
				return err // Send took m; the very buffer goes back out
			}
		}
	}

	main := func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		log.Fatal(noria.ListenAndServe(ctx, ":7001", &ws.Server{Handler: echo}))
	}
	_ = main
}

// A server and a client in one program.
func ExampleDial() {
	g, err := noria.Start()
	if err != nil {
		log.Fatal(err)
	}
	defer g.Stop()
	ls, err := g.Listen("127.0.0.1:0", noria.ServeOptions{})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- g.Serve(ctx, ls, ws.EchoServer()) }()

	err = g.Loop().Call(ctx, "client", func(ctx context.Context) error {
		c, err := ws.Dial(ctx, "ws://"+ls.Addr().String()+"/", ws.DialOptions{})
		if err != nil {
			return err
		}
		if err := c.SendText(ctx, "hello"); err != nil {
			return err
		}
		m, err := c.Receive(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("%s: %s\n", m.Type(), m.Bytes())
		m.Release()
		return c.Close(ws.StatusNormalClosure, "")
	})
	if err != nil {
		log.Fatal(err)
	}
	stop()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	// Output: text: hello
}
