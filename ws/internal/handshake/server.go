package handshake

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"

	gobwas "github.com/gobwas/ws"

	"github.com/noria-go/noria/ws/internal/deflate"
)

// A Server answers requests. The zero value accepts every handshake of its own
// origin, without subprotocols and extensions. Any goroutine may use a Server, and
// nothing may change it while it is in use.
type Server struct {
	// Subprotocols are those that the server speaks. The first of the client's that
	// is among them is chosen, or none.
	Subprotocols []string

	// Origins are patterns of the origins that may connect besides the server's own.
	Origins Origins

	// Deflate configures the compression that the server accepts; nil means none.
	Deflate *deflate.Config

	// Authorize is called last. The headers that it returns are added to the response.
	// An error refuses the handshake: with the status and text of a *Refusal, and
	// otherwise with 403 and no reason.
	Authorize func(*Request) (http.Header, error)

	// HandleHTTP answers requests that ask for no upgrade. Where it returns nil, or is
	// nil, the request is refused.
	HandleHTTP func(*Request) *Response
}

// Validate reports what is wrong with s.
func (s *Server) Validate() error {
	if s.Deflate != nil {
		if err := s.Deflate.Check(); err != nil {
			return err
		}
	}
	return errors.Join(checkProtocols(s.Subprotocols), s.Origins.Validate())
}

// Accepted is the outcome of a handshake that the server accepted.
type Accepted struct {
	Request     *Request
	Subprotocol string          // "" if there is none
	Deflate     *deflate.Params // nil if there is no compression
}

// Accept answers the request with this head. It returns the response, which the
// caller must send in any case. If the handshake is accepted, it returns the
// Accepted and the connection is a WebSocket from then on. Otherwise the caller
// must close the connection after the response; the error is the *Refusal, or nil
// if HandleHTTP answered.
func (s *Server) Accept(head []byte) (*Accepted, []byte, error) {
	r, ref := parseRequest(head)
	if ref != nil {
		return nil, ref.Response().Append(nil, ""), ref
	}
	return s.decide(r)
}

// AcceptHTTP is Accept for a request that net/http has parsed.
func (s *Server) AcceptHTTP(hr *http.Request) (*Accepted, []byte, error) {
	r := &Request{Method: hr.Method, URI: hr.RequestURI, Host: hr.Host, Header: hr.Header.Clone()}
	if r.Header == nil {
		r.Header = http.Header{}
	}
	ref := r.checkTarget()
	if ref == nil && hr.ProtoMajor > 1 && hr.ContentLength == 0 && checkHost(r.Host) == nil { // HTTP/2 has no upgrade, but it may ask for a page
		if answer, err := s.plain(r); answer != nil {
			return nil, answer, err
		}
	}
	switch {
	case hr.ProtoMajor != 1 || hr.ProtoMinor < 1:
		ref = refuse(http.StatusHTTPVersionNotSupported, "the request is %s: a WebSocket handshake is HTTP/1.1 (RFC 6455 §4.1)", hr.Proto)
	case len(hr.TransferEncoding) > 0 || hr.ContentLength > 0:
		ref = refuse(http.StatusBadRequest, "the request has a body: a WebSocket handshake has none")
	}
	if ref != nil {
		return nil, ref.Response().Append(nil, r.Method), ref
	}
	return s.decide(r)
}

func (s *Server) decide(r *Request) (*Accepted, []byte, error) {
	if ref := checkHost(r.Host); ref != nil {
		return nil, ref.Response().Append(nil, r.Method), ref
	}
	if !hasToken(r.Header[headerUpgrade], "websocket") {
		if answer, err := s.plain(r); answer != nil {
			return nil, answer, err
		}
		ref := refuse(http.StatusUpgradeRequired, "this is a WebSocket server: connect with a WebSocket client, which sends \"Upgrade: websocket\"").
			with(headerUpgrade, "websocket").with(headerConnection, "close, Upgrade")
		return nil, ref.Response().Append(nil, r.Method), ref
	}
	a, response, ref := s.upgrade(r)
	if ref != nil {
		return nil, ref.Response().Append(nil, r.Method), ref
	}
	return a, response, nil
}

// plain returns HandleHTTP's answer to a request that asks for no upgrade, or nil.
func (s *Server) plain(r *Request) (answer []byte, err error) {
	if s.HandleHTTP == nil {
		return nil, nil
	}
	a := s.HandleHTTP(r)
	if a == nil {
		return nil, nil
	}
	if a.Status < 200 || a.Status > 599 {
		ref := noStatus("page", a.Status)
		return ref.Response().Append(nil, r.Method), ref
	}
	return a.Append(nil, r.Method), nil
}

// noStatus is the refusal for a program's answer whose status is invalid or would
// start another protocol.
func noStatus(what string, status int) *Refusal {
	return &Refusal{Status: http.StatusInternalServerError, Text: "the server's " + what + " has a status that cannot be sent", Err: fmt.Errorf("the status is %d", status)}
}

