package backend

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
)

// socket makes a stream socket for a.
func socket(a runtime.Addr) (int, error) {
	family := unix.AF_INET6
	switch {
	case a.Path != "":
		family = unix.AF_UNIX
	case a.AddrPort.Addr().Is4():
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == nil && a.Path == "" {
		err = closeOnError(fd, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)) // accepted sockets inherit it from the listener
	}
	return fd, err
}

func closeOnError(fd int, err error) error {
	if err != nil {
		_ = unix.Close(fd)
	}
	return err
}

// listen makes a listening socket. It replaces a unix socket that a program left
// behind, but not one that is in use.
func listen(a runtime.Addr, o runtime.ListenOptions) (int, error) {
	fd, err := listenOnce(a, o)
	if err == unix.EADDRINUSE && a.Path != "" && a.Path[0] != '@' && abandoned(a) {
		if err := unix.Unlink(a.Path); err != nil {
			return -1, err
		}
		return listenOnce(a, o)
	}
	return fd, err
}

// abandoned reports whether no socket listens at the path of a. It connects with
// another socket type, which a listener refuses without accepting a connection.
func abandoned(a runtime.Addr) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: a.Path}) == unix.ECONNREFUSED
}

func listenOnce(a runtime.Addr, o runtime.ListenOptions) (int, error) {
	sa, err := toSockaddr(a)
	if err != nil {
		return -1, err
	}
	fd, err := socket(a)
	if err != nil {
		return -1, err
	}
	return fd, closeOnError(fd, bindAndListen(fd, a, sa, o))
}

func bindAndListen(fd int, a runtime.Addr, sa unix.Sockaddr, o runtime.ListenOptions) error {
	if a.Path == "" {
		// So that connections in TIME_WAIT do not keep a port in use.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
		if o.Join {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
				return err
			}
		}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return err
	}
	backlog := o.Backlog
	if backlog <= 0 {
		backlog = 1<<31 - 1 // the kernel cuts it to its limit
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return err
	}
	if o.Joinable && a.Path == "" { // only now, so that a second listener has been refused
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	return nil
}

// setOption sets a socket option: see runtime.Option.
func setOption(fd int, o runtime.Option, v int) error {
	tcp := func(opt int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, opt, v) }
	sock := func(opt, v int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, v) }
	switch o {
	case runtime.OptNoDelay:
		return tcp(unix.TCP_NODELAY)
	case runtime.OptKeepAlive:
		if v == 0 {
			return sock(unix.SO_KEEPALIVE, 0)
		}
		for _, opt := range []int{unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL} {
			if err := tcp(opt); err != nil {
				return err
			}
		}
		return sock(unix.SO_KEEPALIVE, 1)
	case runtime.OptUserTimeout:
		return tcp(unix.TCP_USER_TIMEOUT)
	case runtime.OptSendBuffer:
		return sock(unix.SO_SNDBUF, v)
	case runtime.OptRecvBuffer:
		return sock(unix.SO_RCVBUF, v)
	case runtime.OptResetOnClose:
		return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: int32(v)})
	}
	return fmt.Errorf("option %d: %w", o, unix.ENOPROTOOPT)
}

// toSockaddr converts a to a type of x/sys.
func toSockaddr(a runtime.Addr) (unix.Sockaddr, error) {
	ip, port := a.AddrPort.Addr(), int(a.AddrPort.Port())
	switch {
	case a.Path != "":
		if len(a.Path) >= len(unix.RawSockaddrUnix{}.Path) {
			return nil, fmt.Errorf("the path of a unix socket has %d bytes: %w", len(a.Path), unix.ENAMETOOLONG)
		}
		return &unix.SockaddrUnix{Name: a.Path}, nil
	case ip.Is4():
		return &unix.SockaddrInet4{Port: port, Addr: ip.As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: port, Addr: ip.As16()}
	if zone := ip.Zone(); zone != "" {
		ifi, err := net.InterfaceByName(zone)
		if err != nil {
			return nil, err
		}
		sa.ZoneId = uint32(ifi.Index)
	}
	return sa, nil
}

// fromSockaddr is the inverse of toSockaddr. An unnamed unix socket has no address.
func fromSockaddr(sa unix.Sockaddr) runtime.Addr {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return runtime.Addr{AddrPort: netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))}
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(sa.Addr).Unmap()
		if ifi, err := net.InterfaceByIndex(int(sa.ZoneId)); err == nil {
			ip = ip.WithZone(ifi.Name)
		}
		return runtime.Addr{AddrPort: netip.AddrPortFrom(ip, uint16(sa.Port))}
	case *unix.SockaddrUnix:
		if sa.Name != "@" {
			return runtime.Addr{Path: sa.Name}
		}
	}
	return runtime.Addr{}
}
