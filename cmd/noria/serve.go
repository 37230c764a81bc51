package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/noria-go/noria"
	"github.com/noria-go/noria/internal/backends"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/tcp"
	"github.com/noria-go/noria/ws"
)

const (
	defaultTCP = "127.0.0.1:7000"
	defaultWS  = "127.0.0.1:7001"

	maxEchoed = 64 << 20 // bytes of a WebSocket message
)

const serveText = `Usage: noria serve [--tcp ADDR] [--ws ADDR] [FLAGS]

Serves echoes over TCP and over WebSocket. ADDR is host:port, :port or
unix:/path; with port 0 the system chooses a port, which the program prints. If
no address is given, the default is --tcp ` + defaultTCP + `
--ws ` + defaultWS + `.

The WebSocket echo is on every path. A browser that opens / gets a page that
connects and shows round-trip times and throughput. --tls-cert and --tls-key make
it https and wss.

SIGINT or SIGTERM ends the program when the connections have ended, or after
--drain. A second signal ends it at once.`

// A serveConfig holds the flags.
type serveConfig struct {
	tcp, ws   string
	drain     time.Duration
	goroutine bool
	options   noria.Options

	compress        bool
	maxMessage      int64
	tlsCert, tlsKey string
}

func serve(args []string) int {
	c := serveConfig{}
	fs := newFlags("serve", serveText)
	fs.StringVar(&c.tcp, "tcp", "", "`address` of the TCP echo")
	fs.StringVar(&c.ws, "ws", "", "`address` of the WebSocket echo")
	fs.StringVar(&c.options.Backend, "backend", "auto", "auto, io_uring or epoll; "+backends.Variable+" in the environment overrides it")
	fs.IntVar(&c.options.Loops, "loops", 0, fmt.Sprintf("`number` of loops, at most %d; 0: one less than CPUs, at least one", loop.MaxLoops))
	fs.BoolVar(&c.options.Pin, "pin", false, "pin each loop to a CPU of its own")
	fs.BoolVar(&c.goroutine, "goroutine", false, "run each handler on a goroutine in place of the connection's loop")
	fs.DurationVar(&c.drain, "drain", tcp.DefaultDrainTime, "how long connections may last after the signal")
	fs.BoolVar(&c.compress, "compress", false, "agree to compress WebSocket messages (permessage-deflate)")
	fs.Int64Var(&c.maxMessage, "max-message", maxEchoed, "the most `bytes` that a WebSocket message may have; a longer one gets close code 1009")
	fs.StringVar(&c.tlsCert, "tls-cert", "", "PEM `file` with the WebSocket echo's certificate, and its intermediate certificates")
	fs.StringVar(&c.tlsKey, "tls-key", "", "PEM `file` with the certificate's key")
	if status, ok := parse(fs, args); !ok {
		return status
	}
	if c.tcp == "" && c.ws == "" {
		c.tcp, c.ws = defaultTCP, defaultWS
	}
	ctx, stop := stopOnSignal(context.Background())
	defer stop()
	if err := c.run(ctx, os.Stdout); err != nil {
		return fail(err)
	}
	return 0
}

// stopOnSignal returns a context that the first SIGINT or SIGTERM ends. The second
// signal ends the program.
func stopOnSignal(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case s := <-signals:
			cancel()
			say("noria: %v: draining; a second signal ends the program at once\n", s)
		case <-ctx.Done():
			return
		}
		s := <-signals
		say("noria: %v again: not waiting for connections\n", s)
		os.Exit(1)
	}()
	return ctx, cancel
}

// say writes to standard error. It does not wait long: standard error may be a full
// pipe, and a signal must end the program all the same.
func say(format string, args ...any) {
	said := make(chan struct{})
	go func() {
		defer close(said)
		fmt.Fprintf(os.Stderr, format, args...)
	}()
	select {
	case <-said:
	case <-time.After(100 * time.Millisecond):
	}
}

// An endpoint is a service and the address where it listens.
type endpoint struct {
	name, address string
	service       loop.Service
	listeners     *loop.Listeners
}

