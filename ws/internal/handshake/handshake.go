// Package handshake is the opening handshake of WebSocket (RFC 6455 §4) for both
// sides. It does no I/O: it takes a complete head and returns the bytes to send.
// The caller collects the head up to the empty line, limits its size, and keeps the
// bytes that follow it.
//
// Requests are parsed here, more strictly than a web server would. A request that
// two programs could read in two ways is refused, because a proxy in front of the
// server may be one of the two (RFC 9112 §11). A server then checks, in this order:
// that it is valid HTTP, that it asks for an upgrade, that the headers of the
// handshake are right, that the origin is allowed, and that the program's own check
// agrees. The response with its accept key is written by the Upgrader of gobwas/ws,
// which is given the request in its plainest form.
//
// A refusal has a status and one line of text that says what is wrong and what to
// do: see Refusal.
//
// A client's request is written by the Dialer of gobwas/ws. Its check of the
// response reads from a connection, so the response is checked here.
package handshake

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/noria-go/noria/ws/internal/deflate"
)

// Version is the version of the protocol. There is only one.
const Version = "13"

// End is the end of a head.
const End = "\r\n\r\n"

// The header names in canonical form.
const (
	headerHost       = "Host"
	headerUpgrade    = "Upgrade"
	headerConnection = "Connection"
	headerOrigin     = "Origin"
	headerKey        = "Sec-Websocket-Key"
	headerVersion    = "Sec-Websocket-Version"
	headerAccept     = "Sec-Websocket-Accept"
	headerProtocol   = "Sec-Websocket-Protocol"
	headerExtensions = "Sec-Websocket-Extensions"
	headerLength     = "Content-Length"
	headerEncoding   = "Transfer-Encoding"
)

// A Request is a client's opening handshake.
type Request struct {
	Method string      // GET for a handshake
	URI    string      // path and query, as sent
	Host   string      // the Host header
	Header http.Header // all other headers, with canonical keys: see http.CanonicalHeaderKey
}

// A Response is an HTTP response with a body. The connection is closed after it.
type Response struct {
	Status int         // 200 to 599
	Header http.Header // further headers; those that describe the body are added
	Body   []byte
}

// Append appends the encoded response to dst. A response to HEAD has no body but
// states its length. A status that permits no body has neither (RFC 9110 §8.6).
func (r *Response) Append(dst []byte, method string) []byte {
	dst = fmt.Appendf(dst, "HTTP/1.1 %d %s\r\n", r.Status, http.StatusText(r.Status))
	dst = appendHeader(dst, r.Header)
	if r.Header.Get(headerConnection) == "" {
		dst = append(dst, "Connection: close\r\n"...)
	}
	if r.Status == http.StatusNoContent || r.Status == http.StatusNotModified {
		return append(dst, "\r\n"...)
	}
	if r.Header.Get("Content-Type") == "" {
		dst = append(dst, "Content-Type: text/plain; charset=utf-8\r\n"...)
	}
	dst = fmt.Appendf(dst, "Content-Length: %d\r\n\r\n", len(r.Body))
	if method == http.MethodHead {
		return dst
	}
	return append(dst, r.Body...)
}

func appendHeader(dst []byte, h http.Header) []byte {
	var b strings.Builder
	_ = h.Write(&b) // sorted by name; a Builder does not fail
	return append(dst, b.String()...)
}

// A Refusal is the error of a refused handshake and carries its response. A
// program's own check may return one.
type Refusal struct {
	Status int         // 300 to 599; 0 means 403
	Text   string      // for the client: what is wrong and what to do; "" means the status text
	Header http.Header // further headers of the response

	// Err is the cause, for the log. The client does not see it.
	Err error
}

func (r *Refusal) Error() string {
	s := "refused with " + strconv.Itoa(r.status()) + ": " + r.text()
	if r.Err != nil {
		s += ": " + r.Err.Error()
	}
	return s
}

