package websocket

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"
)

// A serverTrap is a case that Autobahn does not have, about a server's opening
// handshake or about many connections. Its script returns the verdict and the reason.
type serverTrap struct {
	id, description, expectation string
	run                          func(x *trapRun) (Behavior, string)
}

// A trapRun is what such a script works with.
type trapRun struct {
	ctx    context.Context
	target *target
	key    string
	result *Result
}

// traps returns the server's cases that Autobahn does not have.
func (t *target) traps() (list []serverTrap, err error) {
	all := slices.Concat(handshakeTraps(t.options), offerTraps(), loadTraps())
	for _, c := range append(frameTraps(t.options), zeroMask()) {
		all = append(all, serverTrap{c.ID, c.Description, c.Expectation, func(x *trapRun) (Behavior, string) {
			*x.result = *x.target.run(x.ctx, c)
			return x.result.Behavior, x.result.Why
		}})
	}
	for _, c := range all {
		ok, err := selected(c.id, t.options.Include, t.options.Exclude)
		if err != nil {
			return nil, err
		}
		if ok {
			list = append(list, c)
		}
	}
	return list, nil
}

func (t *target) runTrap(ctx context.Context, c serverTrap) *Result {
	r := &Result{ID: c.id, Description: c.description, Expectation: c.expectation, Agent: t.options.Agent, Closing: CloseOK, ClosingWhy: "closed as it should be"}
	began := time.Now()
	r.Behavior, r.Why = c.run(&trapRun{ctx: ctx, target: t, key: newKey(), result: r})
	r.Millis = time.Since(began).Milliseconds()
	return r
}

// request returns a valid request that the script may spoil.
func (x *trapRun) request() *request { return newRequest(x.target.url, x.key, nil) }

// ask sends bytes and reads the answer. The caller must close the
// connection.
func (x *trapRun) ask(send func(w io.Writer) error) (net.Conn, *bufio.Reader, head, error) {
	conn, err := x.target.dial(x.ctx)
	if err != nil {
		return nil, nil, head{}, err
	}
	_ = conn.SetDeadline(time.Now().Add(x.target.options.Patience))
	// The answer may arrive, and end the sending, before everything is sent.
	sent := make(chan error, 1)
	go func() { sent <- send(conn) }()
	br := bufio.NewReaderSize(conn, 64<<10)
	h, err := readHead(br)
	x.result.Response = h.raw
	if err != nil {
		var sendErr error
		select {
		case sendErr = <-sent:
		default:
		}
		_ = conn.Close()
		return nil, nil, h, errors.Join(err, sendErr)
	}
	return conn, br, h, nil
}

