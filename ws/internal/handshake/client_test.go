package handshake_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/ws/internal/deflate"
	"github.com/noria-go/noria/ws/internal/handshake"
)

func address(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	require.NoError(t, err)
	return u
}

func TestAcceptKey(t *testing.T) {
	require.Equal(t, exampleAccept, handshake.AcceptKey(exampleKey))
}

func TestTheRequest(t *testing.T) {
	c := &handshake.Client{
		Header:       http.Header{"X-Token": {"a", "b"}, "Origin": {"http://here"}},
		Subprotocols: []string{"mqtt", "chat"},
		Deflate:      &deflate.Config{},
	}
	keys := map[string]bool{}
	for range 100 {
		a, err := c.Start(address(t, "wss://me:secret@example.com:8443/a%20b/c?d=e%26"))
		require.NoError(t, err)
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(a.Request)))
		require.NoError(t, err)
		require.True(t, bytes.HasSuffix(a.Request, []byte("\r\n\r\n")))
		require.Equal(t, "GET", r.Method)
		require.Equal(t, "/a%20b/c?d=e%26", r.RequestURI)
		require.Equal(t, "example.com:8443", r.Host)
		require.Equal(t, []string{"a", "b"}, r.Header["X-Token"])
		require.Equal(t, "http://here", r.Header.Get("Origin"))
		require.Equal(t, "mqtt, chat", r.Header.Get("Sec-WebSocket-Protocol"))
		require.Equal(t, "permessage-deflate; client_max_window_bits", r.Header.Get("Sec-WebSocket-Extensions"))
		user, password, _ := r.BasicAuth()
		require.Equal(t, "me secret", user+" "+password)
		key := r.Header.Get("Sec-WebSocket-Key")
		raw, err := base64.StdEncoding.DecodeString(key)
		require.NoError(t, err)
		require.Len(t, raw, 16)
		require.False(t, keys[key], "a key twice")
		keys[key] = true

		// The server of this package accepts it.
		s := &handshake.Server{Subprotocols: []string{"chat"}, Deflate: &deflate.Config{ServerMaxWindowBits: 12}, Origins: []string{"here"}}
		accepted, response, err := s.Accept(a.Request)
		require.NoError(t, err)
		o, err := a.Response(response, []byte("frames"))
		require.NoError(t, err)
		require.Equal(t, "chat", o.Subprotocol)
		require.Equal(t, accepted.Deflate, o.Deflate)
		require.Equal(t, 12, o.Deflate.ServerMaxWindowBits)
	}
}

func TestHostAndRoot(t *testing.T) {
	a, err := (&handshake.Client{Host: "other.example"}).Start(address(t, "ws://127.0.0.1:1"))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(a.Request), "GET / HTTP/1.1\r\nHost: other.example\r\n"), "%s", a.Request)
}

func TestWhatCannotBeStarted(t *testing.T) {
	for says, tt := range map[string]struct {
		url string
		c   handshake.Client
	}{
		"scheme":         {url: "tcp://a/"},
		"no host":        {url: "ws:///a"},
		"%23":            {url: "ws://a/b#c"},
		"subprotocol":    {url: "ws://a/", c: handshake.Client{Subprotocols: []string{"a\r\nX: 1"}}},
		"twice":          {url: "ws://a/", c: handshake.Client{Subprotocols: []string{"a", "a"}}},
		"end the line":   {url: "ws://a/", c: handshake.Client{Header: http.Header{"X": {"1\nY: 2"}}}},
		"is not a token": {url: "ws://a/", c: handshake.Client{Header: http.Header{"X Y": {"1"}}}},
		"cannot be set":  {url: "ws://a/", c: handshake.Client{Header: http.Header{"sec-websocket-key": {"1"}}}},
		"the host":       {url: "ws://a/", c: handshake.Client{Host: "a\r\nX: 1"}},
		"MaxWindowBits":  {url: "ws://a/", c: handshake.Client{Deflate: &deflate.Config{ClientMaxWindowBits: 99}}},
	} {
		_, err := tt.c.Start(address(t, tt.url))
		require.ErrorContains(t, err, says)
	}
}

