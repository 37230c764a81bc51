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

// each calls f for every engine on every backend that is wanted.
func (r *runner) each(role string, f func(name string, g *loop.Group, o ws.Options) error) error {
	for _, engine := range []ws.Engine{ws.Native, ws.Adapter} {
		for _, b := range backends {
			name := fmt.Sprintf("%s/%s/%s", role, engine, b.name)
			if !r.wants(name) {
				continue
			}
			g, err := loop.StartGroup(loop.GroupOptions{Loops: 1, New: b.make})
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			err = f(name, g, ws.Options{
				Engine:     engine,
				MaxMessage: 16<<20 + 1,
				// Each message is compressed: kosoku stumbles over one that comes
				// back as it is. Without this, a client's offer does not let
				// Autobahn's server ask for what group 13 is about.
				Compression: &ws.Compression{Threshold: -1, ClientNoContextTakeover: role == "client"},
				Logger:      slog.New(slog.NewTextHandler(io.Discard, nil)),
			})
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

// servers has kosoku and the suite test ws's servers.
func (r *runner) servers(ctx context.Context) error {
	return r.each("server", func(name string, g *loop.Group, o ws.Options) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		ls, err := g.Listen("127.0.0.1:0", loop.ServeOptions{})
		if err != nil {
			return err
		}
		served := make(chan error, 1)
		go func() {
			served <- g.Serve(ctx, ls, &ws.Server{Handler: ws.Echo, Options: o, DrainTime: 100 * time.Millisecond})
		}()
		url := fmt.Sprintf("ws://%s/", ls.Addr())
		err = r.kosokuServers(ctx, 1, []job{{Name: name, URL: url, Exclude: r.exclude()}}, func(name string, theirs map[string]verdict) error {
			ours, err := websocket.RunServer(ctx, url, websocket.Options{Exclude: r.exclude(), Patience: 10 * time.Second})
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

// agent is a client under test: it echoes on a connection until that ends.
func agent(g *loop.Group, o ws.Options) func(ctx context.Context, url string) error {
	o.CloseTimeout = time.Second
	return func(ctx context.Context, url string) error {
		return g.Loops()[0].Call(ctx, "agent", func(ctx context.Context) error {
			c, err := ws.Dial(ctx, url, ws.DialOptions{Options: o})
			if err != nil {
				return err
			}
			err = ws.Echo(ctx, c)
			_ = c.Close(ws.StatusNormalClosure, "") // waits until the answer to the peer's close is out
			return err
		})
	}
}

// clients has kosoku and the suite test ws's clients.
func (r *runner) clients(ctx context.Context) error {
	return r.each("client", func(name string, g *loop.Group, o ws.Options) error {
		run := agent(g, o)
		theirs, err := r.kosokuClient(ctx, run)
		if err != nil {
			return err
		}
		ours, err := websocket.RunClient(ctx, run, websocket.Options{Exclude: r.exclude(), Patience: 10 * time.Second})
		if err == nil {
			r.compare(name, theirs, ours, true)
		}
		return err
	})
}

// kosokuClient has kosoku's fuzzing server test a client.
func (r *runner) kosokuClient(ctx context.Context, run func(ctx context.Context, url string) error) (map[string]verdict, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.python, append([]string{"-c", serverScript}, r.exclude()...)...)
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
	// Cases may run beside each other: those that wait do not hold up others.
	var wg sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i := range ready.Cases {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
			defer cancel()
			_ = run(ctx, fmt.Sprintf("ws://%s/runCase?case=%d&agent=noria", ready.Address, i+1)) // the verdict says what is wrong
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
