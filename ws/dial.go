package ws

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/noria-go/noria/internal/dialer"
	"github.com/noria-go/noria/internal/tlslayer"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws/internal/handshake"
)

// DialOptions configure Dial. The zero value is good.
type DialOptions struct {
	// Options configure the connection.
	Options

	// Header has further headers of the request. It must not have those of the handshake
	// itself. Others, such as "Origin", are not checked.
	Header http.Header

	// Host is the Host header; "" means the URL's host.
	Host string

	// Subprotocols are those that the client offers, in order of preference.
	Subprotocols []string

	// TLS configures wss; nil means the default configuration. An empty ServerName means
	// the URL's host.
	TLS *tls.Config

	// HandshakeTimeout bounds all of Dial: looking up the name, connecting, TLS and the
	// opening handshake. 0 and less mean DefaultHandshakeTimeout.
	HandshakeTimeout time.Duration

	// Net configures the TCP connection, and says which Group it belongs to.
	Net loop.DialOptions
}

// A StatusError is the error of Dial for a server that answers with another status than
// 101: it refused the handshake, or is not a WebSocket server.
type StatusError struct {
	Status int
	Reason string // the text behind the status, as the server sent it
	Header http.Header
	Body   []byte // the part that had arrived, at most 1 KiB
}

func (e *StatusError) Error() string { return (*handshake.StatusError)(e).Error() }

// Dial opens a connection to a URL ("ws://host:port/path", "wss://…"); it may be called
// from anywhere, and waits until the opening handshake is complete. A task passes its own
// context, and the connection belongs to the task's loop. The connection of a goroutine
// belongs to a loop of opts.Net.Group, or of a group that is started when it is first
// needed.
//
// The caller must close the connection. Messages that it has received stay valid until it
// sends or releases them, even after Close. If the server answers with another status than
// 101, the error is a *StatusError.
func Dial(ctx context.Context, rawURL string, opts DialOptions) (*Conn, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("ws: dial: the URL: %w", errors.Unwrap(err)) // err's own text has the URL, perhaps with a password
	}
	var c *Conn
	err = dialer.On(ctx, opts.Net.Group, u.Redacted(), func(ctx context.Context, _ bool) (err error) {
		c, err = dial(ctx, loop.TaskOf(ctx).Loop(), u, &opts)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ws: dial %s: %w", u.Redacted(), err)
	}
	return c, nil
}

func dial(ctx context.Context, l *loop.Loop, u *url.URL, opts *DialOptions) (c *Conn, err error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	client := handshake.Client{Header: opts.Header, Host: opts.Host, Subprotocols: opts.Subprotocols}
	if opts.Compression != nil {
		config := opts.Compression.config()
		client.Deflate = &config
	}
	attempt, err := client.Start(u)
	if err != nil {
		return nil, err
	}
	limit := opts.HandshakeTimeout
	if limit <= 0 {
		limit = DefaultHandshakeTimeout
	}
	deadline := time.Now().Add(limit)
	no := opts.Net
	if no.Timeout <= 0 || no.Timeout > limit {
		no.Timeout = limit
	}
	stream, err := l.Friend(key).Dial(ctx, address(u), no)
	if err != nil {
		return nil, err
	}
	opened := false
	defer func() {
		if !opened { // open failed, or a hook or a function of the TLS configuration panicked
			stream.Friend(key).SetLinger(-1)
			err = errors.Join(err, stream.Close())
		}
	}()
	c, err = open(ctx, stream, u, attempt, opts, deadline)
	opened = err == nil
	return c, err
}

func isSecure(u *url.URL) bool {
	return strings.EqualFold(u.Scheme, "wss") || strings.EqualFold(u.Scheme, "https")
}

func address(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Host
	case isSecure(u):
		return net.JoinHostPort(u.Hostname(), "443")
	}
	return net.JoinHostPort(u.Hostname(), "80")
}

// open does the client's side of the TLS and the opening handshake on s.
func open(ctx context.Context, s *loop.Stream, u *url.URL, attempt *handshake.Attempt, opts *DialOptions, deadline time.Time) (*Conn, error) {
	if isSecure(u) {
		config := tlslayer.ConfigFor(opts.TLS, u.Hostname())
		if err := tlslayer.Client(ctx, s, config, max(time.Until(deadline), 1)); err != nil {
			return nil, err
		}
	}
	opened, err := shake(ctx, s, attempt, deadline)
	if err != nil {
		return nil, err
	}
	o := opts.withDefaults()
	c := newConn(s, &o, true)
	c.request = &Request{Method: http.MethodGet, URI: u.RequestURI(), Host: cmp.Or(opts.Host, u.Host), Header: opts.Header}
	c.response, c.subprotocol = opened.Header, opened.Subprotocol
	c.agree(opened.Deflate)
	if hook := o.Hooks.Opened; hook != nil {
		hook(c)
	}
	return c, nil
}

// shake sends the request and reads the response. When ctx ends, it moves the stream's
// deadline into the past.
func shake(ctx context.Context, t *loop.Stream, attempt *handshake.Attempt, deadline time.Time) (*handshake.Opened, error) {
	if err := t.SetDeadline(deadline); err != nil {
		return nil, err
	}
	over := false
	stop := context.AfterFunc(ctx, func() {
		// This fails only if the loop is ending, which kills the task.
		_ = t.Loop().Friend(key).Post(func() {
			if !over {
				_ = t.SetDeadline(past)
			}
		})
	})
	defer func() { over = true; stop() }()
	if _, err := t.Write(attempt.Request); err != nil {
		if cerr := ctxErr(ctx); cerr != nil {
			return nil, cerr
		}
		return nil, err
	}
	head, err := readHead(t, DefaultMaxHeaderBytes)
	if err != nil {
		if cerr := ctxErr(ctx); cerr != nil {
			return nil, cerr
		}
		return nil, fmt.Errorf("waiting for the server's response: %w", err)
	}
	opened, err := attempt.Response(head, peek(t))
	var status *handshake.StatusError
	if errors.As(err, &status) {
		err = (*StatusError)(status)
	}
	if err != nil {
		return nil, err
	}
	return opened, t.SetDeadline(time.Time{})
}

// peek returns a copy of the first bytes that have arrived, without consuming them.
func peek(t *loop.Stream) []byte {
	b := t.TryReadBuf()
	if b == nil {
		return nil
	}
	p := append([]byte(nil), b.Bytes()[:min(b.Len(), handshake.MaxErrorBody)]...)
	t.Unread(b)
	return p
}
