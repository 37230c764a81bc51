package websocket

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options choose the cases and how they run. The zero value runs all of Autobahn's
// cases unchanged.
type Options struct {
	// Include and Exclude select cases by number; a * matches anything: "9.*",
	// "12.1.1", "trap*". An empty Include selects all.
	Include, Exclude []string

	// Traps adds the cases that Autobahn does not have.
	Traps bool

	// Messages is the most messages that a case of groups 12 and 13 sends. 0: 1000, as
	// Autobahn does.
	Messages int

	// Parallel is how many cases run at once. 0: four for each CPU.
	Parallel int

	// Patience is how long to wait for an event that must happen. 0: 10 seconds. Only a
	// failing case waits so long, so a generous value costs nothing.
	Patience time.Duration

	// Quiet is how long to watch that nothing arrives. 0: 100 milliseconds.
	Quiet time.Duration

	// Agent names the endpoint in the report. "": the name that it gives itself.
	Agent string

	// Dial connects to the server. nil: the host of the URL is dialed.
	Dial func(ctx context.Context) (net.Conn, error)

	// TLS is for wss URLs.
	TLS *tls.Config

	// MaxMessage is the longest message that the endpoint accepts, in bytes. It adds
	// the cases about this limit; 0: not known.
	MaxMessage int64

	// HandshakeTimeout is how long the server waits for a request. It adds the cases
	// about this limit, which take so long; 0: not known.
	HandshakeTimeout time.Duration

	// Progress, if set, is called after each case, one at a time.
	Progress func(r *Result)
}

func (o Options) withDefaults() Options {
	if o.Parallel <= 0 {
		o.Parallel = 4 * goruntime.GOMAXPROCS(0)
	}
	if o.Patience <= 0 {
		o.Patience = 10 * time.Second
	}
	if o.Quiet <= 0 {
		o.Quiet = 100 * time.Millisecond
	}
	return o
}

// A run of no case would find nothing wrong, so it is an error.
var errNoCase = errors.New("conformance/websocket: the patterns select no case")

// cases returns the selected cases.
func (o Options) cases() (list []Case, err error) {
	for _, c := range Cases() {
		ok, err := selected(c.ID, o.Include, o.Exclude)
		if err != nil {
			return nil, err
		}
		if ok {
			list = append(list, c)
		}
	}
	return list, nil
}

// RunServer tests a server: the suite is its client. The URL's scheme is ws or wss, and
// the server must echo every message. RunServer waits until all cases have run. An
// error means that the suite could not run; the server's mistakes are in the report.
func RunServer(ctx context.Context, address string, o Options) (*Report, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("conformance/websocket: %w", err)
	}
	if u.Scheme != "ws" && u.Scheme != "wss" || u.Host == "" {
		return nil, fmt.Errorf("conformance/websocket: %q is not ws://HOST/ or wss://HOST/", address)
	}
	if u.Path == "" {
		u.Path = "/"
	}
	o = o.withDefaults()
	t := &target{url: u, options: o}
	cases, err := o.cases()
	if err != nil {
		return nil, fmt.Errorf("conformance/websocket: %w", err)
	}
	jobs := make([]func() *Result, 0, len(cases))
	for _, c := range cases {
		jobs = append(jobs, func() *Result { return t.run(ctx, c) })
	}
	if o.Traps {
		traps, err := t.traps()
		if err != nil {
			return nil, fmt.Errorf("conformance/websocket: %w", err)
		}
		for _, c := range traps {
			jobs = append(jobs, func() *Result { return t.runTrap(ctx, c) })
		}
	}
	if len(jobs) == 0 {
		return nil, errNoCase
	}
	conn, err := t.dial(ctx) // if no server listens there, that is one error, not 517 failures
	if err != nil {
		return nil, fmt.Errorf("conformance/websocket: %w", err)
	}
	_ = conn.Close()

	report := &Report{Role: "server", Address: address, Started: time.Now()}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		slots = make(chan struct{}, o.Parallel)
	)
	report.Results = make([]*Result, len(jobs))
	for i, job := range jobs {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			r := job()
			mu.Lock()
			defer mu.Unlock()
			report.Results[i] = r
			if o.Progress != nil {
				o.Progress(r)
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("conformance/websocket: %w", context.Cause(ctx))
	}
	report.finish()
	return report, nil
}

// A target is a server under test.
type target struct {
	url     *url.URL
	options Options
}

