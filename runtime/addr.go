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

// TCPAddr returns the Addr of a TCP endpoint.
func TCPAddr(ap netip.AddrPort) Addr { return Addr{AddrPort: ap} }

// UnixAddr returns the Addr of a unix stream socket.
func UnixAddr(path string) Addr { return Addr{Path: path} }

// IsUnix reports whether a is a unix socket's address.
func (a Addr) IsUnix() bool { return a.Path != "" }

// IsValid reports whether a is an address at all.
func (a Addr) IsValid() bool { return a.Path != "" || a.AddrPort.IsValid() }

// Network returns "tcp" or "unix", as net.Addr wants it.
func (a Addr) Network() string {
	if a.IsUnix() {
		return "unix"
	}
	return "tcp"
}

func (a Addr) String() string {
	if a.IsUnix() {
		return a.Path
	}
	if !a.AddrPort.IsValid() {
		return ""
	}
	return a.AddrPort.String()
}

// NetAddr returns a as the net package has it: *net.TCPAddr or *net.UnixAddr.
func (a Addr) NetAddr() net.Addr {
	if a.IsUnix() || !a.AddrPort.IsValid() {
		return &net.UnixAddr{Name: a.Path, Net: "unix"}
	}
	return net.TCPAddrFromAddrPort(a.AddrPort)
}

// ParseListenAddr reads an address to listen on: "host:port", ":port" (all
// interfaces), or "unix:/path" (also "unix:@name"). host is an IP address or
// "localhost"; names are not looked up, because a server that listens on what
// a resolver says listens on a surprise.
func ParseListenAddr(s string) (Addr, error) {
	if path, ok := cutPrefix(s, "unix:"); ok {
		if path == "" {
			return Addr{}, fmt.Errorf("listen address %q: no path behind its unix: prefix", s)
		}
		return UnixAddr(path), nil
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
		return TCPAddr(netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(p))), nil
	case "localhost":
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return Addr{}, fmt.Errorf("listen address %q: the host must be an IP address, localhost or empty: %w", s, err)
	}
	return TCPAddr(netip.AddrPortFrom(ip.Unmap(), uint16(p))), nil
}

func cutPrefix(s, prefix string) (string, bool) {
	if len(s) >= len(prefix) && s[:len(prefix)] == prefix {
		return s[len(prefix):], true
	}
	return s, false
}
