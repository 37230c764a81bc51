package handshake_test

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/ws/internal/deflate"
	"github.com/noria-go/noria/ws/internal/handshake"
)

// The example of RFC 6455 §1.2.
const (
	exampleKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	exampleAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// request returns a valid request. A change is "old → new" for its text, or a line
// to add.
func request(changes ...string) []byte {
	s := "GET /chat?a=1 HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: " + exampleKey + "\r\nSec-WebSocket-Version: 13\r\n\r\n"
	for _, c := range changes {
		if from, to, ok := strings.Cut(c, " → "); ok {
			if !strings.Contains(s, from) {
				panic("the request has no " + from)
			}
			s = strings.Replace(s, from, to, 1)
		} else {
			s = strings.TrimSuffix(s, "\r\n") + c + "\r\n\r\n"
		}
	}
	return []byte(s)
}

func parse(t *testing.T, response []byte) *http.Response {
	t.Helper()
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(response)), nil)
	require.NoError(t, err, "%q", response)
	return r
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	var b bytes.Buffer
	_, err := b.ReadFrom(r.Body)
	require.NoError(t, err)
	return b.String()
}

func TestAccept(t *testing.T) {
	full := deflate.Params{ServerMaxWindowBits: 15, ClientMaxWindowBits: 15}
	spoken := &handshake.Server{Subprotocols: []string{"graphql", "mqtt"}, Deflate: &deflate.Config{}}
	for name, tt := range map[string]struct {
		server     *handshake.Server
		changes    []string
		protocol   string
		deflate    *deflate.Params
		extensions string
	}{
		"plain":                                 {},
		"tokens in whatever case":               {changes: []string{"Upgrade: websocket → uPGRADE: WebSocket", "Connection: Upgrade → CONNECTION:keep-alive , UPGRADE"}},
		"a list in Upgrade":                     {changes: []string{"Upgrade: websocket → Upgrade: h2c, websocket"}},
		"two Connection headers":                {changes: []string{"Connection: keep-alive"}},
		"the list continues in a second header": {changes: []string{"Connection: Upgrade → Connection: keep-alive", "Connection: Upgrade"}},
		"no space after the colon, many before": {changes: []string{"Upgrade: websocket → Upgrade:  \t websocket \t "}},
		"an absolute URI":                       {changes: []string{"/chat?a=1 → http://server.example.com/chat?a=1"}},
		"an absolute URI, another Host":         {changes: []string{"/chat?a=1 → http://server.example.com/chat?a=1", "Host: server.example.com → Host: other.example.com", "Origin: http://server.example.com"}},
		"a length of no body":                   {changes: []string{"Content-Length: 0"}},
		"unsupported extensions":                {changes: []string{"Sec-WebSocket-Extensions: permessage-deflate, x; y=\"z\""}},
		"unsupported subprotocol":               {changes: []string{"Sec-WebSocket-Protocol: chat"}},
		"the client's first":                    {server: spoken, changes: []string{"Sec-WebSocket-Protocol: chat, mqtt, graphql"}, protocol: "mqtt"},
		"over two headers":                      {server: spoken, changes: []string{"Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: graphql"}, protocol: "graphql"},
		"compression":                           {server: spoken, changes: []string{"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"}, deflate: &full, extensions: "permessage-deflate"},
		"the second offer":                      {server: spoken, changes: []string{"Sec-WebSocket-Extensions: permessage-deflate; x", "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10"}, deflate: &deflate.Params{ServerMaxWindowBits: 10, ClientMaxWindowBits: 15}, extensions: "permessage-deflate; server_max_window_bits=10"},
		"no offer that can be met":              {server: spoken, changes: []string{"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=7"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := tt.server
			if s == nil {
				s = &handshake.Server{}
			}
			require.NoError(t, s.Validate())
			head := request(tt.changes...)
			a, response, err := s.Accept(head)
			require.NoError(t, err)
			require.Equal(t, tt.protocol, a.Subprotocol)
			require.Equal(t, tt.deflate, a.Deflate)
			require.Equal(t, "/chat?a=1", a.Request.URI)
			require.Equal(t, "server.example.com", a.Request.Host)
			r := parse(t, response)
			require.Equal(t, 101, r.StatusCode)
			require.Equal(t, exampleAccept, r.Header.Get("Sec-WebSocket-Accept"))
			require.Equal(t, "websocket", r.Header.Get("Upgrade"))
			require.Equal(t, "Upgrade", r.Header.Get("Connection"))
			require.Equal(t, tt.protocol, r.Header.Get("Sec-WebSocket-Protocol"))
			require.Equal(t, tt.extensions, r.Header.Get("Sec-WebSocket-Extensions"))
			require.True(t, bytes.HasSuffix(response, []byte("\r\n\r\n")))

			// net/http parses it alike.
			hr, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
			require.NoError(t, err)
			ha, hresponse, err := s.AcceptHTTP(hr)
			require.NoError(t, err)
			require.Equal(t, response, hresponse)
			require.Equal(t, a, ha)
		})
	}
}

