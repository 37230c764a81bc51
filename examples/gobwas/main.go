// Command gobwas is a WebSocket echo, server or client, on gobwas/ws, a synchronous
// library, over compat.GrowableSyncStream. Package echo beside it is the port.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/noria-go/noria"
	"github.com/noria-go/noria/examples/gobwas/echo"
	"github.com/noria-go/noria/loop"
)

func main() {
	var (
		o       echo.Options
		backend noria.Options
	)
	address := flag.String("addr", "127.0.0.1:7001", "where to listen")
	connect := flag.String("connect", "", "connect to this ws `URL` and send every message back")
	say := flag.String("say", "", "with -connect: send this `text`, print the answer, and close")
	flag.StringVar(&backend.Backend, "backend", "auto", "auto, io_uring or epoll")
	flag.IntVar(&o.MaxMessage, "max-message", 32<<20, "the most `bytes` that a message may have")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, backend, *address, *connect, *say, o); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, backend noria.Options, address, connect, say string, o echo.Options) (err error) {
	g, err := noria.Start(backend)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Stop()) }()
	if connect == "" {
		return serve(ctx, g, address, o)
	}
	answer := ""
	err = g.Loop().Call(ctx, "client", func(ctx context.Context) (err error) {
		if say == "" {
			return echo.Client(ctx, connect, o)
		}
		answer, err = echo.Say(ctx, connect, say, o)
		return err
	})
	if err == nil && say != "" {
		fmt.Println(answer)
	}
	return err
}

// serve serves until ctx ends and the connections have drained.
func serve(ctx context.Context, g *loop.Group, address string, o echo.Options) error {
	ls, err := g.Listen(address, loop.ListenOptions{})
	if err != nil {
		return err
	}
	log.Printf("ws://%s", ls.Addr())
	return g.Serve(ctx, ls, echo.Server(o))
}
