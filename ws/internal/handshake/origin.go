package handshake

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"
)

// Origins are patterns of the origins whose pages may connect, besides those of
// the server itself: the ones whose Origin header has the host and port of the
// Host header. A client that is no browser sends no Origin and is not held up.
//
// A pattern is for an origin's host and port ("example.com", "*.example.com",
// "localhost:*"), or with its scheme ("https://*.example.com"). "*" there stands
// for any bytes, dots too, and otherwise path.Match's rules hold; case does not
// matter. "*" alone lets everyone in, and "null" the pages that have no origin,
// such as files.
//
// Behind a proxy the Host header may be another than the one that the browser
// has seen: then the outer one is to be listed here.
type Origins []string

// Validate says which pattern is malformed.
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
		return refuse(http.StatusForbidden, "the Origin header is no origin: %.80q", origin)
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
	return &Refusal{Status: http.StatusForbidden, Text: fmt.Sprintf("pages of %.80q may not connect here: the server has to allow their origin", origin),
		Err: fmt.Errorf("the origin is not that of %q and no pattern allows it: see Origins", r.Host)}
}

// matches is path.Match, in which * does not stop at a slash: there is none in a
// host, and the scheme's two are taken out of the way.
func matches(pattern, s string) bool {
	flat := strings.NewReplacer("/", "\x00")
	ok, err := path.Match(flat.Replace(pattern), flat.Replace(s))
	return ok && err == nil
}

// withoutPort returns host without its port if that is the scheme's own.
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
