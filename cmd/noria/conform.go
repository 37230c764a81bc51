package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/noria-go/noria/conformance/websocket"
)

const conformText = `noria conform [FLAGS] ws://HOST/
noria conform [FLAGS] --listen ADDRESS

Tests a WebSocket server that sends every message back. With --listen, it is
itself the server, and tests the clients that connect to it. It runs the 517
cases of the Autobahn test suite, under their numbers, and cases that Autobahn
does not have ("trap*").

A client under test does as with Autobahn's fuzzing server: it reads
/getCaseCount, connects to /runCase?case=N&agent=NAME for each N from 1 on, sends
every message back, and ends with /updateReports?agent=NAME. Then the program
prints the client's report and waits for other clients, or ends if --once is
given. At a SIGINT it reports on the clients that have not finished: only on the
cases that they ran, or, with --once, on all cases.

The exit status is 1 if a case failed or no case ran. Patterns choose the cases:
--cases '1.*,9.7.1,trap02*'.`

// A conformConfig holds the flags.
type conformConfig struct {
	url, listen           string
	cases, exclude        string
	json, dir             string
	verbose, strict, once bool
	insecure, noTraps     bool
	options               websocket.Options

	reports []*websocket.Report // the last of each agent
}

func conform(args []string) int {
	var c conformConfig
	fs := newFlags("conform", conformText)
	fs.StringVar(&c.listen, "listen", "", "`address` to be the server at, for clients under test")
	fs.StringVar(&c.cases, "cases", "", "`patterns` of the cases to run; all by default")
	fs.StringVar(&c.exclude, "exclude", "", "`patterns` of cases not to run")
	fs.BoolVar(&c.noTraps, "autobahn", false, "only the cases that Autobahn has")
	fs.IntVar(&c.options.Messages, "messages", 0, "at most so many messages a case in groups 12 and 13; 0: 1000, as Autobahn does")
	fs.IntVar(&c.options.Parallel, "parallel", 0, "how many cases run at once; 0: four for each CPU")
	fs.DurationVar(&c.options.Patience, "patience", 10*time.Second, "how long to wait for an answer that must arrive")
	fs.DurationVar(&c.options.Quiet, "quiet", 100*time.Millisecond, "how long to watch that nothing arrives")
	fs.DurationVar(&c.options.HandshakeTimeout, "handshake-timeout", 0, "how long the server under test waits for a request; adds the cases about it")
	fs.Int64Var(&c.options.MaxMessage, "max-message", 0, "the most `bytes` that the endpoint accepts in a message; adds the cases about it")
	fs.StringVar(&c.options.Agent, "agent", "", "`name` of the server under test in the report")
	fs.BoolVar(&c.insecure, "insecure", false, "do not verify the certificate of a wss server")
	fs.StringVar(&c.json, "json", "", "write the report as JSON to this `file`, those of several clients one after another; - is the standard output")
	fs.StringVar(&c.dir, "report", "", "write index.json and a file for each case to this `directory`, as Autobahn does")
	fs.BoolVar(&c.strict, "strict", false, "NON-STRICT and UNIMPLEMENTED are failures too")
	fs.BoolVar(&c.once, "once", false, "with --listen: end after the first client's report")
	fs.BoolVar(&c.verbose, "v", false, "a line for every case")
	args, c.url = splitURL(fs, args)
	if status, ok := parse(fs, args); !ok {
		return status
	}
	if (c.url == "") == (c.listen == "") {
		fmt.Fprintln(os.Stderr, "noria conform: give a server's URL, or --listen and an address; --help says more")
		return 2
	}
	c.options.Include, c.options.Exclude, c.options.Traps = patterns(c.cases), patterns(c.exclude), !c.noTraps
	if c.insecure {
		c.options.TLS = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // it was asked for
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := c.server
	if c.listen != "" {
		run = c.clients
	}
	good, err := run(ctx, os.Stdout)
	if err != nil {
		return fail(err)
	}
	if !good {
		return 1
	}
	return 0
}

func patterns(s string) (list []string) {
	for p := range strings.SplitSeq(s, ",") {
		if p = strings.TrimSpace(p); p != "" {
			list = append(list, p)
		}
	}
	return list
}

// server tests the server at c.url.
func (c *conformConfig) server(ctx context.Context, out io.Writer) (good bool, err error) {
	p, err := websocket.RunServer(ctx, c.url, c.options)
	if err != nil {
		return false, err
	}
	return c.report(p, out)
}

// clients tests clients until ctx ends or, with --once, until the first one has its
// report.
func (c *conformConfig) clients(ctx context.Context, out io.Writer) (good bool, err error) {
	ln, err := net.Listen("tcp", c.listen)
	if err != nil {
		return false, err
	}
	var (
		mu         sync.Mutex
		unreported = map[string]bool{} // agents that have run cases since their last report
	)
	c.options.Progress = func(r *websocket.Result) {
		mu.Lock()
		defer mu.Unlock()
		unreported[r.Agent] = true
	}
	f, err := websocket.NewFuzzer(ln, c.options)
	if err != nil {
		return false, errors.Join(err, ln.Close())
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	fmt.Fprintf(os.Stderr, "%d cases at ws://%s/runCase?case=N&agent=NAME\n", f.Count(), f.Addr())
	good = true
	report := func(agent string, of func(agent string) *websocket.Report) error {
		mu.Lock()
		delete(unreported, agent)
		mu.Unlock()
		ok, err := c.report(of(agent), out)
		good = good && ok
		return err
	}
	for {
		select {
		case agent := <-f.Done():
			if err := report(agent, f.Report); err != nil || c.once {
				return good, err
			}
		case <-ctx.Done():
			mu.Lock()
			rest := slices.Sorted(maps.Keys(unreported))
			mu.Unlock()
			of := f.Partial
			if c.once { // --once asks for one complete run, and this one was cut short
				of = f.Report
			}
			for _, agent := range rest { // these agents ran cases and did not ask for their report
				err = errors.Join(err, report(agent, of))
			}
			if len(c.reports) == 0 {
				return false, errors.New("no client has run a case")
			}
			return good, err
		}
	}
}

// report writes p to each place that the flags name. Files also hold the reports of
// other agents.
func (c *conformConfig) report(p *websocket.Report, out io.Writer) (good bool, err error) {
	good = len(p.Failures()) == 0
	if c.strict {
		good = len(p.Imperfect()) == 0
	}
	c.reports = append(slices.DeleteFunc(c.reports, func(q *websocket.Report) bool { return q.Agent == p.Agent }), p)
	if c.json != "-" {
		err = p.WriteText(out, c.verbose)
	}
	switch c.json {
	case "":
	case "-":
		err = errors.Join(err, p.WriteJSON(out))
	default:
		err = errors.Join(err, c.writeJSON())
	}
	if c.dir != "" {
		var all websocket.Report
		for _, q := range c.reports {
			all.Results = append(all.Results, q.Results...)
		}
		err = errors.Join(err, all.WriteIndex(c.dir))
	}
	return good, err
}

// writeJSON writes all reports to the file, one after another.
func (c *conformConfig) writeJSON() error {
	f, err := os.Create(c.json)
	if err != nil {
		return err
	}
	for _, p := range c.reports {
		err = errors.Join(err, p.WriteJSON(f))
	}
	return errors.Join(err, f.Close())
}
