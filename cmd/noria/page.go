package main

import (
	_ "embed"
	"net"
	"net/http"
	"strings"

	"github.com/noria-go/noria/ws"
)

// pageHTML is a page that connects back to its server, shows round-trip times and
// throughput, and sends what the user types. It loads nothing from elsewhere.
//
//go:embed page.html
var pageHTML []byte

// page answers requests that do not ask for an upgrade.
func page(r *ws.Request) *ws.Response {
	path, _, _ := strings.Cut(r.URI, "?")
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return &ws.Response{Status: http.StatusMethodNotAllowed, Header: http.Header{"Allow": {"GET, HEAD"}}, Body: []byte("GET / is a page; a WebSocket client may connect to any path\n")}
	case path != "/":
		return &ws.Response{Status: http.StatusNotFound, Body: []byte("there is a page on /; a WebSocket client may connect to any path\n")}
	}
	return &ws.Response{Status: http.StatusOK, Header: http.Header{
		"Content-Type":            {"text/html; charset=utf-8"},
		"Cache-Control":           {"no-store"},
		"X-Content-Type-Options":  {"nosniff"},
		"Content-Security-Policy": {"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self' ws: wss:"},
	}, Body: pageHTML}
}

// pageURL is where a browser on this machine finds the page, or "".
func pageURL(a net.Addr, secure bool) string {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return ""
	}
	host, port, err := net.SplitHostPort(t.String())
	if err != nil {
		return ""
	}
	if t.IP.IsUnspecified() {
		host = "localhost"
	}
	if secure {
		return "https://" + net.JoinHostPort(host, port) + "/"
	}
	return "http://" + net.JoinHostPort(host, port) + "/"
}
