package handshake

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	gobwas "github.com/gobwas/ws"

	"github.com/noria-go/noria/ws/internal/deflate"
)

// MaxErrorBody is how many bytes of the body of a response that refuses a
// StatusError keeps.
const MaxErrorBody = 1 << 10

// A Client is what a client asks for. The zero value is good.
type Client struct {
	// Header is sent along. It cannot have the handshake's own headers.
	Header http.Header

	// Host is the Host header; "" means that of the URL.
	Host string

	// Subprotocols are what the client would speak, the best first.
	Subprotocols []string

	// Deflate is the compression that is offered; nil: none.
	Deflate *deflate.Config
}

// An Attempt is one handshake of a client. It is used once.
type Attempt struct {
	// Request is what is to be sent.
	Request []byte

	client *Client
	key    string
}

// Opened is what both sides have agreed on.
type Opened struct {
	Header      http.Header     // of the response
	Subprotocol string          // "" if there is none
	Deflate     *deflate.Params // nil if there is no compression
}

// A StatusError says that the server answered with another status than 101. It
// may be another kind of server, or have refused.
type StatusError struct {
	Status int
	Reason string // the first line's, as it was sent
	Header http.Header
	Body   []byte // what had arrived of it, at most MaxErrorBody bytes
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("the server answered %d %s", e.Status, e.Reason)
	if where := e.Header.Get("Location"); where != "" {
		s += ", which sends to " + strconv.Quote(where) + " (not followed)"
	}
	if line, _, _ := bytes.Cut(bytes.TrimSpace(e.Body), []byte("\n")); len(line) > 0 {
		s += fmt.Sprintf(": %.200q", line)
	}
	return s
}

// Start returns an attempt to open u: ws://host/path or wss://host/path; the
// schemes http and https do as well. Each has a key of its own, from
// crypto/rand. A user and a password in u are sent as basic authentication.
func (c *Client) Start(u *url.URL) (*Attempt, error) {
	if err := c.check(u); err != nil {
		return nil, err
	}
	var extra []byte
	if c.Deflate != nil {
		extra = append(extra, "Sec-WebSocket-Extensions: "+c.Deflate.Offer()+"\r\n"...)
	}
	if u.User != nil && c.Header.Get("Authorization") == "" {
		password, _ := u.User.Password()
		extra = append(extra, "Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password))+"\r\n"...)
	}
	extra = appendHeader(extra, c.Header)
	// The Dialer writes its request at once and then wants the response; by then
	// it has done what it is wanted for.
	var request bytes.Buffer
	d := gobwas.Dialer{Protocols: c.Subprotocols, Host: c.Host, Header: gobwas.HandshakeHeaderBytes(extra), WriteBufferSize: len(extra) + 4096}
	_, _, err := d.Upgrade(struct {
		io.Reader
		io.Writer
	}{strings.NewReader(""), &request}, u)
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("writing the request: %w", err)
	}
	_, h, err := parseHead(request.Bytes())
	if err != nil || len(h[headerKey]) != 1 {
		return nil, fmt.Errorf("the request cannot be sent as it is: %w", errors.Join(err, errors.New("check the URL and the headers")))
	}
	return &Attempt{Request: request.Bytes(), client: c, key: h.Get(headerKey)}, nil
}

func (c *Client) check(u *url.URL) error {
	switch strings.ToLower(u.Scheme) {
	case "ws", "wss", "http", "https":
	default:
		return fmt.Errorf("the URL's scheme is %q: want ws or wss", u.Scheme)
	}
	if u.Host == "" {
		return errors.New("the URL has no host: want ws://host:port/path")
	}
	if u.Fragment != "" {
		return fmt.Errorf("the URL has the fragment %q, which a WebSocket's cannot have (RFC 6455 §3): write %%23 for #", u.Fragment)
	}
	host := u.Host
	if c.Host != "" {
		host = c.Host
	}
	if ref := checkHost(host); ref != nil {
		return fmt.Errorf("the host %q: %s", host, ref.Text)
	}
	if c.Deflate != nil {
		if err := c.Deflate.Check(); err != nil {
			return err
		}
	}
	return errors.Join(checkHeader(c.Header), checkProtocols(c.Subprotocols))
}

// Response checks the head of the response. after is what has arrived behind
// it, if anything: it is looked at if the server refuses, and otherwise the
// beginning of its frames. An error means that the connection is to be closed;
// it is a *StatusError if the status is not 101.
func (a *Attempt) Response(head, after []byte) (*Opened, error) {
	first, h, err := parseHead(head)
	if err != nil {
		return nil, fmt.Errorf("the server's response is no HTTP: %w", err)
	}
	version, rest, _ := strings.Cut(first, " ")
	code, reason, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if err != nil || len(code) != 3 || status < 100 || !isVersion(version) {
		return nil, fmt.Errorf("the server's response is no HTTP: it begins with %.40q", first)
	}
	if status != http.StatusSwitchingProtocols {
		return nil, &StatusError{Status: status, Reason: reason, Header: h, Body: bytes.Clone(after[:min(len(after), MaxErrorBody)])}
	}
	switch {
	case version != "HTTP/1.1":
		return nil, fmt.Errorf("the server's response is %s, want HTTP/1.1", version)
	case !hasToken(h[headerUpgrade], "websocket"):
		return nil, fmt.Errorf("the server's response has no \"Upgrade: websocket\" but %.40q", h.Get(headerUpgrade))
	case !hasToken(h[headerConnection], "upgrade"):
		return nil, fmt.Errorf("the server's response has no \"Connection: Upgrade\" but %.40q", h.Get(headerConnection))
	case len(h[headerAccept]) != 1:
		return nil, fmt.Errorf("the server's response has %d Sec-WebSocket-Accept headers, want one", len(h[headerAccept]))
	case h.Get(headerAccept) != AcceptKey(a.key):
		return nil, errors.New("the server's Sec-WebSocket-Accept does not belong to the key that was sent: it is no WebSocket server, or the answer is to somebody else")
	}
	o := &Opened{Header: h}
	switch p := h[headerProtocol]; {
	case len(p) > 1:
		return nil, fmt.Errorf("the server chose %d subprotocols", len(p))
	case len(p) == 1 && !slices.Contains(a.client.Subprotocols, p[0]):
		return nil, fmt.Errorf("the server chose the subprotocol %.40q, which was not asked for", p[0])
	case len(p) == 1:
		o.Subprotocol = p[0]
	}
	extensions, err := deflate.ParseExtensions(h[headerExtensions])
	if err != nil {
		return nil, fmt.Errorf("the server's Sec-WebSocket-Extensions: %w", err)
	}
	if a.client.Deflate == nil {
		if len(extensions) > 0 {
			return nil, fmt.Errorf("the server uses the extension %.40q, and none was offered", extensions[0].Name)
		}
		return o, nil
	}
	p, ok, err := a.client.Deflate.Confirm(extensions)
	if err != nil {
		return nil, fmt.Errorf("the server's Sec-WebSocket-Extensions: %w", err)
	}
	if ok {
		o.Deflate = &p
	}
	return o, nil
}

// AcceptKey returns what the server answers to a key (RFC 6455 §4.2.2).
func AcceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
