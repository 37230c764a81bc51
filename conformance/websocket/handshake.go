package websocket

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
)

// maxHead limits a request's or an answer's head, in bytes.
const maxHead = 64 << 10

// A head is an HTTP/1.1 request or answer without its body.
type head struct {
	raw    string
	first  string              // the first line
	fields map[string][]string // by lower-case name
}

// readHead reads a head as strictly as RFC 9112 demands.
func readHead(r *bufio.Reader) (h head, err error) {
	h.fields = map[string][]string{}
	var raw strings.Builder
	defer func() { h.raw = raw.String() }()
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		raw.Write(line)
		if err != nil {
			if err == io.EOF && raw.Len() > 0 {
				err = io.ErrUnexpectedEOF
			}
			return h, err
		}
		if raw.Len() > maxHead {
			return h, fmt.Errorf("a head of more than %d bytes", maxHead)
		}
		s, ok := strings.CutSuffix(string(line), "\r\n")
		switch {
		case !ok:
			return h, fmt.Errorf("the line %q does not end with CR LF", line)
		case first:
			h.first = s
			continue
		case s == "":
			return h, nil
		case s[0] == ' ' || s[0] == '\t':
			return h, fmt.Errorf("a folded line: %q", s)
		}
		name, value, ok := strings.Cut(s, ":")
		if !ok || !isToken(name) {
			return h, fmt.Errorf("not a header: %q", s)
		}
		name = strings.ToLower(name)
		h.fields[name] = append(h.fields[name], strings.TrimSpace(value))
	}
}

// get returns a field's values, joined as if the field were given once.
func (h head) get(name string) string { return strings.Join(h.fields[name], ", ") }

// has reports whether a field's list of tokens contains token.
func (h head) has(name, token string) bool {
	for s := range strings.SplitSeq(h.get(name), ",") {
		if strings.EqualFold(strings.TrimSpace(s), token) {
			return true
		}
	}
	return false
}

// status returns the answer's status code.
func (h head) status() int {
	var code int
	if _, err := fmt.Sscanf(h.first, "HTTP/1.1 %3d", &code); err != nil {
		return 0
	}
	return code
}

func newKey() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.StdEncoding.EncodeToString(b[:])
}

func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// A request is an upgrade request. A case may make it invalid.
type request struct {
	method, target, version string
	fields                  []string // lines
	body                    string   // bytes that follow in the same segment
}

// newRequest returns a valid request.
func newRequest(u *url.URL, key string, offers []deflateParams) *request {
	q := &request{method: "GET", target: u.RequestURI(), version: "HTTP/1.1", fields: []string{
		"Host: " + u.Host,
		"Upgrade: websocket",
		"Connection: Upgrade",
		"Sec-WebSocket-Key: " + key,
		"Sec-WebSocket-Version: 13",
	}}
	if len(offers) > 0 {
		q.fields = append(q.fields, "Sec-WebSocket-Extensions: "+offerHeader(offers))
	}
	return q
}

func offerHeader(offers []deflateParams) string {
	var s []string
	for _, o := range offers {
		s = append(s, o.String())
	}
	return strings.Join(s, ", ")
}

// set replaces a field, or removes it if value is "".
func (q *request) set(name, value string) *request {
	var kept []string
	for _, f := range q.fields {
		if n, _, _ := strings.Cut(f, ":"); !strings.EqualFold(n, name) {
			kept = append(kept, f)
		}
	}
	if q.fields = kept; value != "" {
		q.fields = append(q.fields, name+": "+value)
	}
	return q
}

func (q *request) add(line string) *request {
	q.fields = append(q.fields, line)
	return q
}

// rename changes the names of the fields.
func (q *request) rename(f func(string) string) *request {
	for i, line := range q.fields {
		name, value, _ := strings.Cut(line, ":")
		q.fields[i] = f(name) + ":" + value
	}
	return q
}

func (q *request) String() string {
	return q.method + " " + q.target + " " + q.version + "\r\n" + strings.Join(q.fields, "\r\n") + "\r\n\r\n" + q.body
}

// checkAnswer checks a server's answer to a valid request. It returns the agreed
// parameters of compression, nil if there is none.
func checkAnswer(h head, key string, offers []deflateParams) (*deflateParams, error) {
	switch {
	case h.status() != 101:
		return nil, fmt.Errorf("the answer is %q, not 101", h.first)
	case !h.has("upgrade", "websocket"):
		return nil, fmt.Errorf("the answer's Upgrade is %q", h.get("upgrade"))
	case !h.has("connection", "upgrade"):
		return nil, fmt.Errorf("the answer's Connection is %q", h.get("connection"))
	case len(h.fields["sec-websocket-accept"]) != 1 || h.get("sec-websocket-accept") != acceptOf(key):
		return nil, fmt.Errorf("the answer's Sec-WebSocket-Accept is %q, not %q", h.get("sec-websocket-accept"), acceptOf(key))
	case h.get("sec-websocket-protocol") != "":
		return nil, fmt.Errorf("the server chooses the subprotocol %q; none was offered", h.get("sec-websocket-protocol"))
	}
	return acceptAnswer(h.get("sec-websocket-extensions"), offers)
}

// A clientHello is what a client's request asks for.
type clientHello struct {
	head       head
	target     *url.URL
	key        string
	usedBefore bool // another connection used the key before
	offers     []deflateParams
}

// checkRequest checks a client's upgrade request.
func checkRequest(h head) (c clientHello, err error) {
	c.head = h
	parts := strings.Split(h.first, " ")
	if len(parts) != 3 || parts[0] != "GET" || parts[2] != "HTTP/1.1" {
		return c, fmt.Errorf("the request is %q", h.first)
	}
	if c.target, err = url.ParseRequestURI(parts[1]); err != nil {
		return c, err
	}
	keys := h.fields["sec-websocket-key"]
	switch {
	case len(h.fields["host"]) != 1:
		return c, errors.New("the request needs one Host")
	case !h.has("upgrade", "websocket"):
		return c, errors.New("no upgrade request")
	case !h.has("connection", "upgrade"):
		return c, fmt.Errorf("the request's Connection is %q", h.get("connection"))
	case h.get("sec-websocket-version") != "13":
		return c, fmt.Errorf("the request's Sec-WebSocket-Version is %q", h.get("sec-websocket-version"))
	case len(keys) != 1:
		return c, errors.New("the request needs one Sec-WebSocket-Key")
	}
	c.key = keys[0]
	if b, err := base64.StdEncoding.DecodeString(c.key); err != nil || len(b) != 16 {
		return c, fmt.Errorf("the request's Sec-WebSocket-Key is %q, not 16 bytes in base64", c.key)
	}
	list, err := parseExtensions(h.get("sec-websocket-extensions"))
	if err != nil {
		return c, err
	}
	for _, o := range list {
		if o.name != extension {
			continue
		}
		p, err := o.parseDeflate(false)
		if err != nil {
			return c, fmt.Errorf("the request offers %q: %w", h.get("sec-websocket-extensions"), err)
		}
		c.offers = append(c.offers, p)
	}
	return c, nil
}

// answer returns the answer of the suite's server to c; extensions may be empty.
func (c clientHello) answer(extensions string) string {
	s := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + acceptOf(c.key) + "\r\n"
	if extensions != "" {
		s += "Sec-WebSocket-Extensions: " + extensions + "\r\n"
	}
	return s + "\r\n"
}
