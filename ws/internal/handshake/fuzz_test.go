package handshake_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/ws/internal/deflate"
	"github.com/noria-go/noria/ws/internal/handshake"
)

// Any input is answered with exactly one HTTP response, and net/http and AcceptHTTP
// accept what Accept accepts.
func FuzzRequest(f *testing.F) {
	f.Add(request())
	f.Add(request("Origin: http://server.example.com", "Sec-WebSocket-Protocol: a, chat", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"))
	f.Add(request("Connection: Upgrade → Connection: keep-alive,Upgrade", "Content-Length: 0"))
	f.Add(request("\r\nUpgrade → \nUpgrade"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
	s := &handshake.Server{Subprotocols: []string{"chat"}, Deflate: &deflate.Config{}, Origins: []string{"*.example.com"}}
	f.Fuzz(func(t *testing.T, head []byte) { checkRequest(t, s, head) })
}

// FuzzHeaders is FuzzRequest with the rest of the request valid, so that the fuzzer
// reaches the code that reads the headers.
func FuzzHeaders(f *testing.F) {
	f.Add("/", "a", "http://a", "chat", "permessage-deflate", "Upgrade", "websocket", "X: y")
	f.Add("http://b/?x", "a:80", "https://x.example.com", "a, chat", "x; y=\"z\", permessage-deflate; client_max_window_bits=9", "keep-alive, upgrade", "h2c, WebSocket", "Content-Length: 0")
	s := &handshake.Server{Subprotocols: []string{"chat"}, Deflate: &deflate.Config{}, Origins: []string{"*.example.com"}}
	f.Fuzz(func(t *testing.T, uri, host, origin, protocols, extensions, connection, upgrade, more string) {
		checkRequest(t, s, fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nOrigin: %s\r\nSec-WebSocket-Protocol: %s\r\nSec-WebSocket-Extensions: %s\r\nConnection: %s\r\nUpgrade: %s\r\n%s\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n",
			uri, host, origin, protocols, extensions, connection, upgrade, more, exampleKey))
	})
}

func checkRequest(t *testing.T, s *handshake.Server, head []byte) {
	before := bytes.Clone(head)
	a, response, err := s.Accept(head)
	require.Equal(t, before, head)
	rd := bufio.NewReader(bytes.NewReader(response))
	r, rerr := http.ReadResponse(rd, nil)
	require.NoError(t, rerr, "%q", response)
	require.Equal(t, err == nil, a != nil)
	require.Equal(t, a != nil, r.StatusCode == 101)
	if a == nil {
		body(t, r)
	}
	_, err = rd.ReadByte()
	require.Error(t, err, "something behind the response: %q", response)
	if a == nil {
		return
	}
	require.Contains(t, []string{"", "chat"}, r.Header.Get("Sec-WebSocket-Protocol"))
	hr, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		return // net/http refuses some hosts and paths that this package ignores
	}
	require.Equal(t, hr.Host, a.Request.Host)
	ha, hresponse, err := s.AcceptHTTP(hr)
	require.NoError(t, err)
	require.Equal(t, a.Subprotocol, ha.Subprotocol)
	require.Equal(t, response, hresponse)
}

// Whatever a server answers, a client accepts only what it offered, and only with
// the right accept key.
func FuzzResponse(f *testing.F) {
	f.Add("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: KEY\r\nSec-WebSocket-Protocol: chat\r\n\r\n", []byte{})
	f.Add("HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: KEY\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=9\r\n\r\n", []byte{})
	f.Add("HTTP/1.1 404 Not Found\r\nServer: x\r\n\r\n", []byte("gone"))
	u, err := url.Parse("ws://example.com/")
	require.NoError(f, err)
	c := &handshake.Client{Subprotocols: []string{"chat"}, Deflate: &deflate.Config{ServerMaxWindowBits: 12}}
	f.Fuzz(func(t *testing.T, head string, after []byte) {
		a, err := c.Start(u)
		require.NoError(t, err)
		_, key, _ := strings.Cut(string(a.Request), "Sec-WebSocket-Key: ")
		accept := handshake.AcceptKey(key[:24])
		o, err := a.Response([]byte(strings.ReplaceAll(head, "KEY", accept)), after)
		if err != nil {
			require.Nil(t, o)
			require.NotEmpty(t, err.Error())
			return
		}
		require.Contains(t, head, "KEY")
		require.Equal(t, []string{accept}, o.Header["Sec-Websocket-Accept"])
		require.Contains(t, []string{"", "chat"}, o.Subprotocol)
		if o.Deflate != nil {
			require.LessOrEqual(t, o.Deflate.ServerMaxWindowBits, 12)
		}
	})
}
