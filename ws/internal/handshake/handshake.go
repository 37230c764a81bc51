// Package handshake is the opening handshake of WebSocket (RFC 6455 §4), for
// both sides. It does no I/O: a complete head goes in, and what is to be sent
// comes out. The caller collects the head, up to the empty line and up to a
// limit of its own, and keeps what follows it.
//
// A request is taken apart here, more strictly than a web server would: what
// two programs could read in two ways is refused, since one of them may stand
// before the other (RFC 9112 §11). Then it is decided on, in this order: is it
// HTTP that can be understood, is it an upgrade at all, are the headers of the
// handshake right, may this origin do it, does the program's own check agree.
// The handshake proper, the accept key and the response, is gobwas/ws's: its
// Upgrader is given the request in its plainest form.
//
// Who is refused is told what is wrong and what to do, in a response that has a
// status and one line of text: Refusal.
//
// The client's request is written by gobwas/ws's Dialer. Its check of the
// response wants to read it itself, so that is done here.
package handshake

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/noria-go/noria/ws/internal/deflate"
)

// Version is the version of the protocol: the only one there is.
const Version = "13"

// End ends a head.
const End = "\r\n\r\n"

// The headers, as http.Header has them.
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

// A Request is what a client asked for in its opening handshake.
type Request struct {
	Method string      // GET, for a handshake
	URI    string      // path and query, as it was sent
	Host   string      // the Host header
	Header http.Header // all others; its keys are canonical: see http.CanonicalHeaderKey
}

// A Response is an HTTP response with a body, after which the connection is
// closed.
type Response struct {
	Status int         // 200 to 599
	Header http.Header // more headers; those about the body are added
	Body   []byte
}

// Append appends the response as it is sent. A response to HEAD has no body,
// but says how long it would be; one that can have none does not (RFC 9110, section 8.6).
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
	_ = h.Write(&b) // in order of the names; a Builder does not fail
	return append(dst, b.String()...)
}

// A Refusal is why a handshake is refused: an error that knows its response. A
// program's own check may return one.
type Refusal struct {
	Status int         // 300 to 599; 0 means 403
	Text   string      // for the client: what is wrong and what to do; "" is the status's own
	Header http.Header // more headers of the response

	// Err is the cause, for the log; the client does not see it.
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

// Response returns what the client is told.
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

// TooLong is for a request of more than limit bytes.
func TooLong(limit int) *Refusal {
	return refuse(http.StatusRequestHeaderFieldsTooLarge, "the request has more than %d bytes before its empty line: send fewer or shorter headers", limit)
}

// TooSlow is for a request that was not complete in time.
func TooSlow() *Refusal {
	return refuse(http.StatusRequestTimeout, "the request was not complete in time")
}

// Reserved says whether a header of this name belongs to the handshake, or to
// the message it is in, and cannot be set from outside.
func Reserved(name string) bool {
	switch name := http.CanonicalHeaderKey(name); name {
	case headerHost, headerUpgrade, headerConnection, headerLength, headerEncoding, "Trailer", "Te":
		return true
	default:
		return strings.HasPrefix(name, "Sec-Websocket-")
	}
}

// checkHeader says whether h may be sent: nothing in it ends a line.
func checkHeader(h http.Header) error {
	for name, values := range h {
		if !isToken(name) {
			return fmt.Errorf("the header name %q is no token", name)
		}
		if Reserved(name) {
			return fmt.Errorf("the header %s belongs to the handshake and cannot be set", name)
		}
		for _, v := range values {
			if i := badValueByte(v); i >= 0 {
				return fmt.Errorf("the value of header %s contains %q: it would end the line, or is no text", name, v[i])
			}
		}
	}
	return nil
}

// checkProtocols says whether these may be offered, or chosen.
func checkProtocols(list []string) error {
	seen := map[string]bool{}
	for _, p := range list {
		if !isToken(p) {
			return fmt.Errorf("the subprotocol %q is no token (RFC 9110 §5.6.2): letters, digits and !#$%%&'*+-.^_`|~", p)
		}
		if seen[p] {
			return fmt.Errorf("the subprotocol %q is there twice", p)
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

// badValueByte returns where s has a byte that a header's value may not have, or
// -1. Bytes from 0x80 on are left alone (RFC 9110 §5.5, obs-text).
func badValueByte(s string) int {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return i
		}
	}
	return -1
}

// tokens returns the elements of a list of tokens, over all values of a header.
func tokens(values []string) (list []string, err error) {
	for _, v := range values {
		for e := range strings.SplitSeq(v, ",") {
			if e = strings.Trim(e, " \t"); e == "" {
				continue // RFC 9110 §5.6.1.2
			}
			if !isToken(e) {
				return nil, fmt.Errorf("%q is no token", e)
			}
			list = append(list, e)
		}
	}
	return list, nil
}

// hasToken says whether a header's list has this element, in whatever case.
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
