package ws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws/internal/handshake"
)

// Limits of the opening handshake.
const (
	DefaultHandshakeTimeout = 10 * time.Second
	DefaultMaxHeaderBytes   = 16 << 10 // of a request, or of a response to Dial

	// How much a refused client may still send, and for how long: closing earlier
	// would cause a reset that destroys the response before the client has read it.
	maxRefusedBytes = 1 << 20
	maxRefusedTime  = time.Second
)

// A Request is a client's request of an opening handshake.
type Request struct {
	Method string      // GET, for a handshake
	URI    string      // path and query, as the client sent them
	Host   string      // the Host header
	Header http.Header // the other headers, with canonical keys: see http.CanonicalHeaderKey
}

// A Response is an HTTP response with a body. The server closes the connection after it.
type Response struct {
	Status int         // 200 to 599
	Header http.Header // without those about the body, which are added
	Body   []byte
}

// A Refusal is an error with which Server.Authorize refuses a handshake and says which
// response the client gets.
type Refusal struct {
	Status int         // 300 to 599; 0 means 403
	Text   string      // the response's body: what is wrong and what to do; "" means the status's text
	Header http.Header // further headers of the response
	Err    error       // the cause, for the log at level Debug; the client does not see it
}

func (r *Refusal) Error() string { return (*handshake.Refusal)(r).Error() }

// Unwrap returns Err.
func (r *Refusal) Unwrap() error { return r.Err }

// handshaker returns the part of s that decides on requests. It does no I/O.
func (s *Server) handshaker() handshake.Server {
	h := handshake.Server{Subprotocols: s.Subprotocols, Origins: s.Origins}
	if s.Compression != nil {
		config := s.Compression.config()
		h.Deflate = &config
	}
	if s.Authorize != nil {
		h.Authorize = func(r *handshake.Request) (http.Header, error) {
			more, err := s.Authorize((*Request)(r))
			var ref *Refusal
			if errors.As(err, &ref) {
				err = (*handshake.Refusal)(ref)
			}
			return more, err
		}
	}
	if s.HandleHTTP != nil {
		h.HandleHTTP = func(r *handshake.Request) *handshake.Response {
			return (*handshake.Response)(s.HandleHTTP((*Request)(r)))
		}
	}
	return h
}

// accept does the server's side of the opening handshake on t, in the task with context
// ctx. When ctx ends, it answers with 503. It returns nil and no error if HandleHTTP has
// answered the request.
func (s *Server) accept(ctx context.Context, t *loop.Stream, deadline time.Time) (*handshake.Accepted, error) {
	stop, task := func() bool { return true }, loop.TaskOf(ctx)
	if ctx.Err() != nil {
		deadline = past
	} else {
		stop = task.Friend(key).AfterFunc(func() { _ = t.SetReadDeadline(past) })
		defer stop()
	}
	if err := t.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	var acc *handshake.Accepted
	var answer []byte
	head, err := readHead(t, s.maxHeaderBytes())
	switch {
	case err == nil:
		acc, answer, err = s.shake.Accept(head)
	case errors.Is(err, errHeadTooLong):
		ref := handshake.TooLong(s.maxHeaderBytes())
		answer, err = ref.Response().Append(nil, ""), ref
	case timeout(err) && ctx.Err() != nil:
		ref := &handshake.Refusal{Status: http.StatusServiceUnavailable, Text: "the server stops", Err: ctx.Err()}
		answer, err = ref.Response().Append(nil, ""), ref
	case timeout(err):
		ref := handshake.TooSlow()
		ref.Err = err
		answer, err = ref.Response().Append(nil, ""), ref
	default:
		return nil, fmt.Errorf("ws: opening handshake: %w", err)
	}
	if _, werr := t.Write(answer); werr != nil {
		return nil, fmt.Errorf("ws: opening handshake: %w", errors.Join(err, werr))
	}
	stop()
	if acc == nil {
		linger(t)
		if err != nil {
			err = fmt.Errorf("ws: opening handshake: %w", err)
		}
		return nil, err
	}
	return acc, t.SetReadDeadline(time.Time{})
}

// linger closes the sending half and drops what the refused client still sends, so that
// the client can read the response.
func linger(t *loop.Stream) {
	if t.SetReadDeadline(time.Now().Add(maxRefusedTime)) != nil || t.CloseWrite() != nil {
		return
	}
	for n := 0; n < maxRefusedBytes; {
		b, err := t.ReadBuf()
		if err != nil {
			return
		}
		n += b.Len()
		b.Release()
	}
}

var errHeadTooLong = errors.New("the head is too long")

// readHead reads the head of an HTTP request or response, up to the empty line that ends
// it, and puts back the bytes behind it. Its memory grows with what arrives.
func readHead(t *loop.Stream, limit int) ([]byte, error) {
	var head []byte
	for {
		b, err := t.ReadBuf()
		if err != nil {
			return nil, err
		}
		before := len(head)
		head = append(head, b.Bytes()[:min(b.Len(), limit+1-before)]...)
		from := max(0, before-3) // the empty line may lie across two buffers
		if end := endOfHead(head[from:]); end > 0 && from+end <= limit {
			end += from
			if b = b.Friend(key).Rest(end - before); b != nil {
				t.Unread(b)
			}
			return head[:end], nil
		}
		b.Release()
		if len(head) > limit {
			return nil, errHeadTooLong
		}
	}
}

// endOfHead returns the length of the head that p begins with, or 0 if p does not have
// the head's end. A line that ends with a bare LF counts as the end: it is an error
// already.
func endOfHead(p []byte) int {
	for at := 0; ; {
		i := bytes.IndexByte(p[at:], '\n')
		if i < 0 {
			return 0
		}
		at += i + 1
		if at >= 2 && p[at-2] != '\r' || at >= 4 && string(p[at-4:at]) == "\r\n\r\n" {
			return at
		}
	}
}
