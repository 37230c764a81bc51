package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/noria-go/noria"
	"github.com/noria-go/noria/internal/backends"
	"github.com/noria-go/noria/ws"
)

const connectText = `Usage: noria connect [FLAGS] URL
       noria connect --autobahn [--agent NAME] URL

Opens a WebSocket connection (ws://host:port/path, or wss://). Each line of the
standard input is sent as a text message, and each message that arrives is
printed as a line. Binary messages are printed in hex; on a terminal, control
characters other than tabs are printed in hex too. With --binary, bytes are sent
and printed unchanged, in messages of up to 32 KiB. After the end of the input
the connection is closed once no whole message has arrived for --wait, which
must be longer than a message takes to arrive.

--message sends one message, prints one, and closes. --ping pings and prints how
long each pong took. --frames prints each frame on the standard error: its header
as it is on the wire, and up to 256 bytes of its payload. --autobahn is the
client for an Autobahn fuzzing server: it asks for the number of cases, runs each
of them as an echo, and asks for the report.

The exit status is 0 if the connection was closed in order: with code 1000 or
1001, or none.`

// A connectConfig holds the flags.
type connectConfig struct {
	url        string
	header     headerFlag
	protocols  listFlag
	origin     string
	host       string
	compress   bool
	maxMessage int64
	insecure   bool
	ca         string
	timeout    time.Duration

	binary  bool
	message string
	once    bool // --message was given
	pings   int
	every   time.Duration
	frames  bool
	wait    time.Duration
	count   int

	autobahn bool
	agent    string

	options noria.Options
}

// A headerFlag collects -H "Name: value" into an http.Header.
type headerFlag http.Header

func (h headerFlag) String() string { return "" }

func (h headerFlag) Set(s string) error {
	name, value, ok := strings.Cut(s, ":")
	if !ok {
		return errors.New(`want "Name: value"`)
	}
	http.Header(h).Add(strings.TrimSpace(name), strings.TrimSpace(value))
	return nil
}

// A listFlag is a flag that may be given several times.
type listFlag []string

func (l *listFlag) String() string { return strings.Join(*l, ", ") }

func (l *listFlag) Set(s string) error { *l = append(*l, s); return nil }

func connect(args []string) int {
	c := connectConfig{header: headerFlag{}}
	fs := newFlags("connect", connectText)
	c.flags(fs)
	args, c.url = splitURL(fs, args)
	if status, ok := parse(fs, args); !ok {
		return status
	}
	fs.Visit(func(f *flag.Flag) { c.once = c.once || f.Name == "message" })
	if err := c.check(); err != nil {
		fmt.Fprintf(fs.Output(), "%s: %v\n", fs.Name(), err)
		return 2
	}
	// The first signal closes the connection in order.
	ctx, stop := stopOnSignal(context.Background())
	defer stop()
	if err := c.run(ctx, os.Stdin, os.Stdout, os.Stderr); err != nil {
		return fail(err)
	}
	return 0
}

func (c *connectConfig) flags(fs *flag.FlagSet) {
	fs.Var(c.header, "H", "a `header` of the request, \"Name: value\"; may be repeated")
	fs.Var(&c.protocols, "subprotocol", "a `name` to ask for; may be repeated, the preferred one first")
	fs.StringVar(&c.origin, "origin", "", "the `origin` to name in the request, as a browser does")
	fs.StringVar(&c.host, "host", "", "`name` for the Host header and for TLS, in place of the URL's")
	fs.BoolVar(&c.compress, "compress", false, "offer to compress messages (permessage-deflate)")
	fs.Int64Var(&c.maxMessage, "max-message", maxEchoed, "the most `bytes` that a message from the server may have")
	fs.BoolVar(&c.insecure, "insecure", false, "do not check the server's certificate")
	fs.StringVar(&c.ca, "ca", "", "PEM `file` with certificates to trust, in place of the system's")
	fs.DurationVar(&c.timeout, "timeout", ws.DefaultHandshakeTimeout, "time for connecting and the opening handshake, then for the answer to --message and for each pong; 0: the default")
	fs.BoolVar(&c.binary, "binary", false, "send and print bytes, not lines")
	fs.StringVar(&c.message, "message", "", "send this `text`, print the answer, and close")
	fs.IntVar(&c.pings, "ping", 0, "ping this `number` of times, and close")
	fs.DurationVar(&c.every, "every", time.Second, "time between two pings")
	fs.BoolVar(&c.frames, "frames", false, "show each frame on the wire, in hex, on the standard error")
	fs.DurationVar(&c.wait, "wait", time.Second, "after the end of the input, close once no whole message has arrived for this long")
	fs.IntVar(&c.count, "count", 0, "close after this `number` of messages has arrived")
	fs.BoolVar(&c.autobahn, "autobahn", false, "play the client for an Autobahn fuzzing server at URL")
	fs.StringVar(&c.agent, "agent", "noria", "`name` in the fuzzing server's report")
	fs.StringVar(&c.options.Backend, "backend", "auto", "auto, io_uring or epoll; "+backends.Variable+" in the environment overrides it")
}

