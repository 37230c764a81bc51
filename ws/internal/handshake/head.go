package handshake

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// MaxHeaders is the largest number of header lines in a head.
const MaxHeaders = 128

// parseHead splits a head into its first line and its headers. The head must end
// with the empty line. An error says what is wrong with it.
func parseHead(head []byte) (first string, h http.Header, err error) {
	s, ok := strings.CutSuffix(string(head), End)
	if !ok {
		return "", nil, errNoHead
	}
	first, rest, more := strings.Cut(s, "\r\n")
	if i := badLineByte(first); i >= 0 {
		return "", nil, badByte(first[i], "the first line")
	}
	h = http.Header{}
	for n := 0; more; n++ {
		if n == MaxHeaders {
			return "", nil, errTooManyHeaders
		}
		var line string
		line, rest, more = strings.Cut(rest, "\r\n")
		if line == "" {
			return "", nil, errors.New("there is an empty line before the end")
		}
		if line[0] == ' ' || line[0] == '\t' {
			return "", nil, errors.New("a header continues on the next line: write it in one (RFC 9112 §5.2)")
		}
		if i := badLineByte(line); i >= 0 {
			return "", nil, badByte(line[i], "a header")
		}
		name, value, found := strings.Cut(line, ":")
		if !found {
			return "", nil, errors.New("a header line has no colon")
		}
		if !isToken(name) {
			return "", nil, fmt.Errorf("the header name %.40q is not a token; no space may precede the colon", name)
		}
		name = http.CanonicalHeaderKey(name)
		h[name] = append(h[name], strings.Trim(value, " \t"))
	}
	return first, h, nil
}

var errTooManyHeaders = fmt.Errorf("there are more than %d headers", MaxHeaders)

func badByte(c byte, where string) error {
	switch c {
	case '\n':
		return fmt.Errorf("%s has a line feed without a carriage return", where)
	case '\r':
		return fmt.Errorf("%s has a carriage return without a line feed", where)
	}
	return fmt.Errorf("%s has the control character %q", where, c)
}

func badLineByte(s string) int { return badValueByte(s) }

// parseRequest splits a request's head and makes the checks that any HTTP server
// must make. It also checks that there is no body.
func parseRequest(head []byte) (*Request, *Refusal) {
	first, h, err := parseHead(head)
	if err == errTooManyHeaders {
		return nil, refuse(http.StatusRequestHeaderFieldsTooLarge, "%v: send fewer", err)
	}
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "this is not an HTTP request: %v", err)
	}
	method, rest, ok1 := strings.Cut(first, " ")
	uri, version, ok2 := strings.Cut(rest, " ")
	if !ok1 || !ok2 || !isToken(method) || !isVersion(version) {
		return nil, refuse(http.StatusBadRequest, "this is not an HTTP request: the first line must be like \"GET /path HTTP/1.1\"")
	}
	if version != "HTTP/1.1" {
		return nil, refuse(http.StatusHTTPVersionNotSupported, "the request is %s: a WebSocket handshake is HTTP/1.1 (RFC 6455 §4.1)", version)
	}
	if n := len(h[headerHost]); n != 1 {
		return nil, refuse(http.StatusBadRequest, "the request has %d Host headers: send one", n)
	}
	r := &Request{Method: method, URI: uri, Host: h.Get(headerHost), Header: h}
	delete(h, headerHost)
	if ref := r.checkTarget(); ref != nil {
		return nil, ref
	}
	if ref := checkNoBody(h); ref != nil {
		return nil, ref
	}
	return r, nil
}

func isVersion(s string) bool {
	return len(s) == len("HTTP/1.1") && s[:5] == "HTTP/" && isDigit(s[5]) && s[6] == '.' && isDigit(s[7])
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// checkTarget requires a path or a URL. The host of a URL replaces the Host
// header's (RFC 9112 §3.2.2).
func (r *Request) checkTarget() *Refusal {
	for i := range len(r.URI) {
		if c := r.URI[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return refuse(http.StatusBadRequest, "the request's path contains %q: encode it as %%%02X", c, c)
		}
	}
	for _, scheme := range []string{"http://", "https://"} {
		if rest, ok := cutPrefixFold(r.URI, scheme); ok {
			n := strings.IndexAny(rest+"/", "/?")
			r.Host, r.URI = rest[:n], rest[n:]
			if !strings.HasPrefix(r.URI, "/") {
				r.URI = "/" + r.URI
			}
			break
		}
	}
	if !strings.HasPrefix(r.URI, "/") {
		return refuse(http.StatusBadRequest, "the request is for %.60q: a path begins with /", r.URI)
	}
	return nil
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// checkHost requires a host, with or without a port, of the permitted bytes.
func checkHost(host string) *Refusal {
	if host == "" {
		return refuse(http.StatusBadRequest, "the Host header is empty: send the host that the URL names")
	}
	for i := range len(host) {
		if c := host[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`/\@?#,"<>`, c) >= 0 {
			return refuse(http.StatusBadRequest, "the Host header contains %q: send the host that the URL names", c)
		}
	}
	return nil
}

// checkNoBody refuses a request that a proxy could take to have a body: the bytes
// that follow the request are frames.
func checkNoBody(h http.Header) *Refusal {
	if h[headerEncoding] != nil {
		return refuse(http.StatusBadRequest, "the request has a Transfer-Encoding: a WebSocket handshake has no body")
	}
	switch lengths := h[headerLength]; {
	case len(lengths) > 1:
		return refuse(http.StatusBadRequest, "the request has %d Content-Length headers", len(lengths))
	case len(lengths) == 1 && lengths[0] != "0":
		return refuse(http.StatusBadRequest, "the request has a Content-Length of %.20q: a WebSocket handshake has no body", lengths[0])
	}
	return nil
}