// checkUpgrade checks the headers of the handshake and returns the key (RFC 6455
// §4.2.1).
func checkUpgrade(r *Request) (key string, ref *Refusal) {
	h := r.Header
	if r.Method != http.MethodGet {
		return "", refuse(http.StatusMethodNotAllowed, "the method is %.20s: a WebSocket handshake is a GET", r.Method).with("Allow", http.MethodGet)
	}
	if !hasToken(h[headerConnection], "upgrade") {
		return "", refuse(http.StatusBadRequest, "the Connection header does not say Upgrade: a proxy in front of this server may need to be configured to pass it on")
	}
	switch v := h[headerVersion]; {
	case len(v) == 0:
		return "", refuse(http.StatusBadRequest, "the Sec-WebSocket-Version header is missing: this server speaks version "+Version).with(headerVersion, Version)
	case len(v) > 1 || v[0] != Version:
		return "", refuse(http.StatusUpgradeRequired, "the version is %.20q: this server speaks version "+Version, v[0]).
			with(headerVersion, Version).with(headerUpgrade, "websocket").with(headerConnection, "close, Upgrade")
	}
	if n := len(h[headerKey]); n != 1 {
		return "", refuse(http.StatusBadRequest, "the request has %d Sec-WebSocket-Key headers: send one", n)
	}
	key = h.Get(headerKey)
	if b, err := base64.StdEncoding.Strict().DecodeString(key); err != nil || len(b) != 16 || len(key) != 24 {
		return "", refuse(http.StatusBadRequest, "the Sec-WebSocket-Key is not 16 bytes in base64")
	}
	return key, nil
}

func (s *Server) upgrade(r *Request) (*Accepted, []byte, *Refusal) {
	key, ref := checkUpgrade(r)
	if ref != nil {
		return nil, nil, ref
	}
	if ref := s.Origins.check(r); ref != nil {
		return nil, nil, ref
	}
	a := &Accepted{Request: r}
	offered, err := tokens(r.Header[headerProtocol])
	if err != nil {
		return nil, nil, refuse(http.StatusBadRequest, "the Sec-WebSocket-Protocol header is malformed: %v", err)
	}
	a.Subprotocol = s.choose(offered)
	extensions, err := deflate.ParseExtensions(r.Header[headerExtensions])
	if err != nil {
		return nil, nil, refuse(http.StatusBadRequest, "the Sec-WebSocket-Extensions header is malformed: %v", err)
	}
	var more http.Header
	if s.Authorize != nil {
		if more, err = s.Authorize(r); err != nil {
			var ref *Refusal
			if !errors.As(err, &ref) {
				ref = &Refusal{Err: err}
			}
			if st := ref.status(); st < 300 || st > 599 {
				ref = noStatus("refusal", st)
			}
			return nil, nil, ref
		}
		if err := checkHeader(more); err != nil {
			return nil, nil, &Refusal{Status: http.StatusInternalServerError, Text: "the server's check returned a header that cannot be sent", Err: err}
		}
	}
	answer := ""
	if s.Deflate != nil {
		if p, value, ok := s.Deflate.Accept(extensions); ok {
			a.Deflate, answer = &p, value
		}
	}
	response, err := respond(key, a.Subprotocol, answer, more)
	if err != nil {
		return nil, nil, &Refusal{Status: http.StatusInternalServerError, Text: "the handshake failed", Err: err}
	}
	return a, response, nil
}

// choose returns the first of the client's subprotocols that the server speaks.
func (s *Server) choose(offered []string) string {
	for _, p := range offered {
		for _, spoken := range s.Subprotocols {
			if p == spoken {
				return p
			}
		}
	}
	return ""
}

// respond returns the response that gobwas/ws writes. Its Upgrader is given the
// request in its plainest form, because it accepts neither a list in an Upgrade
// header nor two Connection headers.
func respond(key, subprotocol, extensions string, more http.Header) ([]byte, error) {
	request := fmt.Sprintf("GET / HTTP/1.1\r\nHost: noria\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: %s\r\nSec-WebSocket-Key: %s\r\n", Version, key)
	if subprotocol != "" {
		request += "Sec-WebSocket-Protocol: " + subprotocol + "\r\n"
	}
	u := gobwas.Upgrader{
		ProtocolCustom: func([]byte) (string, bool) { return subprotocol, true },
		Header: gobwas.HandshakeHeaderFunc(func(w io.Writer) (int64, error) {
			var b []byte
			if extensions != "" {
				b = append(b, "Sec-WebSocket-Extensions: "+extensions+"\r\n"...)
			}
			n, err := w.Write(appendHeader(b, more))
			return int64(n), err
		}),
	}
	var response bytes.Buffer
	_, err := u.Upgrade(struct {
		io.Reader
		io.Writer
	}{bytes.NewReader([]byte(request + "\r\n")), &response})
	return response.Bytes(), err
}
