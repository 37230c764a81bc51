package handshake

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"
)

// Origins are patterns of the origins whose pages may connect. The server's own
// origin is always allowed: the one whose host and port are those of the Host
// header. A client that is not a browser sends no Origin and is not restricted.
//
// A pattern matches an origin's host and port ("example.com", "*.example.com",
// "localhost:*"), or its scheme too ("https://*.example.com"). "*" matches any
// bytes, dots included; otherwise the rules of path.Match hold, and case is
// ignored. "*" alone allows every origin. "null" allows pages that have no origin,
// such as local files.
//
// Behind a proxy the Host header may differ from the host that the browser sees.
// Then that host must be listed here.
type Origins []string

// Validate reports a malformed pattern.
func (o Origins) Validate() error {
	for _, p := range o {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("the origin pattern %q is malformed: see path.Match", p)
		}
		if i := strings.Index(p, "://"); i >= 0 && strings.ContainsRune(p[i+3:], '/') || i < 0 && strings.ContainsRune(p, '/') {
			return fmt.Errorf("the origin pattern %q has a path: an origin is a scheme, a host and a port", p)
		}
	}
	return nil
}

func (o Origins) check(r *Request) *Refusal {
	values := r.Header[headerOrigin]
	if len(values) == 0 {
		return nil
	}
	if len(values) > 1 {
		return refuse(http.StatusBadRequest, "the request has %d Origin headers", len(values))
	}
	origin := values[0]
	u, err := url.Parse(origin)
	if err != nil || origin != "null" && (u.Scheme == "" || u.Host == "") {
		return refuse(http.StatusForbidden, "the Origin header is not an origin: %.80q", origin)
	}
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	if host != "" && withoutPort(host, scheme) == withoutPort(strings.ToLower(r.Host), scheme) {
		return nil
	}
	for _, p := range o {
		p = strings.ToLower(p)
		switch {
		case p == "*" || p == "null" && origin == "null":
			return nil
		case host == "":
		case strings.Contains(p, "://"):
			if matches(p, scheme+"://"+host) || matches(p, scheme+"://"+withoutPort(host, scheme)) {
				return nil
			}
		case matches(p, host) || matches(p, withoutPort(host, scheme)):
			return nil
		}
	}
	return &Refusal{Status: http.StatusForbidden, Text: fmt.Sprintf("pages of %.80q may not connect here: the server must allow their origin", origin),
		Err: fmt.Errorf("the origin is not %q's own and no pattern allows it: see Origins", r.Host)}
}

// matches is path.Match, except that * also matches a slash. A host has none, and
// the two of the scheme are replaced first.
func matches(pattern, s string) bool {
	flat := strings.NewReplacer("/", "\x00")
	ok, err := path.Match(flat.Replace(pattern), flat.Replace(s))
	return ok && err == nil
}

// withoutPort returns host without its port if the port is the scheme's default.
func withoutPort(host, scheme string) string {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	switch {
	case port == "80" && (scheme == "http" || scheme == "ws"), port == "443" && (scheme == "https" || scheme == "wss"):
		return name
	}
	return net.JoinHostPort(name, port)
}
