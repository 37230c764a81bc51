package websocket

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A Fuzzer tests clients: it is the server that they connect to. All methods may be
// called from any goroutine. A client, the agent, speaks Autobahn's protocol of URLs,
// each with a WebSocket connection:
//
//	/getCaseCount                 one text: how many cases there are
//	/getCaseInfo?case=N           one text: {"id": …, "description": …}
//	/runCase?case=N&agent=NAME    echo every message until the end
//	/getCaseStatus?case=N&agent=NAME  one text: {"behavior": …}
//	/updateReports?agent=NAME     nothing; the run of this agent is over
//
// N counts from 1.
type Fuzzer struct {
	options  Options
	ctx      context.Context // Close ends it
	cancel   context.CancelFunc
	cases    []fuzzCase
	listener net.Listener
	started  time.Time
	closing  atomic.Bool
	wg       sync.WaitGroup
	done     chan string // agents that asked for their report

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when a result is added
	conns   map[net.Conn]bool
	results map[string]map[int]*Result // by agent and by the case's index
	running map[string]int             // how many case connections are open, by agent
	over    map[string]bool            // agents that asked for their report
	seen    map[string]bool            // keys and masks that clients have used
}

// A fuzzCase is one of Autobahn's cases or a trap.
type fuzzCase struct {
	id, description, expectation string

	run func(f *Fuzzer, conn net.Conn, br *bufio.Reader, hello clientHello, r *Result)
}

// result returns a result without a verdict.
func (c fuzzCase) result(agent string) *Result {
	return &Result{ID: c.id, Description: c.description, Expectation: c.expectation, Agent: agent}
}

// neverOpen returns the result of a case whose connection was never open.
func (c fuzzCase) neverOpen(agent, why string) *Result {
	r := c.result(agent)
	r.Behavior, r.Closing, r.Why, r.ClosingWhy = Failed, CloseFailed, why, "the connection was never open"
	return r
}

// NewFuzzer starts a Fuzzer that serves on ln until Close. It owns ln unless it returns
// an error.
func NewFuzzer(ln net.Listener, o Options) (*Fuzzer, error) {
	o = o.withDefaults()
	f := &Fuzzer{options: o, listener: ln, started: time.Now(), done: make(chan string, 16), conns: map[net.Conn]bool{}, results: map[string]map[int]*Result{}, running: map[string]int{}, over: map[string]bool{}, seen: map[string]bool{}, changed: make(chan struct{})}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	cases, err := o.cases()
	if err != nil {
		return nil, fmt.Errorf("conformance/websocket: %w", err)
	}
	for _, c := range cases {
		f.cases = append(f.cases, fuzzCase{c.ID, c.Description, c.Expectation, func(f *Fuzzer, conn net.Conn, br *bufio.Reader, hello clientHello, r *Result) {
			f.runCase(c, conn, br, hello, r)
		}})
	}
	if o.Traps {
		traps, err := clientTraps(o)
		if err != nil {
			return nil, fmt.Errorf("conformance/websocket: %w", err)
		}
		f.cases = append(f.cases, traps...)
	}
	if len(f.cases) == 0 {
		return nil, errNoCase
	}
	f.wg.Go(f.accept)
	return f, nil
}

// Addr returns the listener's address.
func (f *Fuzzer) Addr() net.Addr { return f.listener.Addr() }

// Count returns how many cases there are.
func (f *Fuzzer) Count() int { return len(f.cases) }

// ID returns the number of the n-th case, counting from 1.
func (f *Fuzzer) ID(n int) string { return f.cases[n-1].id }

// Done returns a channel that delivers the name of each agent that has asked for its
// report.
func (f *Fuzzer) Done() <-chan string { return f.done }