// refused sends a request that the server must refuse with one of these codes (none:
// any from 400 to 499). Without codes the server may also end the connection without an
// answer.
func (x *trapRun) refused(send func(w io.Writer) error, codes ...int) (Behavior, string) {
	conn, _, h, err := x.ask(send)
	if err != nil {
		if isTimeout(err) {
			return Failed, "no answer, and the connection stays open"
		}
		if len(codes) > 0 {
			return NonStrict, fmt.Sprintf("the connection ended without an answer: %v", err)
		}
		return OK, "the connection ended without an answer"
	}
	_ = conn.Close()
	status := h.status()
	for _, c := range codes {
		if c == status {
			return OK, h.first
		}
	}
	switch {
	case status >= 400 && status <= 499 && len(codes) == 0:
		return OK, h.first
	case status >= 400 && status <= 499:
		return NonStrict, fmt.Sprintf("refused with %q, not one of %v", h.first, codes)
	}
	return Failed, fmt.Sprintf("answered with %q", h.first)
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func sending(s string) func(w io.Writer) error {
	return func(w io.Writer) error { _, err := io.WriteString(w, s); return err }
}

// handshakeTraps are the cases of lines 1, 2, 3 and 11.
func handshakeTraps(o Options) []serverTrap {
	refused := func(id, what string, spoil func(q *request) string, codes ...int) serverTrap {
		expectation := "It is refused."
		if len(codes) > 0 {
			expectation = fmt.Sprintf("It is refused with one of %v.", codes)
		}
		return serverTrap{id, what, expectation, func(x *trapRun) (Behavior, string) {
			raw := spoil(x.request())
			x.result.Request = raw[:min(len(raw), 4096)]
			return x.refused(sending(raw), codes...)
		}}
	}
	// A server may give an ordinary answer to a request that does not ask for
	// WebSocket.
	notUpgraded := func(id, what string, spoil func(q *request) string) serverTrap {
		return serverTrap{id, what, "It is not upgraded.", func(x *trapRun) (Behavior, string) {
			raw := spoil(x.request())
			x.result.Request = raw
			conn, _, h, err := x.ask(sending(raw))
			switch {
			case isTimeout(err):
				return Failed, "no answer, and the connection stays open"
			case err != nil:
				return OK, "the connection ended without an answer"
			}
			_ = conn.Close()
			if status := h.status(); status < 200 || status > 499 {
				return Failed, fmt.Sprintf("answered with %q", h.first)
			}
			return OK, h.first
		}}
	}
	set := func(name, value string) func(q *request) string {
		return func(q *request) string { return q.set(name, value).String() }
	}
	add := func(line string) func(q *request) string {
		return func(q *request) string { return q.add(line).String() }
	}
	list := []serverTrap{
		{"trap02.huge-head", "20 MB of headers.", "It is refused before its end.", func(x *trapRun) (Behavior, string) {
			return x.refused(func(w io.Writer) error {
				q := x.request().String()
				if _, err := io.WriteString(w, strings.TrimSuffix(q, "\r\n")); err != nil {
					return err
				}
				line := []byte(strings.Repeat("X-Filler: "+stars(990)+"\r\n", 64))
				for range 20_000_000 / len(line) {
					if _, err := w.Write(line); err != nil {
						return err
					}
				}
				_, err := io.WriteString(w, "\r\n")
				return err
			})
		}},
		{"trap02.endless-line", "A header line of 20 MB.", "It is refused before its end.", func(x *trapRun) (Behavior, string) {
			return x.refused(func(w io.Writer) error {
				q := x.request().String()
				if _, err := io.WriteString(w, strings.TrimSuffix(q, "\r\n")+"X-Filler: "); err != nil {
					return err
				}
				line := bytes.Repeat([]byte("x"), 64<<10)
				for range 20_000_000 / len(line) {
					if _, err := w.Write(line); err != nil {
						return err
					}
				}
				_, err := io.WriteString(w, "\r\n\r\n")
				return err
			})
		}},
		refused("trap02.bare-lf", "Lines that end with LF alone.", func(q *request) string { return strings.ReplaceAll(q.String(), "\r\n", "\n") }),
		refused("trap02.one-bare-lf", "One line that ends with LF alone.", func(q *request) string { return strings.Replace(q.add("X-A: b").String(), "X-A: b\r\n", "X-A: b\n", 1) }),
		refused("trap02.folded", "A folded line.", add("X-A: b\r\n c")),
		refused("trap02.folded-first", "A folded line before the first header.", func(q *request) string { return strings.Replace(q.String(), "\r\n", "\r\n X-A: b\r\n", 1) }),
		refused("trap02.space-before-colon", "A space between a header's name and its colon.", add("X-A : b")),
		refused("trap02.no-colon", "A line without a colon.", add("X-A")),
		refused("trap02.empty-name", "A header without a name.", add(": b")),
		refused("trap02.no-host", "No Host.", set("Host", "")),
		refused("trap02.two-hosts", "Two Hosts.", add("Host: elsewhere.example")),
		refused("trap02.two-content-lengths", "Two different Content-Lengths.", add("Content-Length: 0\r\nContent-Length: 5")),
		refused("trap02.content-length", "A body.", func(q *request) string { return q.add("Content-Length: 5").String() + "hello" }),
		refused("trap02.transfer-encoding", "A chunked body.", func(q *request) string { return q.add("Transfer-Encoding: chunked").String() + "0\r\n\r\n" }),
		refused("trap02.method", "POST.", func(q *request) string { q.method = "POST"; return q.String() }),
		refused("trap02.http-1.0", "HTTP/1.0.", func(q *request) string { q.version = "HTTP/1.0"; return q.String() }, 400, 426, 505),
		notUpgraded("trap02.no-upgrade", "No Upgrade.", set("Upgrade", "")),
		notUpgraded("trap02.other-upgrade", "An Upgrade to something else.", set("Upgrade", "h2c")),
		refused("trap02.no-connection", "No Connection.", set("Connection", "")),
		refused("trap02.keep-alive", "A Connection without Upgrade.", set("Connection", "keep-alive")),
		refused("trap02.no-key", "No key.", set("Sec-WebSocket-Key", "")),
		refused("trap02.short-key", "A key of 8 bytes.", set("Sec-WebSocket-Key", "AAAAAAAAAAA=")),
		refused("trap02.long-key", "A key of 24 bytes.", set("Sec-WebSocket-Key", strings.Repeat("A", 32))),
		refused("trap02.bad-key", "A key that is not base64.", set("Sec-WebSocket-Key", "!!!!!!!!!!!!!!!!!!!!!!==")),
		refused("trap02.two-keys", "Two keys.", add("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")),
		refused("trap02.garbage", "Bytes that are not a request.", func(*request) string { return "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n" }),
		wrongVersion("trap02.version-12", "12"),
		wrongVersion("trap02.version-0", "0"),
		wrongVersion("trap02.no-version", ""),
		{"trap02.tokens", "Upgrade and Connection in other words: WebSocket, keep-alive, Upgrade.", "It is accepted.", func(x *trapRun) (Behavior, string) {
			return x.accepted(x.request().set("Upgrade", "WebSocket").set("Connection", "keep-alive, Upgrade"))
		}},
		{"trap02.lower-case", "Header names in lower case.", "It is accepted.", func(x *trapRun) (Behavior, string) {
			return x.accepted(x.request().rename(strings.ToLower))
		}},
		{"trap02.two-connections", "A Connection in two lines: keep-alive and Upgrade.", "It is accepted.", func(x *trapRun) (Behavior, string) {
			return x.accepted(x.request().set("Connection", "keep-alive").add("Connection: Upgrade"))
		}},
		{"trap02.long-head", "A cookie as long as browsers send them.", "It is accepted.", func(x *trapRun) (Behavior, string) {
			return x.accepted(x.request().add("Cookie: " + longCookie))
		}},
		{"trap02.subprotocol-injection", "A subprotocol with a CR in it.", "It is refused, or nothing of it comes back.", func(x *trapRun) (Behavior, string) {
			q := x.request().set("Sec-WebSocket-Protocol", "chat\rX-Injected: 1")
			conn, _, h, err := x.ask(sending(q.String()))
			if err != nil {
				if isTimeout(err) {
					return Failed, "no answer, and the connection stays open"
				}
				return OK, "the connection ended"
			}
			_ = conn.Close()
			if strings.Contains(h.raw, "njected") || h.get("sec-websocket-protocol") != "" {
				return Failed, fmt.Sprintf("the answer has it: %q", h.raw)
			}
			return OK, h.first
		}},
		{"trap03.together", "A text in the same segment as the request.", "It comes back.", func(x *trapRun) (Behavior, string) {
			q := x.request()
			q.body = string(text(hello).append(nil, true))
			return x.echoes(q, nil)
		}},
		{"trap03.half", "Half a frame in the same segment as the request, the other half later.", "The text comes back.", func(x *trapRun) (Behavior, string) {
			q := x.request()
			b := text(hello).append(nil, true)
			q.body = string(b[:9])
			return x.echoes(q, b[9:])
		}},
		{"trap03.bytewise", "The request a byte at a time, with a text after it.", "The text comes back.", func(x *trapRun) (Behavior, string) {
			raw := x.request().String()
			return x.echoesAfter(func(w io.Writer) error {
				for i := range len(raw) {
					if _, err := io.WriteString(w, raw[i:i+1]); err != nil {
						return err
					}
					if i < maxPaced {
						time.Sleep(pace)
					}
				}
				_, err := w.Write(text(hello).append(nil, true))
				return err
			}, nil)
		}},
		refused("trap11.foreign-origin", "An Origin of another host.", set("Origin", "https://attacker.example"), 403),
		refused("trap11.similar-origin", "An Origin that begins as the host does.", func(q *request) string {
			_, host, _ := strings.Cut(q.fields[0], ": ")
			return q.set("Origin", "http://"+host+".attacker.example").String()
		}, 403),
		refused("trap11.null-origin", "The Origin null.", set("Origin", "null"), 403),
		{"trap11.same-origin", "An Origin that is the host.", "It is accepted.", func(x *trapRun) (Behavior, string) {
			return x.accepted(x.request().set("Origin", "http://"+x.target.url.Host))
		}},
	}
	if o.HandshakeTimeout > 0 {
		list = append(list, slowHandshakes(o.HandshakeTimeout)...)
	}
	return list
}

// longCookie is nearly the longest that browsers keep, which is 4096 bytes.
var longCookie = "session=" + stars(3800)

func wrongVersion(id, version string) serverTrap {
	return serverTrap{id, fmt.Sprintf("Version %q.", version), "426, with the supported version.", func(x *trapRun) (Behavior, string) {
		conn, _, h, err := x.ask(sending(x.request().set("Sec-WebSocket-Version", version).String()))
		if err != nil {
			return Failed, "no answer: " + err.Error()
		}
		_ = conn.Close()
		switch status := h.status(); {
		case status < 400 || status > 499:
			return Failed, fmt.Sprintf("answered with %q", h.first)
		case !h.has("sec-websocket-version", "13"):
			return Failed, fmt.Sprintf("refused with %q, but without saying that version 13 is supported", h.first)
		case status != 426 && version != "":
			return NonStrict, fmt.Sprintf("refused with %q, not 426", h.first)
		}
		return OK, h.first
	}}
}

// accepted sends a valid request.
func (x *trapRun) accepted(q *request) (Behavior, string) {
	return x.echoes(q, text(hello).append(nil, true))
}

// echoes sends a request and then more, and requires the echo of hello.
func (x *trapRun) echoes(q *request, more []byte) (Behavior, string) {
	x.result.Request = q.String()
	return x.echoesAfter(sending(q.String()), more)
}

func (x *trapRun) echoesAfter(send func(w io.Writer) error, more []byte) (Behavior, string) {
	conn, br, h, err := x.ask(send)
	if err != nil {
		return Failed, err.Error()
	}
	if _, err := checkAnswer(h, x.key, nil); err != nil {
		_ = conn.Close()
		return Failed, err.Error()
	}
	_ = conn.SetDeadline(time.Time{})
	s := newSession(conn, br, false, nil)
	c := Case{strict: true, expect: expects(gotText(hello)), run: func(s *session) {
		s.write(more)
		s.closeAfter()
	}}
	play(x.ctx, s, c, x.target.options, x.result)
	return x.result.Behavior, x.result.Why
}
