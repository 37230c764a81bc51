package noria_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"

	"github.com/noria-go/noria"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/tcp"
)

// A whole TCP server. It ends with an interrupt, after its connections have.
func ExampleListenAndServe() {
	main := func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		srv := &tcp.Server{Handler: func(_ context.Context, c *loop.Stream) error {
			_, err := io.Copy(c, c) // hands over the buffers: no byte is copied
			return err
		}}
		if err := noria.ListenAndServe(ctx, ":7000", srv, noria.Options{}); err != nil {
			log.Fatal(err)
		}
	}
	_ = main // it would not end
}

// A program that starts its own group of loops can do more than serve: this one
// is its own client.
func ExampleStart() {
	group, err := noria.Start(noria.Options{Loops: 1})
	if err != nil {
		log.Fatal(err)
	}
	ls, err := group.Listen("127.0.0.1:0", loop.ListenOptions{})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error)
	go func() {
		served <- group.Serve(ctx, ls, &tcp.Server{Handler: func(_ context.Context, c *loop.Stream) error {
			_, err := io.Copy(c, c)
			return err
		}})
	}()
	c, err := net.Dial("tcp", ls.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	_, _ = io.WriteString(c, "hello")
	_ = c.(*net.TCPConn).CloseWrite()
	answer, err := io.ReadAll(c)
	fmt.Println(string(answer), err)
	_ = c.Close()
	stop()
	fmt.Println(<-served, group.Stop())
	// Output:
	// hello <nil>
	// <nil> <nil>
}
