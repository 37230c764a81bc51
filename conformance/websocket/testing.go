package websocket

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
)

// TB is the part of testing.TB that TestServer and TestClient need.
type TB interface {
	Helper()
	Context() context.Context
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// TestServer is RunServer in a test: each case that is not Perfect is an error of the
// test. It returns the report.
func TestServer(t TB, url string, o Options) *Report {
	t.Helper()
	p, err := RunServer(t.Context(), url, o)
	if err != nil {
		t.Fatalf("%v", err)
	}
	check(t, p)
	return p
}

// TestClient tests a client. It calls run for each case, from several goroutines at
// once. run must connect to the URL, send every message back until the connection ends,
// and return. Its error is only logged, since a client that fails a connection may well
// return one.
func TestClient(t TB, run func(ctx context.Context, url string) error, o Options) *Report {
	t.Helper()
	p, err := RunClient(t.Context(), run, o)
	if err != nil {
		t.Fatalf("%v", err)
	}
	check(t, p)
	return p
}

// RunClient is TestClient outside a test.
func RunClient(ctx context.Context, run func(ctx context.Context, url string) error, o Options) (*Report, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("conformance/websocket: %w", err)
	}
	f, err := NewFuzzer(ln, o)
	if err != nil {
		_ = ln.Close()
		return nil, err
	}
	defer f.Close()
	o = o.withDefaults()
	agent := o.Agent
	if agent == "" {
		agent = "client"
	}
	slots := make(chan struct{}, o.Parallel)
	var wg sync.WaitGroup
	for i := range f.Count() {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			err := run(ctx, fmt.Sprintf("ws://%s/runCase?case=%d&agent=%s", f.Addr(), i+1, agent))
			f.awaitResult(ctx, agent, i+1, err)
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("conformance/websocket: %w", context.Cause(ctx))
	}
	return f.Report(agent), nil
}

func check(t TB, p *Report) {
	t.Helper()
	bad := p.Imperfect()
	t.Logf("%s", p.Summary())
	for i, r := range bad {
		if i == 20 {
			t.Errorf("and %d more", len(bad)-i)
			break
		}
		t.Errorf("%s\n  what:     %s\n  expected: %s\n  log:      %s", r, r.Description, r.Expectation, strings.Join(r.Log[:min(len(r.Log), 30)], "\n            "))
	}
}