func (t *target) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, t.options.Patience)
	defer cancel()
	if t.options.Dial != nil {
		return t.options.Dial(ctx)
	}
	host := t.url.Host
	if t.url.Port() == "" {
		host = net.JoinHostPort(t.url.Hostname(), map[string]string{"ws": "80", "wss": "443"}[t.url.Scheme])
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", host)
	if err != nil || t.url.Scheme == "ws" {
		return conn, err
	}
	config := t.options.TLS.Clone()
	if config == nil {
		config = &tls.Config{}
	}
	if config.ServerName == "" {
		config.ServerName = t.url.Hostname()
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secure, nil
}

// connect dials and does the opening handshake.
func (t *target) connect(ctx context.Context, q *request, key string, offers []deflateParams, r *Result) (net.Conn, *bufio.Reader, *deflateParams, error) {
	conn, err := t.dial(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(t.options.Patience))
	r.Request = q.String()
	br := bufio.NewReaderSize(conn, 64<<10)
	if _, err = io.WriteString(conn, r.Request); err == nil {
		var h head
		h, err = readHead(br)
		r.Response = h.raw
		if r.Agent = h.get("server"); r.Agent == "" {
			r.Agent = t.url.Host
		}
		if t.options.Agent != "" {
			r.Agent = t.options.Agent
		}
		if err == nil {
			var agreed *deflateParams
			if agreed, err = checkAnswer(h, key, offers); err == nil {
				_ = conn.SetDeadline(time.Time{})
				return conn, br, agreed, nil
			}
		}
	}
	_ = conn.Close()
	return nil, nil, nil, fmt.Errorf("the opening handshake: %w", err)
}

// run runs a case on a new connection.
func (t *target) run(ctx context.Context, c Case) *Result {
	r := &Result{ID: c.ID, Description: c.Description, Expectation: c.Expectation, Agent: t.options.Agent}
	began := time.Now()
	defer func() { r.Millis = time.Since(began).Milliseconds() }()
	key := newKey()
	conn, br, agreed, err := t.connect(ctx, newRequest(t.url, key, c.offers), key, c.offers, r)
	if err != nil {
		r.Behavior, r.Closing, r.Why, r.ClosingWhy = Failed, CloseFailed, err.Error(), "the connection was never open"
		return r
	}
	play(ctx, newSession(conn, br, false, agreed), c, t.options, r)
	return r
}

// play runs a case's script and sets its verdicts.
func play(ctx context.Context, s *session, c Case, o Options, r *Result) {
	defer context.AfterFunc(ctx, func() { _ = s.conn.Close() })()
	s.patience, s.quiet, s.messages, s.strict, s.expect = o.Patience, o.Quiet, o.Messages, c.strict, c.expect
	s.mu.Lock()
	s.owed = c.expect.size()
	s.mu.Unlock()
	c.run(s)
	s.finish()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.judge(r)
	if s.hasRemoteCode {
		r.RemoteCode = &s.remoteCode
	}
	r.Log = s.log
}

// A Report has the results of a run.
type Report struct {
	Role    string    `json:"role"` // of the endpoint under test: "server" or "client"
	Address string    `json:"address"`
	Agent   string    `json:"agent"`
	Started time.Time `json:"started"`
	Millis  int64     `json:"duration"` // milliseconds
	Results []*Result `json:"results"`
}

func (p *Report) finish() {
	p.Millis = time.Since(p.Started).Milliseconds()
	p.Results = slices.DeleteFunc(p.Results, func(r *Result) bool { return r == nil })
	slices.SortStableFunc(p.Results, func(a, b *Result) int { return compareIDs(a.ID, b.ID) })
	for _, r := range p.Results {
		if p.Agent = r.Agent; p.Agent != "" {
			break
		}
	}
}

// Failures returns the results that are not Passed.
func (p *Report) Failures() (list []*Result) {
	for _, r := range p.Results {
		if !r.Passed() {
			list = append(list, r)
		}
	}
	return list
}

// Imperfect returns the results that are not Perfect.
func (p *Report) Imperfect() (list []*Result) {
	for _, r := range p.Results {
		if !r.Perfect() {
			list = append(list, r)
		}
	}
	return list
}

// Summary returns a line of counts.
func (p *Report) Summary() string {
	counts := map[string]int{}
	for _, r := range p.Results {
		counts[string(r.Behavior)]++
		if r.Closing != CloseOK && r.Closing != CloseInformational {
			counts["close "+string(r.Closing)]++
		}
	}
	var s []string
	for _, k := range []string{"OK", "INFORMATIONAL", "NON-STRICT", "UNIMPLEMENTED", "FAILED", "close UNCLEAN", "close WRONG CODE", "close FAILED BY CLIENT", "close FAILED"} {
		if n := counts[k]; n > 0 {
			s = append(s, fmt.Sprintf("%d %s", n, k))
		}
	}
	return fmt.Sprintf("%d cases in %.1f s: %s", len(p.Results), float64(p.Millis)/1000, strings.Join(s, ", "))
}