func TestRefuse(t *testing.T) {
	many := make([]string, handshake.MaxHeaders)
	for i := range many {
		many[i] = "X: y"
	}
	for name, tt := range map[string]struct {
		changes []string
		status  int
		says    string
	}{
		"bare line feed":                  {[]string{"\r\nUpgrade → \nUpgrade"}, 400, "line feed"},
		"bare carriage return":            {[]string{"Host: server → Host: \rserver"}, 400, "carriage return"},
		"NUL":                             {[]string{"Host: server → Host: \x00server"}, 400, "control character"},
		"control character in line 1":     {[]string{"/chat → /ch\x01at"}, 400, "control character"},
		"folded header":                   {[]string{"Connection: Upgrade → Connection:\r\n Upgrade"}, 400, "continues on the next line"},
		"space before the colon":          {[]string{"Host: → Host :"}, 400, "not a token"},
		"no colon":                        {[]string{"Host: server.example.com → Host"}, 400, "no colon"},
		"empty name":                      {[]string{"Host: → :"}, 400, "not a token"},
		"empty line first":                {[]string{"GET → \r\nGET"}, 400, "not an HTTP request"},
		"too many headers":                {many, 431, "more than 128"},
		"no Host":                         {[]string{"Host: server.example.com\r\n → "}, 400, "0 Host"},
		"empty Host":                      {[]string{"Host: server.example.com → Host:"}, 400, "empty"},
		"two Hosts":                       {[]string{"Host: server.example.com"}, 400, "2 Host"},
		"bad Host":                        {[]string{"Host: server.example.com → Host: a@b"}, 400, "contains '@'"},
		"two lengths":                     {[]string{"Content-Length: 0", "Content-Length: 0"}, 400, "2 Content-Length"},
		"a length":                        {[]string{"Content-Length: 5"}, 400, "no body"},
		"a list of lengths":               {[]string{"Content-Length: 0, 0"}, 400, "no body"},
		"Transfer-Encoding":               {[]string{"Transfer-Encoding: chunked"}, 400, "Transfer-Encoding"},
		"no key":                          {[]string{"Sec-WebSocket-Key: " + exampleKey + "\r\n → "}, 400, "0 Sec-WebSocket-Key"},
		"two keys":                        {[]string{"Sec-WebSocket-Key: " + exampleKey}, 400, "2 Sec-WebSocket-Key"},
		"short key":                       {[]string{exampleKey + " → dGhlIHNhbXBsZSBub25j"}, 400, "16 bytes"},
		"long key":                        {[]string{exampleKey + " → dGhlIHNhbXBsZSBub25jZSE="}, 400, "16 bytes"},
		"key is no base64":                {[]string{exampleKey + " → dGhlIHNhbXBsZSBub25jZ*=="}, 400, "16 bytes"},
		"key with bits left over":         {[]string{exampleKey + " → dGhlIHNhbXBsZSBub25jZR=="}, 400, "16 bytes"},
		"no version":                      {[]string{"Sec-WebSocket-Version: 13\r\n → "}, 400, "version 13"},
		"version 8":                       {[]string{"Version: 13 → Version: 8"}, 426, "version 13"},
		"version 013":                     {[]string{"Version: 13 → Version: 013"}, 426, "version 13"},
		"two versions":                    {[]string{"Sec-WebSocket-Version: 13"}, 426, "version 13"},
		"POST":                            {[]string{"GET → POST"}, 405, "is a GET"},
		"get":                             {[]string{"GET → get"}, 405, "is a GET"},
		"HTTP/1.0":                        {[]string{"HTTP/1.1 → HTTP/1.0"}, 505, "HTTP/1.1"},
		"HTTP/2.0":                        {[]string{"HTTP/1.1 → HTTP/2.0"}, 505, "HTTP/1.1"},
		"HTTP/1.2":                        {[]string{"HTTP/1.1 → HTTP/1.2"}, 505, "HTTP/1.1"},
		"no version of HTTP":              {[]string{" HTTP/1.1 → "}, 400, "GET /path HTTP/1.1"},
		"two spaces":                      {[]string{"GET  → GET  "}, 400, "GET /path HTTP/1.1"},
		"version in small letters":        {[]string{"HTTP/1.1 → http/1.1"}, 400, "GET /path HTTP/1.1"},
		"no path":                         {[]string{"/chat?a=1 → chat"}, 400, "begins with /"},
		"a fragment":                      {[]string{"/chat?a=1 → /chat#1"}, 400, "%23"},
		"bytes beyond ASCII in the path":  {[]string{"/chat?a=1 → /ch\xc3\xa4t"}, 400, "%C3"},
		"no upgrade":                      {[]string{"Upgrade: websocket\r\n → "}, 426, "WebSocket client"},
		"another upgrade":                 {[]string{"Upgrade: websocket → Upgrade: h2c"}, 426, "WebSocket client"},
		"upgrade to something like it":    {[]string{"Upgrade: websocket → Upgrade: websocket2"}, 426, "WebSocket client"},
		"no Connection":                   {[]string{"Connection: Upgrade\r\n → "}, 400, "Connection"},
		"another Connection":              {[]string{"Connection: Upgrade → Connection: keep-alive"}, 400, "Connection"},
		"another origin":                  {[]string{"Origin: http://evil.example"}, 403, "allow their origin"},
		"the origin of an ignored Host":   {[]string{"/chat?a=1 → http://evil.example/chat?a=1", "Origin: http://server.example.com"}, 403, "allow their origin"},
		"an origin that is none":          {[]string{"Origin: evil"}, 403, "not an origin"},
		"no origin (null)":                {[]string{"Origin: null"}, 403, "allow their origin"},
		"an origin of another port":       {[]string{"Origin: http://server.example.com:8080"}, 403, "allow their origin"},
		"an origin that ends alike":       {[]string{"Origin: http://eviserver.example.com"}, 403, "allow their origin"},
		"two origins":                     {[]string{"Origin: http://server.example.com", "Origin: http://server.example.com"}, 400, "2 Origin"},
		"subprotocol that is no token":    {[]string{"Sec-WebSocket-Protocol: a b"}, 400, "Sec-WebSocket-Protocol"},
		"extensions that do not parse":    {[]string{"Sec-WebSocket-Extensions: a;;b"}, 400, "Sec-WebSocket-Extensions"},
		"subprotocol that ends the line":  {[]string{"Sec-WebSocket-Protocol: chat\rX-Injected: 1"}, 400, "carriage return"},
		"extension that ends the line":    {[]string{"Sec-WebSocket-Extensions: permessage-deflate\nX-Injected: 1"}, 400, "line feed"},
		"everything at once, method last": {[]string{"GET → \x00"}, 400, "control character"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &handshake.Server{Subprotocols: []string{"chat"}, Deflate: &deflate.Config{}}
			a, response, err := s.Accept(request(tt.changes...))
			require.Nil(t, a)
			var ref *handshake.Refusal
			require.ErrorAs(t, err, &ref)
			r := parse(t, response)
			require.Equal(t, tt.status, r.StatusCode, "%s", response)
			require.Equal(t, tt.status, ref.Response().Status)
			require.Contains(t, body(t, r), tt.says)
			require.Contains(t, err.Error(), tt.says)
			require.True(t, r.Close, "%s", response)
			if tt.status == 426 {
				require.Equal(t, "websocket", r.Header.Get("Upgrade"))
			}
			if strings.Contains(name, "version 8") {
				require.Equal(t, "13", r.Header.Get("Sec-WebSocket-Version"))
			}
			if tt.status == 405 {
				require.Equal(t, "GET", r.Header.Get("Allow"))
			}
			require.NotContains(t, string(response), "\nX-Injected")
		})
	}
}

