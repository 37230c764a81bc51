package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"sync"
	"time"

	"github.com/noria-go/noria/conformance/websocket"
	gobwas "github.com/noria-go/noria/examples/gobwas/echo"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/runtime/epoll"
	"github.com/noria-go/noria/runtime/uring"
	"github.com/noria-go/noria/ws"
)

// A backend makes runtimes.
type backend struct {
	name string
	make func(int) (runtime.Runtime, error)
}

var backends = []backend{
	{"io_uring", func(int) (runtime.Runtime, error) { return uring.New(uring.Options{}) }},
	{"epoll", func(int) (runtime.Runtime, error) { return epoll.New(epoll.Options{}) }},
}

// An endpoint is tested as a server and as a client.
type endpoint struct {
	name    string
	exclude []string // cases about features that it does not have
	server  loop.Service
	client  func(ctx context.Context, url string) error // echoes until the connection ends; it is a task
}

const maxMessage = 16<<20 + 1 // one byte more than the longest message that Autobahn sends

// endpoints returns package ws, and examples/gobwas, which has no compression.
func endpoints() []endpoint {
	const drain = 100 * time.Millisecond
	options := ws.Options{
		MaxMessage: maxMessage,
		// Each message is compressed, because kosoku fails on an uncompressed echo.
		Compression: &ws.Compression{Threshold: -1},
		Logger:      slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	client := options
	client.CloseTimeout = time.Second
	// Without this, a client's offer does not let Autobahn's server ask for the
	// parameters of group 13.
	client.Compression = &ws.Compression{Threshold: -1, ClientNoContextTakeover: true}
	ported := gobwas.Options{MaxMessage: maxMessage, CloseTimeout: time.Second}
	portedServer := gobwas.Server(ported)
	portedServer.DrainTime = drain
	return []endpoint{{
		name:   "ws",
		server: &ws.Server{Handler: echo, Options: options, DrainTime: drain},
		client: func(ctx context.Context, url string) error {
			c, err := ws.Dial(ctx, url, ws.DialOptions{Options: client})
			if err != nil {
				return err
			}
			err = echo(ctx, c)
			_ = c.Close(ws.StatusNormalClosure, "") // Close waits until the answer to the peer's close frame has been sent
			return err
		},
	}, {
		name:    "gobwas",
		exclude: []string{"12.*", "13.*"},
		server:  portedServer,
		client:  func(ctx context.Context, url string) error { return gobwas.Client(ctx, url, ported) },
	}}
}

// echo sends every message of c back until the peer closes.
func echo(ctx context.Context, c *ws.Conn) error {
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

// each calls f for every selected endpoint on every backend.
func (r *runner) each(role string, f func(name string, g *loop.Group, e endpoint) error) error {
	for _, e := range endpoints() {
		e.exclude = append(e.exclude, r.exclude()...)
		for _, b := range backends {
			name := fmt.Sprintf("%s/%s/%s", role, e.name, b.name)
			if !r.wants(name) {
				continue
			}
			g, err := loop.StartGroup(loop.GroupOptions{Loops: 1, New: b.make})
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			err = f(name, g, e)
			if stopErr := g.Stop(); err == nil {
				err = stopErr
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

// servers tests the servers with kosoku and with the suite.
func (r *runner) servers(ctx context.Context) error {
	return r.each("server", func(name string, g *loop.Group, e endpoint) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		ls, err := g.Listen("127.0.0.1:0", loop.ListenOptions{})
		if err != nil {
			return err
		}
		served := make(chan error, 1)
		go func() { served <- g.Serve(ctx, ls, e.server) }()
		url := fmt.Sprintf("ws://%s/", ls.Addr())
		err = r.kosokuServers(ctx, 1, []job{{Name: name, URL: url, Exclude: e.exclude}}, func(name string, theirs map[string]verdict) error {
			ours, err := websocket.RunServer(ctx, url, websocket.Options{Exclude: e.exclude, Patience: 10 * time.Second})
			if err == nil {
				r.compare(name, theirs, ours, true)
			}
			return err
		})
		cancel()
		if serveErr := <-served; err == nil {
			err = serveErr
		}
		return err
	})
}

// clients tests the clients with kosoku and with the suite.
func (r *runner) clients(ctx context.Context) error {
	return r.each("client", func(name string, g *loop.Group, e endpoint) error {
		run := func(ctx context.Context, url string) error {
			return g.Loops()[0].Call(ctx, "agent", func(ctx context.Context) error { return e.client(ctx, url) })
		}
		theirs, err := r.kosokuClient(ctx, run, e.exclude)
		if err != nil {
			return err
		}
		ours, err := websocket.RunClient(ctx, run, websocket.Options{Exclude: e.exclude, Patience: 10 * time.Second})
		if err == nil {
			r.compare(name, theirs, ours, true)
		}
		return err
	})
}

// kosokuClient tests a client with kosoku's fuzzing server.
func (r *runner) kosokuClient(ctx context.Context, run func(ctx context.Context, url string) error, exclude []string) (map[string]verdict, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.python, append([]string{"-c", serverScript}, exclude...)...)
	p, err := startScript(cmd)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	var ready struct {
		Address string `json:"address"`
		Cases   int    `json:"cases"`
	}
	if err := p.next(&ready); err != nil {
		return nil, err
	}
	// The cases run concurrently: a case that waits does not hold up the rest.
	var wg sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i := range ready.Cases {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
			defer cancel()
			_ = run(ctx, fmt.Sprintf("ws://%s/runCase?case=%d&agent=noria", ready.Address, i+1)) // the verdict says what went wrong
		})
	}
	wg.Wait()
	_ = run(ctx, fmt.Sprintf("ws://%s/updateReports?agent=noria", ready.Address))
	var result struct {
		Verdicts map[string]verdict `json:"verdicts"`
	}
	if err := p.next(&result); err != nil {
		return nil, err
	}
	return result.Verdicts, nil
}
