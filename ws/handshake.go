package ws

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/gobwas/httphead"
	gobwas "github.com/gobwas/ws"

	"github.com/noria-go/noria/runtime"
)

// A Request is what a client asked for in its opening handshake.
type Request struct {
	URI    string      // path and query, as it was sent
	Host   string      // the Host header
	Header http.Header // all others
}

// Limits of the opening handshake.
const (
	DefaultHandshakeTimeout = 10 * time.Second
	DefaultMaxHead          = 16 << 10 // bytes of the request or response
)

var errHeadTooLong = errors.New("ws: the opening handshake is too long")

// readHead reads up to the empty line that ends an HTTP head, and puts back
// what follows it.
func readHead(s *runtime.Stream, limit int) ([]byte, error) {
	var head []byte
	for {
		b, err := s.ReadBuf()
		if err != nil {
			return nil, err
		}
		before := len(head)
		head = append(head, b.Bytes()...)
		from := max(0, before-3) // the end may lie across two buffers
		if end := bytes.Index(head[from:], []byte("\r\n\r\n")); end >= 0 {
			end += from
			b.Advance(end + 4 - before)
			s.Unread(b)
			return head[:end+4], nil
		}
		b.Release()
		if len(head) > limit {
			return nil, errHeadTooLong
		}
	}
}

type headConn struct {
	io.Reader
	io.Writer
}

func (s *Server) accept(stream *runtime.Stream) (*Request, string, error) {
	if err := stream.SetReadDeadline(time.Now().Add(s.handshakeTimeout())); err != nil {
		return nil, "", err
	}
	head, err := readHead(stream, s.maxHead())
	if err != nil {
		return nil, "", err
	}
	req := &Request{Header: http.Header{}}
	up := gobwas.Upgrader{
		ReadBufferSize: len(head),
		OnRequest:      func(uri []byte) error { req.URI = string(uri); return nil },
		OnHost:         func(host []byte) error { req.Host = string(host); return nil },
		OnHeader: func(key, value []byte) error {
			req.Header.Add(string(key), string(value))
			return nil
		},
		Protocol: func(p []byte) bool {
			for _, want := range s.Subprotocols {
				if want == string(p) {
					return true
				}
			}
			return false
		},
		Negotiate: func(httphead.Option) (httphead.Option, error) { return httphead.Option{}, nil },
	}
	hs, err := up.Upgrade(headConn{bytes.NewReader(head), stream})
	if err != nil {
		return nil, "", fmt.Errorf("ws: opening handshake: %w", err)
	}
	return req, hs.Protocol, stream.SetReadDeadline(time.Time{})
}