func TestHeadWithoutEnd(t *testing.T) {
	for _, head := range []string{"", "GET / HTTP/1.1\r\n", "\r\n\r\n", "x\r\n\r\n"} {
		_, response, err := (&handshake.Server{}).Accept([]byte(head))
		require.Error(t, err)
		require.Equal(t, 400, parse(t, response).StatusCode)
	}
}

func TestOrigins(t *testing.T) {
	for _, tt := range []struct {
		patterns []string
		host     string
		origin   string
		ok       bool
	}{
		{nil, "example.com", "http://example.com", true},
		{nil, "example.com", "https://EXAMPLE.com", true},
		{nil, "Example.com:80", "http://example.com", true},
		{nil, "example.com", "http://example.com:80", true},
		{nil, "example.com:443", "https://example.com", true},
		{nil, "example.com:443", "http://example.com", false},
		{nil, "127.0.0.1:7001", "http://127.0.0.1:7001", true},
		{nil, "[::1]:7001", "http://[::1]:7001", true},
		{nil, "[::1]", "http://[::1]:80", true},
		{nil, "127.0.0.1:7001", "http://localhost:7001", false},
		{[]string{"localhost:*"}, "127.0.0.1:7001", "http://localhost:7001", true},
		{[]string{"*.example.com"}, "h", "https://a.b.example.com", true},
		{[]string{"*.example.com"}, "h", "https://a.example.com:443", true},
		{[]string{"*.example.com"}, "h", "https://a.example.com:8443", false},
		{[]string{"*.example.com"}, "h", "https://example.com", false},
		{[]string{"*.example.com"}, "h", "https://example.com.evil.org", false},
		{[]string{"*.Example.com"}, "h", "https://a.eXample.com", true},
		{[]string{"https://*.example.com"}, "h", "https://a.example.com", true},
		{[]string{"https://*.example.com"}, "h", "http://a.example.com", false},
		{[]string{"https://example.com"}, "h", "https://example.com:443", true},
		{[]string{"a", "b"}, "h", "http://b", true},
		{[]string{"*"}, "h", "http://anybody:1234", true},
		{[]string{"*"}, "h", "null", true},
		{[]string{"null"}, "h", "null", true},
		{[]string{"file"}, "h", "null", false},
		{nil, "null", "null", false},
		{nil, "h", "", true},
	} {
		s := &handshake.Server{Origins: tt.patterns}
		require.NoError(t, s.Validate())
		changes := []string{"server.example.com → " + tt.host}
		if tt.origin != "" {
			changes = append(changes, "Origin: "+tt.origin)
		}
		a, _, err := s.Accept(request(changes...))
		require.Equal(t, tt.ok, a != nil, "%+v: %v", tt, err)
	}
}

