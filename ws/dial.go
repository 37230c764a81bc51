package ws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	gobwas "github.com/gobwas/ws"

	"github.com/noria-go/noria/runtime"
)

// DialOptions say how to open a connection. The zero value is good.
type DialOptions struct {
	// Options are what the connection is told.
	Options

	// Header is sent along with the request.
	Header http.Header

	// Subprotocols are what the client would speak, the best first.
	Subprotocols []string

	// HandshakeTimeout is for all of it: looking up the name, connecting, and
	// the opening handshake. 0 means DefaultHandshakeTimeout.
	HandshakeTimeout time.Duration

	// Net says how to connect.
	Net runtime.DialOptions
}

// Dial opens a connection to url ("ws://host:port/path"), from a task, whose
// context ctx is or comes from. The connection belongs to the task's loop. Who
// has dialed closes it.
func Dial(ctx context.Context, url string, opts DialOptions) (*Conn, error) {
	t := runtime.TaskOf(ctx)
	if t == nil || !t.Loop().OnLoop() {
		return nil, &runtime.OpError{Op: "dial", Detail: url, Err: runtime.ErrOffLoop}
	}
	c, err := dial(ctx, t.Loop(), url, &opts)
	if err != nil {
		return nil, fmt.Errorf("ws: dial %s: %w", url, err)
	}
	return c, nil
}

func dial(ctx context.Context, l *runtime.Loop, rawURL string, opts *DialOptions) (*Conn, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "ws" && u.Scheme != "http" {
		return nil, fmt.Errorf("the scheme %q is not ws", u.Scheme)
	}
	address := u.Host
	if u.Port() == "" {
		address = net.JoinHostPort(u.Hostname(), "80")
	}
	limit := opts.HandshakeTimeout
	if limit <= 0 {
		limit = DefaultHandshakeTimeout
	}
	deadline := time.Now().Add(limit)
	no := opts.Net
	if no.Timeout == 0 || no.Timeout > limit {
		no.Timeout = limit
	}
	stream, err := l.Dial(ctx, address, no)
	if err != nil {
		return nil, err
	}
	c, err := open(stream, u, opts, deadline)
	if err != nil {
		return nil, errors.Join(err, stream.Close())
	}
	return c, nil
}

// clientConn gives the library the head of the response and nothing else.
type clientConn struct {
	stream *runtime.Stream
	head   *bytes.Reader
}

func (c *clientConn) Write(p []byte) (int, error) { return c.stream.Write(p) }

func (c *clientConn) Read(p []byte) (int, error) {
	if c.head == nil {
		head, err := readHead(c.stream, DefaultMaxHead)
		if err != nil {
			return 0, err
		}
		c.head = bytes.NewReader(head)
	}
	return c.head.Read(p)
}

func open(s *runtime.Stream, u *url.URL, opts *DialOptions, deadline time.Time) (*Conn, error) {
	if err := s.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	d := gobwas.Dialer{Protocols: opts.Subprotocols, Header: gobwas.HandshakeHeaderHTTP(opts.Header)}
	_, hs, err := d.Upgrade(&clientConn{stream: s}, u)
	if err != nil {
		return nil, err
	}
	o := opts.withDefaults()
	c := &Conn{request: &Request{URI: u.RequestURI(), Host: u.Host, Header: opts.Header}, subprotocol: hs.Protocol}
	c.init(s, &o, true)
	return c, s.SetReadDeadline(time.Time{})
}