// check returns what is wrong with the flags, and fills in defaults.
func (c *connectConfig) check() error {
	switch {
	case c.autobahn && (c.once || c.pings != 0):
		return errors.New("--autobahn does not go with --message or --ping")
	case c.once && c.pings != 0:
		return errors.New("--message and --ping do not go together")
	case c.pings < 0:
		return fmt.Errorf("--ping %d: want a number of pings", c.pings)
	case c.count < 0:
		return fmt.Errorf("--count %d: want a number of messages", c.count)
	case c.once && !c.binary && !utf8.ValidString(c.message):
		return errors.New("--message is not UTF-8: --binary sends bytes as they are")
	case c.url == "":
		return errors.New("want a URL; --help says more")
	case c.timeout < 0:
		return fmt.Errorf("--timeout %v: want a time, or 0 for %v", c.timeout, ws.DefaultHandshakeTimeout)
	}
	c.timeout = cmp.Or(c.timeout, ws.DefaultHandshakeTimeout)
	if c.once && c.count == 0 {
		c.count = 1
	}
	return nil
}

// dialOptions returns the flags that are about the connection.
func (c *connectConfig) dialOptions() (o ws.DialOptions, err error) {
	if c.maxMessage <= 0 {
		return o, fmt.Errorf("--max-message %d: want 1 or more bytes", c.maxMessage)
	}
	o.MaxMessage = c.maxMessage
	if c.compress {
		o.Compression = &ws.Compression{}
	}
	o.Header, o.Host, o.Subprotocols = http.Header(c.header), c.host, c.protocols
	if c.origin != "" {
		o.Header = o.Header.Clone()
		o.Header.Set("Origin", c.origin)
	}
	o.HandshakeTimeout = c.timeout
	o.TLS, err = c.tls()
	return o, err
}

func (c *connectConfig) tls() (*tls.Config, error) {
	config := &tls.Config{InsecureSkipVerify: c.insecure, ServerName: c.host}
	if name, _, err := net.SplitHostPort(c.host); err == nil {
		config.ServerName = name
	}
	if c.ca == "" {
		return config, nil
	}
	pem, err := os.ReadFile(c.ca)
	if err != nil {
		return nil, fmt.Errorf("--ca: %w", err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--ca: %s holds no certificate", c.ca)
	}
	return config, nil
}

// run is the whole session. The end of ctx closes the connection in order.
func (c *connectConfig) run(ctx context.Context, in io.Reader, out, notes io.Writer) (err error) {
	opts, err := c.dialOptions()
	if err != nil {
		return err
	}
	u, err := url.Parse(c.url)
	if err != nil {
		return fmt.Errorf("the URL: %w", errors.Unwrap(err)) // without the URL, which may hold a password
	}
	to := target{url: c.url, shown: u.Redacted(), opts: opts}
	if c.frames {
		w, tapErr := startTap(u, &to.opts, notes)
		if tapErr != nil {
			return tapErr
		}
		to.url = w.url
		defer func() {
			err = cmp.Or(w.close(), err)
		}()
	}
	c.options.Loops = 1
	g, err := noria.Start(c.options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Stop()) }()
	if c.autobahn {
		to.url, to.shown = strings.TrimSuffix(to.url, "/"), strings.TrimSuffix(to.shown, "/")
		a := agent{target: to, name: c.agent, out: out}
		return g.Loop().Call(ctx, "agent", a.run)
	}
	// A task dials. After that only goroutines use the connection, because they may
	// block on a terminal.
	var conn *ws.Conn
	err = g.Loop().Call(ctx, "dial", func(ctx context.Context) (err error) {
		conn, err = to.dial(ctx, "")
		return err
	})
	if err != nil {
		return err
	}
	describe(to.shown, conn, notes)
	s := &session{connectConfig: c, conn: conn, out: out, notes: notes, terminal: isTerminal(out)}
	return s.run(ctx, in)
}

// A target is a server and how to reach it.
type target struct {
	url   string // with a tap, the tap's
	shown string // as the user wrote it, without a password
	opts  ws.DialOptions
}

// dial opens a connection to a path below the URL.
func (t *target) dial(ctx context.Context, path string) (*ws.Conn, error) {
	conn, err := ws.Dial(ctx, t.url+path, t.opts)
	if err != nil {
		return nil, fmt.Errorf("dial %s%s: %w", t.shown, path, errors.Unwrap(err)) // without t.url, which err names
	}
	return conn, nil
}

func describe(url string, conn *ws.Conn, notes io.Writer) {
	fmt.Fprintf(notes, "connected to %s", url)
	if p := conn.Subprotocol(); p != "" {
		fmt.Fprintf(notes, ", subprotocol %s", p)
	}
	if conn.Compressed() {
		fmt.Fprintf(notes, ", compressed (%s)", conn.Response().Get("Sec-WebSocket-Extensions"))
	}
	fmt.Fprintln(notes)
}