func TestValidate(t *testing.T) {
	for says, s := range map[string]*handshake.Server{
		"malformed":        {Origins: []string{"[a"}},
		"has a path":       {Origins: []string{"https://a/b"}},
		"not a token":      {Subprotocols: []string{"a\r\nX: 1"}},
		"twice":            {Subprotocols: []string{"a", "a"}},
		"ServerMaxWindowB": {Deflate: &deflate.Config{ServerMaxWindowBits: 3}},
	} {
		require.ErrorContains(t, s.Validate(), says)
	}
}

func TestCheck(t *testing.T) {
	var seen *handshake.Request
	s := &handshake.Server{Authorize: func(r *handshake.Request) (http.Header, error) {
		seen = r
		switch r.Header.Get("Cookie") {
		case "good":
			return http.Header{"Set-Cookie": {"a=1", "b=2"}}, nil
		case "401":
			return nil, &handshake.Refusal{Status: 401, Text: "log in first", Header: http.Header{"Www-Authenticate": {"Basic"}}, Err: errors.New("no such session")}
		case "injecting":
			return http.Header{"X-A": {"1\r\nX-Injected: 1"}}, nil
		case "reserved":
			return http.Header{"Sec-Websocket-Accept": {"x"}}, nil
		case "303":
			return nil, &handshake.Refusal{Status: 303, Text: "moved elsewhere", Header: http.Header{"Location": {"/there"}}}
		case "101", "99", "1000":
			status, _ := strconv.Atoi(r.Header.Get("Cookie"))
			return nil, &handshake.Refusal{Status: status}
		}
		return nil, errors.New("the database is at 10.0.0.7")
	}}
	for cookie, tt := range map[string]struct {
		status    int
		says, log string
	}{
		"good":      {status: 101},
		"401":       {401, "log in first", "no such session"},
		"injecting": {500, "cannot be sent", "X-A"},
		"reserved":  {500, "cannot be sent", "Sec-Websocket-Accept"},
		"303":       {303, "elsewhere", "303"},
		"101":       {500, "has a status", "101"},
		"99":        {500, "has a status", "99"},
		"1000":      {500, "has a status", "1000"},
		"bad":       {403, "forbidden", "10.0.0.7"},
	} {
		a, response, err := s.Accept(request("Cookie: " + cookie))
		require.Equal(t, cookie, seen.Header.Get("cookie"))
		require.Equal(t, "/chat?a=1", seen.URI)
		r := parse(t, response)
		require.Equal(t, tt.status, r.StatusCode)
		if tt.status == 101 {
			require.NoError(t, err)
			require.NotNil(t, a)
			require.Equal(t, []string{"a=1", "b=2"}, r.Header["Set-Cookie"])
			continue
		}
		require.Nil(t, a)
		require.ErrorContains(t, err, tt.log)
		text := body(t, r)
		require.Contains(t, text, tt.says)
		require.NotContains(t, text, tt.log, "the client must not see the cause")
		if tt.status == 401 {
			require.Equal(t, "Basic", r.Header.Get("WWW-Authenticate"))
		}
	}
}