// Close ends all connections and waits for the cases that run.
func (f *Fuzzer) Close() error {
	f.closing.Store(true)
	f.cancel()
	err := f.listener.Close()
	f.mu.Lock()
	for c := range f.conns {
		_ = c.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
	return err
}

// Report returns the results of an agent so far. A case that the agent did not run is
// FAILED.
func (f *Fuzzer) Report(agent string) *Report { return f.report(agent, true) }

// Partial is Report for an interrupted run: if the agent has not asked for its report,
// Partial has only the cases that the agent ran.
func (f *Fuzzer) Partial(agent string) *Report {
	f.mu.Lock()
	over := f.over[agent]
	f.mu.Unlock()
	return f.report(agent, over)
}

// report includes the cases that the agent did not run if all is set.
func (f *Fuzzer) report(agent string, all bool) *Report {
	p := &Report{Role: "client", Address: f.Addr().String(), Agent: agent, Started: f.started}
	f.mu.Lock()
	for i, c := range f.cases {
		r := f.results[agent][i+1]
		if r == nil && all {
			r = c.neverOpen(agent, "the client did not connect for this case")
		}
		p.Results = append(p.Results, r)
	}
	f.mu.Unlock()
	p.finish()
	return p
}

func (f *Fuzzer) accept() {
	for {
		conn, err := f.listener.Accept()
		if err != nil {
			if f.closing.Load() || errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(10 * time.Millisecond) // perhaps there are no descriptors: they come back when cases end
			continue
		}
		f.mu.Lock()
		f.conns[conn] = true
		f.mu.Unlock()
		f.wg.Go(func() {
			f.serve(conn)
			_ = conn.Close()
			f.mu.Lock()
			delete(f.conns, conn)
			f.mu.Unlock()
		})
	}
}

// serve does what the request's path asks for.
func (f *Fuzzer) serve(conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(f.options.Patience))
	br := bufio.NewReaderSize(conn, 64<<10)
	h, err := readHead(br)
	if err != nil {
		return
	}
	hello, err := checkRequest(h)
	if hello.target == nil {
		f.refuse(conn, err)
		return
	}
	_ = conn.SetDeadline(time.Time{})
	hello.usedBefore = hello.key != "" && f.seenBefore(hello.key)
	q := hello.target.Query()
	agent := q.Get("agent")
	n, nErr := strconv.Atoi(q.Get("case"))
	valid := nErr == nil && n >= 1 && n <= len(f.cases)
	if !valid && (hello.target.Path == "/runCase" || hello.target.Path == "/getCaseInfo" || hello.target.Path == "/getCaseStatus") {
		f.refuse(conn, fmt.Errorf("there is no case %q: they go from 1 to %d", q.Get("case"), len(f.cases)))
		return
	}
	if err != nil && hello.target.Path == "/runCase" {
		r := f.cases[n-1].neverOpen(agent, "the opening handshake: "+err.Error())
		r.Request = h.raw
		f.note(agent, n, r)
	}
	if err != nil {
		f.refuse(conn, err)
		return
	}
	switch hello.target.Path {
	case "/runCase":
		c := f.cases[n-1]
		r := c.result(agent)
		r.Request = h.raw
		began := time.Now()
		f.mu.Lock()
		f.running[agent]++
		f.mu.Unlock()
		c.run(f, conn, br, hello, r)
		r.Millis = time.Since(began).Milliseconds()
		f.mu.Lock()
		f.running[agent]-- // in one step with the result, since a goroutine may wait for both
		f.put(agent, n, r)
		f.mu.Unlock()
	case "/getCaseCount":
		f.tell(conn, br, hello, len(f.cases))
	case "/getCaseInfo":
		f.tell(conn, br, hello, map[string]string{"id": f.cases[n-1].id, "description": f.cases[n-1].description})
	case "/getCaseStatus":
		behavior := Behavior("")
		f.mu.Lock()
		if r := f.results[agent][n]; r != nil {
			behavior = r.Behavior
		}
		f.mu.Unlock()
		f.tell(conn, br, hello, map[string]Behavior{"behavior": behavior})
	case "/updateReports":
		f.mu.Lock()
		f.over[agent] = true
		f.mu.Unlock()
		f.tell(conn, br, hello, nil)
		// The client may ask before its last case has been judged.
		f.await(f.ctx, func() bool { return f.running[agent] == 0 })
		select {
		case f.done <- agent:
		default: // the channel is full: its reader has stopped reading
		}
	default:
		f.refuse(conn, fmt.Errorf("there is no %s: see /getCaseCount, /runCase?case=N&agent=NAME, /updateReports?agent=NAME", (&url.URL{Path: hello.target.Path}).String()))
	}
}

