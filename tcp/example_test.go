package tcp_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"

	"github.com/noria-go/noria"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/tcp"
)

// An echo server. A program that only serves calls noria.ListenAndServe in
// place of Start, Listen and Serve.
func ExampleServer() {
	srv := &tcp.Server{Handler: func(ctx context.Context, c *loop.Stream) error {
		_, err := io.Copy(c, c) // hands the buffers over and copies nothing
		return err
	}}
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
	go func() { served <- group.Serve(ctx, ls, srv) }()

	conn, err := net.Dial("tcp", ls.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(conn, "hello")
	_ = conn.(*net.TCPConn).CloseWrite()
	answer, err := io.ReadAll(conn)
	fmt.Println(string(answer), err)
	_ = conn.Close()

	stop() // drains
	fmt.Println(<-served, group.Stop())
	// Output:
	// hello <nil>
	// <nil> <nil>
}