func (r *Refusal) Unwrap() error { return r.Err }

func (r *Refusal) status() int {
	if r.Status == 0 {
		return http.StatusForbidden
	}
	return r.Status
}

func (r *Refusal) text() string {
	if r.Text == "" {
		return strings.ToLower(http.StatusText(r.status()))
	}
	return r.Text
}

// Response returns the response that the client receives.
func (r *Refusal) Response() *Response {
	return &Response{Status: r.status(), Header: r.Header, Body: []byte(r.text() + "\n")}
}

// refuse returns a Refusal.
func refuse(status int, format string, args ...any) *Refusal {
	return &Refusal{Status: status, Text: fmt.Sprintf(format, args...)}
}

func (r *Refusal) with(key, value string) *Refusal {
	if r.Header == nil {
		r.Header = http.Header{}
	}
	r.Header.Set(key, value)
	return r
}

// TooLong returns the refusal of a request whose head exceeds limit bytes.
func TooLong(limit int) *Refusal {
	return refuse(http.StatusRequestHeaderFieldsTooLarge, "the request has more than %d bytes before its empty line: send fewer or shorter headers", limit)
}

// TooSlow returns the refusal of a request that was not complete in time.
func TooSlow() *Refusal {
	return refuse(http.StatusRequestTimeout, "the request was not complete in time")
}

// Reserved reports whether a header of this name belongs to the handshake or
// describes the message itself, so that the program cannot set it.
func Reserved(name string) bool {
	switch name := http.CanonicalHeaderKey(name); name {
	case headerHost, headerUpgrade, headerConnection, headerLength, headerEncoding, "Trailer", "Te":
		return true
	default:
		return strings.HasPrefix(name, "Sec-Websocket-")
	}
}

// checkHeader checks that h can be sent: no name or value may end a line.
func checkHeader(h http.Header) error {
	for name, values := range h {
		if !isToken(name) {
			return fmt.Errorf("the header name %q is not a token", name)
		}
		if Reserved(name) {
			return fmt.Errorf("the header %s belongs to the handshake and cannot be set", name)
		}
		for _, v := range values {
			if i := badValueByte(v); i >= 0 {
				return fmt.Errorf("the value of header %s contains %q: it would end the line, or is not text", name, v[i])
			}
		}
	}
	return nil
}

// checkProtocols checks that these subprotocols may be offered or chosen.
func checkProtocols(list []string) error {
	seen := map[string]bool{}
	for _, p := range list {
		if !isToken(p) {
			return fmt.Errorf("the subprotocol %q is not a token (RFC 9110 §5.6.2): letters, digits and !#$%%&'*+-.^_`|~", p)
		}
		if seen[p] {
			return fmt.Errorf("the subprotocol %q is listed twice", p)
		}
		seen[p] = true
	}
	return nil
}

func isToken(s string) bool {
	for i := range len(s) {
		if !deflate.IsTokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

// badValueByte returns the index of the first byte of s that a header value must
// not contain, or -1. Bytes from 0x80 on are permitted (RFC 9110 §5.5, obs-text).
func badValueByte(s string) int {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return i
		}
	}
	return -1
}

// tokens returns the elements of a comma-separated list of tokens, over all values
// of a header.
func tokens(values []string) (list []string, err error) {
	for _, v := range values {
		for e := range strings.SplitSeq(v, ",") {
			if e = strings.Trim(e, " \t"); e == "" {
				continue // RFC 9110 §5.6.1.2
			}
			if !isToken(e) {
				return nil, fmt.Errorf("%q is not a token", e)
			}
			list = append(list, e)
		}
	}
	return list, nil
}

// hasToken reports whether a header's list contains want, ignoring case.
func hasToken(values []string, want string) bool {
	for _, v := range values {
		for e := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.Trim(e, " \t"), want) {
				return true
			}
		}
	}
	return false
}

var errNoHead = errors.New("handshake: the head does not end with an empty line")