func (c *serveConfig) endpoints() (list []*endpoint, err error) {
	drain := c.drain
	if drain <= 0 {
		drain = -1 // at once; 0 would mean the default
	}
	if c.tcp != "" {
		echo := func(_ context.Context, conn *loop.Stream) error {
			_, err := io.Copy(conn, conn) // Copy hands over the buffers and copies no byte
			return err
		}
		list = append(list, &endpoint{name: "tcp", address: c.tcp, service: &tcp.Server{
			Handler: echo, OnGoroutine: c.goroutine, DrainTime: drain}})
	}
	if c.ws == "" && (c.tlsCert != "" || c.tlsKey != "") {
		return nil, errors.New("--tls-cert and --tls-key are for the WebSocket echo: give --ws too")
	}
	if c.ws != "" {
		srv, err := c.webSocket()
		if err != nil {
			return nil, err
		}
		srv.OnGoroutine, srv.DrainTime = c.goroutine, drain
		list = append(list, &endpoint{name: "ws", address: c.ws, service: srv})
	}
	return list, nil
}

// webSocket returns the WebSocket echo, with its page.
func (c *serveConfig) webSocket() (*ws.Server, error) {
	if c.maxMessage <= 0 {
		return nil, fmt.Errorf("--max-message %d: want 1 or more bytes", c.maxMessage)
	}
	srv := &ws.Server{Handler: echoMessages, Options: ws.Options{MaxMessage: c.maxMessage}, HandleHTTP: page}
	if c.compress {
		srv.Compression = &ws.Compression{}
	}
	if (c.tlsCert == "") != (c.tlsKey == "") {
		return nil, errors.New("--tls-cert and --tls-key go together: give both, or neither")
	}
	if c.tlsCert != "" {
		cert, err := tls.LoadX509KeyPair(c.tlsCert, c.tlsKey)
		if err != nil {
			return nil, fmt.Errorf("--tls-cert, --tls-key: %w", err)
		}
		srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	return srv, nil
}

// echoMessages sends every message of c back until the peer closes.
func echoMessages(ctx context.Context, c *ws.Conn) error {
	for {
		m, err := c.Receive(ctx)
		if err != nil {
			return err
		}
		if err := c.Send(ctx, m); err != nil {
			return err
		}
	}
}

// run serves until ctx ends and all connections have ended.
func (c *serveConfig) run(ctx context.Context, out io.Writer) (err error) {
	endpoints, err := c.endpoints()
	if err != nil {
		return err
	}
	g, err := noria.Start(c.options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Stop()) }()
	for i, e := range endpoints {
		if e.listeners, err = g.Listen(e.address, loop.ListenOptions{}); err != nil {
			for _, opened := range endpoints[:i] {
				err = errors.Join(err, opened.listeners.Close())
			}
			return explainListen(err, e)
		}
	}
	for _, e := range endpoints {
		fmt.Fprintf(out, "%s echo on %s\n", e.name, where(e.listeners.Addr()))
		if url := pageURL(e.listeners.Addr(), c.tlsCert != ""); e.name == "ws" && url != "" {
			fmt.Fprintf(out, "page %s\n", url)
		}
	}
	info := g.Info()
	fmt.Fprintf(out, "backend %s, kernel %s (%s)\n", info.Backend, info.Kernel, info.Reason)
	fmt.Fprintf(out, "loops %d\n", len(g.Loops()))
	return serveAll(ctx, g, endpoints)
}

// serveAll serves all endpoints and returns when all of them have ended. An endpoint
// that fails ends the others.
func serveAll(ctx context.Context, g *loop.Group, endpoints []*endpoint) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(endpoints))
	var wg sync.WaitGroup
	for i, e := range endpoints {
		wg.Go(func() {
			defer cancel()
			if err := g.Serve(ctx, e.listeners, e.service); err != nil {
				errs[i] = fmt.Errorf("%s echo on %s: %w", e.name, e.address, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func explainListen(err error, e *endpoint) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s echo: %s is in use by another program, or by this one twice: %w", e.name, e.address, err)
	}
	return fmt.Errorf("%s echo: %w", e.name, err)
}

func where(a net.Addr) string {
	if a.Network() == "unix" {
		return "unix:" + a.String()
	}
	return a.String()
}