func TestTheResponse(t *testing.T) {
	const good = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: KEY\r\n\r\n"
	for name, tt := range map[string]struct {
		old, new string
		says     string // "": no error
	}{
		"good":                          {},
		"no reason":                     {" Switching Protocols", "", ""},
		"tokens in whatever case":       {"Upgrade: websocket\r\nConnection: Upgrade", "upgrade: WebSocket\r\nconnection: keep-alive, upgrade", ""},
		"a subprotocol":                 {"\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n", ""},
		"compression":                   {"\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=9\r\n\r\n", ""},
		"HTTP/1.0":                      {"HTTP/1.1", "HTTP/1.0", "HTTP/1.1"},
		"no HTTP":                       {"HTTP/1.1 101", "SSH-2.0", "not HTTP"},
		"no number":                     {"101", "1O1", "not HTTP"},
		"four digits":                   {"101", "0101", "not HTTP"},
		"bare line feed":                {"\r\nUpgrade", "\nUpgrade", "line feed"},
		"folded":                        {"Upgrade: websocket", "Upgrade:\r\n websocket", "next line"},
		"no upgrade":                    {"Upgrade: websocket\r\n", "", "Upgrade: websocket"},
		"another upgrade":               {"websocket", "h2c", "h2c"},
		"no connection":                 {"Connection: Upgrade\r\n", "", "Connection: Upgrade"},
		"no accept":                     {"Sec-WebSocket-Accept: KEY\r\n", "", "0 Sec-WebSocket-Accept"},
		"two accepts":                   {"\r\n\r\n", "\r\nSec-WebSocket-Accept: KEY\r\n\r\n", "2 Sec-WebSocket-Accept"},
		"accept of another key":         {"KEY", exampleAccept, "does not match"},
		"a subprotocol not offered":     {"\r\n\r\n", "\r\nSec-WebSocket-Protocol: Chat\r\n\r\n", "did not offer"},
		"two subprotocols":              {"\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat\r\n\r\n", "2 subprotocols"},
		"a list of subprotocols":        {"\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat, chat\r\n\r\n", "did not offer"},
		"an extension not offered":      {"\r\n\r\n", "\r\nSec-WebSocket-Extensions: x-frame\r\n\r\n", "not offered"},
		"two extensions":                {"\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate, permessage-deflate\r\n\r\n", "2 extensions"},
		"extensions that do not parse":  {"\r\n\r\n", "\r\nSec-WebSocket-Extensions: ;\r\n\r\n", "Sec-WebSocket-Extensions"},
		"a window that was not offered": {"\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=16\r\n\r\n", "want 8 to 15"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &handshake.Client{Subprotocols: []string{"chat"}, Deflate: &deflate.Config{}}
			a, err := c.Start(address(t, "ws://example.com/"))
			require.NoError(t, err)
			_, key, _ := strings.Cut(string(a.Request), "Sec-WebSocket-Key: ")
			key, _, _ = strings.Cut(key, "\r\n")
			head := good
			if tt.old != "" {
				require.Contains(t, head, tt.old)
				head = strings.Replace(head, tt.old, tt.new, 1)
			}
			o, err := a.Response([]byte(strings.ReplaceAll(head, "KEY", handshake.AcceptKey(key))), nil)
			if tt.says != "" {
				require.ErrorContains(t, err, tt.says)
				require.Nil(t, o)
				return
			}
			require.NoError(t, err)
			require.Equal(t, name == "a subprotocol", o.Subprotocol == "chat")
			require.Equal(t, name == "compression", o.Deflate != nil)
		})
	}
	a, err := (&handshake.Client{}).Start(address(t, "ws://example.com/"))
	require.NoError(t, err)
	_, key, _ := strings.Cut(string(a.Request), "Sec-WebSocket-Key: ")
	head := strings.Replace(good, "KEY\r\n", handshake.AcceptKey(key[:24])+"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n", 1)
	_, err = a.Response([]byte(head), nil)
	require.ErrorContains(t, err, "none was offered")
}

func TestAnotherStatus(t *testing.T) {
	a, err := (&handshake.Client{}).Start(address(t, "ws://example.com/"))
	require.NoError(t, err)
	long := strings.Repeat("x", 2*handshake.MaxErrorBody)
	_, err = a.Response([]byte("HTTP/1.1 401 Who are you\r\nWWW-Authenticate: Basic\r\nContent-Length: 9\r\n\r\n"), []byte("log in first\n"+long))
	var status *handshake.StatusError
	require.ErrorAs(t, err, &status)
	require.Equal(t, 401, status.Status)
	require.Equal(t, "Who are you", status.Reason)
	require.Equal(t, "Basic", status.Header.Get("WWW-Authenticate"))
	require.Len(t, status.Body, handshake.MaxErrorBody)
	require.EqualError(t, err, `the server answered 401 Who are you: "log in first"`)
	_, err = a.Response([]byte("HTTP/1.0 302 Found\r\nLocation: http://else.where/\r\n\r\n"), nil)
	require.EqualError(t, err, `the server answered 302 Found, which redirects to "http://else.where/" (not followed)`)
}
