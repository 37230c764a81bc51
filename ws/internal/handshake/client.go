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

// MaxErrorBody is how many bytes of a refusal's body a StatusError keeps.
const MaxErrorBody = 1 << 10

// A Client is the configuration of a client's handshakes. The zero value is valid.
type Client struct {
	// Header is added to the request. It must not contain headers of the handshake.
	Header http.Header

	// Host is the Host header; "" means the host of the URL.
	Host string

	// Subprotocols are those that the client speaks, in order of preference.
	Subprotocols []string

	// Deflate configures the compression that the client offers; nil means none.
	Deflate *deflate.Config
}

// An Attempt is one handshake of a client. It is used once.
type Attempt struct {
	// Request is the encoded request.
	Request []byte

	client *Client
	key    string
}

// Opened is the outcome of a handshake that the server accepted.
type Opened struct {
	Header      http.Header     // of the response
	Subprotocol string          // "" if there is none
	Deflate     *deflate.Params // nil if there is no compression
}

// A StatusError is the error of a response whose status is not 101: the server
// refused, or is not a WebSocket server.
type StatusError struct {
	Status int
	Reason string // from the first line, as sent
	Header http.Header
	Body   []byte // its bytes that had arrived, at most MaxErrorBody
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("the server answered %d %s", e.Status, e.Reason)
	if where := e.Header.Get("Location"); where != "" {
		s += ", which redirects to " + strconv.Quote(where) + " (not followed)"
	}
	if line, _, _ := bytes.Cut(bytes.TrimSpace(e.Body), []byte("\n")); len(line) > 0 {
		s += fmt.Sprintf(": %.200q", line)
	}
	return s
}

// Start returns an attempt to open u: ws://host/path or wss://host/path. The
// schemes http and https are accepted too. Each attempt has its own key, from
// crypto/rand. A user and password in u are sent as basic authentication.
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
	// The Dialer writes the whole request and then fails to read the response. The
	// request is all that is needed from it.
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
		return nil, fmt.Errorf("the request cannot be sent: %w", errors.Join(err, errors.New("check the URL and the headers")))
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
		return fmt.Errorf("the URL has the fragment %q, which a WebSocket URL must not have (RFC 6455 §3): write %%23 for #", u.Fragment)
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

// Response checks the head of the response. after are the bytes that arrived behind
// it: the body if the server refuses, and otherwise the first bytes of its frames.
// After an error the caller must close the connection. The error is a *StatusError
// if the status is not 101.
func (a *Attempt) Response(head, after []byte) (*Opened, error) {
	first, h, err := parseHead(head)
	if err != nil {
		return nil, fmt.Errorf("the server's response is not HTTP: %w", err)
	}
	version, rest, _ := strings.Cut(first, " ")
	code, reason, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if err != nil || len(code) != 3 || status < 100 || !isVersion(version) {
		return nil, fmt.Errorf("the server's response is not HTTP: it begins with %.40q", first)
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
		return nil, errors.New("the server's Sec-WebSocket-Accept does not match the key that was sent: it is not a WebSocket server, or the answer belongs to another request")
	}
	o := &Opened{Header: h}
	switch p := h[headerProtocol]; {
	case len(p) > 1:
		return nil, fmt.Errorf("the server chose %d subprotocols", len(p))
	case len(p) == 1 && !slices.Contains(a.client.Subprotocols, p[0]):
		return nil, fmt.Errorf("the server chose the subprotocol %.40q, which the client did not offer", p[0])
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

// AcceptKey returns the Sec-WebSocket-Accept for a key (RFC 6455 §4.2.2).
func AcceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
