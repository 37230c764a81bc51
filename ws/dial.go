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
	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/internal/tlslayer"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws/internal/handshake"
)

// DialOptions say how to open a connection. The zero value is good.
type DialOptions struct {
	// Options are what the connection is told.
	Options

	// Header is sent along with the request. It cannot have the handshake's own
	// headers; for the others, "Origin" for one, there is no check.
	Header http.Header

	// Host is the Host header; "" means that of the URL.
	Host string

	// Subprotocols are what the client would speak, the best first.
	Subprotocols []string

	// TLS is for wss; nil is good. Without a ServerName it gets the URL's host.
	TLS *tls.Config

	// HandshakeTimeout is for all of it: looking up the name, connecting, TLS
	// and the opening handshake. 0 and less mean DefaultHandshakeTimeout.
	HandshakeTimeout time.Duration

	// Net says how to connect.
	Net loop.DialOptions
}

// A StatusError is what Dial fails with when the server answers with another
// status than 101. It may be another kind of server, or have refused.
type StatusError struct {
	Status int
	Reason string // the first line's, as it was sent
	Header http.Header
	Body   []byte // what had arrived of it, at most 1 KiB
}

func (e *StatusError) Error() string { return (*handshake.StatusError)(e).Error() }

// Dial opens a connection to a URL ("ws://host:port/path", "wss://…") and waits until
// the opening handshake is complete. It may be called from anywhere. A task gives its
// own context, and the connection belongs to its loop. A goroutine's belongs to a loop
// of opts.Net.Group, or of a group that is started when it is first needed. The caller
// must close it; messages that it has received stay valid until it sends or releases
// them, after Close too. If the server answers with another status, the error is a
// *StatusError.
func Dial(ctx context.Context, rawURL string, opts DialOptions) (*Conn, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("ws: dial: the URL: %w", errors.Unwrap(err)) // its own text has all of it, perhaps a password
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
	stream, err := l.Friend(friend.Key{}).Dial(ctx, address(u), no)
	if err != nil {
		return nil, err
	}
	opened := false
	defer func() {
		if !opened { // failed, or a hook or a function of the TLS configuration panics
			stream.Friend(friend.Key{}).SetLinger(-1)
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

// open does the client's side of the handshakes on s.
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

// shake sends the request and reads the response. The end of ctx makes the
// deadline pass.
func shake(ctx context.Context, t *loop.Stream, attempt *handshake.Attempt, deadline time.Time) (*handshake.Opened, error) {
	if err := t.SetDeadline(deadline); err != nil {
		return nil, err
	}
	over := false
	stop := context.AfterFunc(ctx, func() {
		// If this fails, the loop is ending: then the task is killed.
		_ = t.Loop().Friend(friend.Key{}).Post(func() {
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

// peek returns a copy of the first bytes that have arrived.
func peek(t *loop.Stream) []byte {
	b := t.TryReadBuf()
	if b == nil {
		return nil
	}
	p := append([]byte(nil), b.Bytes()[:min(b.Len(), handshake.MaxErrorBody)]...)
	t.Unread(b)
	return p
}
