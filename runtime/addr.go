package runtime

import (
	"fmt"
	"net"
	"net/netip"
)

// Addr is a socket's address: TCP (AddrPort) or unix (Path). The zero Addr is
// no address.
type Addr struct {
	AddrPort netip.AddrPort
	Path     string // of a unix socket; a leading '@' means the abstract name space
}

func (a Addr) String() string {
	if a.Path != "" {
		return a.Path
	}
	if !a.AddrPort.IsValid() {
		return ""
	}
	return a.AddrPort.String()
}

// NetAddr returns a as a *net.TCPAddr or a *net.UnixAddr.
func (a Addr) NetAddr() net.Addr {
	if a.Path != "" || !a.AddrPort.IsValid() {
		return &net.UnixAddr{Name: a.Path, Net: "unix"}
	}
	return net.TCPAddrFromAddrPort(a.AddrPort)
}

// ParseListenAddr parses an address to listen on: "host:port", ":port" (all
// interfaces), "unix:/path" or "unix:@name". host is an IP address or "localhost".
// Other names are refused: a resolver should not decide where a server listens.
func ParseListenAddr(s string) (Addr, error) {
	if path, ok := cutPrefix(s, "unix:"); ok {
		if path == "" {
			return Addr{}, fmt.Errorf("listen address %q: no path behind its unix: prefix", s)
		}
		return Addr{Path: path}, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return Addr{}, fmt.Errorf("listen address %q: want host:port or unix:/path: %w", s, err)
	}
	p, err := net.LookupPort("tcp", port)
	if err != nil {
		return Addr{}, fmt.Errorf("listen address %q: %w", s, err)
	}
	switch host {
	case "":
		return Addr{AddrPort: netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(p))}, nil
	case "localhost":
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return Addr{}, fmt.Errorf("listen address %q: the host must be an IP address, localhost or empty: %w", s, err)
	}
	return Addr{AddrPort: netip.AddrPortFrom(ip.Unmap(), uint16(p))}, nil
}

func cutPrefix(s, prefix string) (string, bool) {
	if len(s) >= len(prefix) && s[:len(prefix)] == prefix {
		return s[len(prefix):], true
	}
	return s, false
}