func (f *Fuzzer) refuse(conn net.Conn, err error) {
	text := err.Error() + "\n"
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(text), text)
}

func (f *Fuzzer) note(agent string, n int, r *Result) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.put(agent, n, r)
}

// put is note, for callers that hold f.mu.
func (f *Fuzzer) put(agent string, n int, r *Result) {
	if f.results[agent] == nil {
		f.results[agent] = map[int]*Result{}
	}
	f.results[agent][n] = r
	close(f.changed)
	f.changed = make(chan struct{})
	if f.options.Progress != nil {
		f.options.Progress(r)
	}
}

// await waits until done reports true, or for three times Patience, and returns which.
// It calls done with f.mu held.
func (f *Fuzzer) await(ctx context.Context, done func() bool) bool {
	timer := time.NewTimer(3 * f.options.Patience)
	defer timer.Stop()
	for {
		f.mu.Lock()
		ok, changed := done(), f.changed
		f.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		case <-timer.C:
			return false
		}
	}
}

// awaitResult waits for the result of a case that the client has finished. A case to
// which the client never connected gets err as its result.
func (f *Fuzzer) awaitResult(ctx context.Context, agent string, n int, err error) {
	if !f.await(ctx, func() bool { return f.results[agent][n] != nil }) && ctx.Err() == nil {
		f.note(agent, n, f.cases[n-1].neverOpen(agent, fmt.Sprintf("the client did not connect: %v", err)))
	}
}

// seenBefore reports whether it was called with s before.
func (f *Fuzzer) seenBefore(s string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.seen[s]
	f.seen[s] = true
	return before
}

// tell sends v as a text message, unless it is nil, and closes.
func (f *Fuzzer) tell(conn net.Conn, br *bufio.Reader, hello clientHello, v any) {
	if _, err := io.WriteString(conn, hello.answer("")); err != nil {
		return
	}
	s := newSession(conn, br, true, nil)
	s.patience = f.options.Patience
	if v != nil {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err) // cannot happen: v is made of strings and numbers
		}
		s.send(text(string(b)))
	}
	s.close(1000)
	s.finish()
}

// runCase runs one of Autobahn's cases.
func (f *Fuzzer) runCase(c Case, conn net.Conn, br *bufio.Reader, hello clientHello, r *Result) {
	var agreed *deflateParams
	var header string
	if c.accept != nil {
		if agreed = choose(hello.offers, c.accept); agreed != nil {
			header = agreed.String()
		}
	}
	r.Response = hello.answer(header)
	if _, err := io.WriteString(conn, r.Response); err != nil {
		r.Behavior, r.Closing, r.Why = Failed, CloseFailed, err.Error()
		return
	}
	play(f.ctx, newSession(conn, br, true, agreed), c, f.options, r)
}

// choose picks the answer to a client's offers: the first answer in wanted that an
// offer allows. A case is written for testing a server, so the directions are swapped.
func choose(offers []deflateParams, wanted []deflateParams) *deflateParams {
	for _, w := range wanted {
		for _, o := range offers {
			p := deflateParams{clientNoContext: w.serverNoContext, clientBits: w.serverBits, serverNoContext: o.serverNoContext, serverBits: o.serverBits}
			if p.clientBits != 0 && o.clientBits == 0 || p.clientNoContext && !o.clientNoContext {
				continue // the client did not offer it
			}
			if o.clientBits > 0 && p.clientBits > o.clientBits {
				p.clientBits = o.clientBits
			}
			return &p
		}
	}
	return nil
}