func TestPlain(t *testing.T) {
	s := &handshake.Server{HandleHTTP: func(r *handshake.Request) *handshake.Response {
		switch r.URI {
		case "/":
		case "/101":
			return &handshake.Response{Status: 101}
		default:
			return nil
		}
		return &handshake.Response{Status: 200, Header: http.Header{"Content-Type": {"text/html"}}, Body: []byte("<p>page")}
	}}
	for _, method := range []string{"GET", "HEAD"} {
		a, response, err := s.Accept([]byte(method + " / HTTP/1.1\r\nHost: a\r\n\r\n"))
		require.NoError(t, err)
		require.Nil(t, a)
		r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(response)), &http.Request{Method: method})
		require.NoError(t, err)
		require.Equal(t, 200, r.StatusCode)
		require.Equal(t, "text/html", r.Header.Get("Content-Type"))
		require.EqualValues(t, 7, r.ContentLength)
		require.Equal(t, method == "GET", bytes.HasSuffix(response, []byte("<p>page")))
	}
	_, response, err := s.Accept([]byte("GET /other HTTP/1.1\r\nHost: a\r\n\r\n"))
	require.Error(t, err)
	require.Equal(t, 426, parse(t, response).StatusCode)
	_, response, err = s.Accept([]byte("GET /101 HTTP/1.1\r\nHost: a\r\n\r\n"))
	require.ErrorContains(t, err, "101")
	require.Equal(t, 500, parse(t, response).StatusCode)

	for uri, status := range map[string]int{"/": 200, "/other": 505, "/#body": 505} { // HTTP/2 has pages, and no upgrade
		uri, hasBody := strings.CutSuffix(uri, "#body")
		hr := httptest.NewRequest("GET", uri, nil)
		if hasBody {
			hr = httptest.NewRequest("POST", uri, strings.NewReader("x"))
		}
		hr.Proto, hr.ProtoMajor, hr.ProtoMinor = "HTTP/2.0", 2, 0
		a, response, err := s.AcceptHTTP(hr)
		require.Nil(t, a)
		require.Equal(t, status == 200, err == nil)
		require.Equal(t, status, parse(t, response).StatusCode)
	}
}

func TestAcceptHTTPRefuses(t *testing.T) {
	s := &handshake.Server{}
	for status, r := range map[int]*http.Request{
		426: httptest.NewRequest("GET", "/", nil),
		400: httptest.NewRequest("GET", "/", strings.NewReader("body")),
		505: func() *http.Request {
			r := httptest.NewRequest("GET", "/", nil)
			r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
			return r
		}(),
	} {
		a, response, err := s.AcceptHTTP(r)
		require.Nil(t, a)
		require.Error(t, err)
		require.Equal(t, status, parse(t, response).StatusCode)
	}
}

func TestRefusals(t *testing.T) {
	require.Equal(t, 431, parse(t, handshake.TooLong(100).Response().Append(nil, "")).StatusCode)
	require.Equal(t, 408, parse(t, handshake.TooSlow().Response().Append(nil, "")).StatusCode)
	require.Equal(t, 403, (&handshake.Refusal{}).Response().Status)
	require.EqualError(t, &handshake.Refusal{Status: 404, Err: errors.New("x")}, "refused with 404: not found: x")
}

// A status without a body has no headers that describe one.
func TestResponseWithoutBody(t *testing.T) {
	for _, status := range []int{http.StatusNoContent, http.StatusNotModified} {
		r := &handshake.Response{Status: status, Body: []byte("a body")}
		require.Equal(t, "HTTP/1.1 "+strconv.Itoa(status)+" "+http.StatusText(status)+"\r\nConnection: close\r\n\r\n", string(r.Append(nil, http.MethodGet)))
	}
}
