package sys

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
)

func family(a runtime.Addr) int {
	switch {
	case a.Path != "":
		return unix.AF_UNIX
	case a.AddrPort.Addr().Is4():
		return unix.AF_INET
	default:
		return unix.AF_INET6
	}
}

// Socket makes a stream socket of a's address family, for connecting or listening.
func Socket(a runtime.Addr, nonblock bool) (int, error) {
	flags := unix.SOCK_STREAM | unix.SOCK_CLOEXEC
	if nonblock {
		flags |= unix.SOCK_NONBLOCK
	}
	fd, err := unix.Socket(family(a), flags, 0)
	if err != nil {
		return -1, err
	}
	if a.Path == "" {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			_ = unix.Close(fd) // never used, so an error does not matter
			return -1, fmt.Errorf("TCP_NODELAY: %w", err)
		}
	}
	return fd, nil
}

// Listen makes a listening socket. Sockets that it accepts inherit its TCP_NODELAY,
// which saves a system call for each.
func Listen(a runtime.Addr, o runtime.ListenOptions, nonblock bool) (int, error) {
	fd, err := listen(a, o, nonblock)
	if errors.Is(err, unix.EAFNOSUPPORT) && a.AddrPort.Addr() == netip.IPv6Unspecified() {
		// The address means every interface, and this system has no IPv6.
		v4 := runtime.Addr{AddrPort: netip.AddrPortFrom(netip.IPv4Unspecified(), a.AddrPort.Port())}
		return listen(v4, o, nonblock)
	}
	if errors.Is(err, unix.EADDRINUSE) && a.Path != "" && a.Path[0] != '@' && stale(a) {
		if err := unix.Unlink(a.Path); err != nil {
			return -1, fmt.Errorf("remove a stale socket: %w", err)
		}
		return listen(a, o, nonblock)
	}
	return fd, err
}

// stale reports whether a is the path of a socket without a listener, which an
// earlier program left behind.
func stale(a runtime.Addr) bool {
	var st unix.Stat_t
	if unix.Lstat(a.Path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return false
	}
	// A socket of another type: a listener refuses it with EPROTOTYPE and sees no
	// stray connection.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: a.Path}) == unix.ECONNREFUSED
}

func listen(a runtime.Addr, o runtime.ListenOptions, nonblock bool) (fd int, err error) {
	fd, err = Socket(a, nonblock)
	if err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd) // never used, so an error does not matter
			fd = -1
		}
	}()
	set := func(level, opt, v int, name string) {
		if err == nil {
			if serr := unix.SetsockoptInt(fd, level, opt, v); serr != nil {
				err = fmt.Errorf("%s: %w", name, serr)
			}
		}
	}
	if a.Path == "" {
		set(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "SO_REUSEADDR")
		if family(a) == unix.AF_INET6 {
			only := 1
			if a.AddrPort.Addr().IsUnspecified() {
				only = 0
			}
			set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only, "IPV6_V6ONLY")
		}
		if o.Join {
			set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1, "SO_REUSEPORT")
		}
	}
	if err != nil {
		return fd, err
	}
	if err = bind(fd, a); err != nil {
		return fd, err
	}
	backlog := o.Backlog
	if backlog <= 0 {
		backlog = 1<<31 - 1 // the kernel limits it to net.core.somaxconn
	}
	if err = unix.Listen(fd, backlog); err != nil {
		return fd, err
	}
	if o.Joinable && a.Path == "" {
		// Not before listen: two sockets that are bound with SO_REUSEADDR and do not
		// listen yet do not see each other, and with SO_REUSEPORT set both could then
		// listen.
		set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1, "SO_REUSEPORT")
	}
	return fd, err
}

func bind(fd int, a runtime.Addr) error {
	if a.Path != "" {
		var r RawAddr
		if err := r.Set(a); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrUnix{Name: a.Path})
	}
	ip := a.AddrPort.Addr()
	if ip.Is4() {
		return unix.Bind(fd, &unix.SockaddrInet4{Port: int(a.AddrPort.Port()), Addr: ip.As4()})
	}
	zone, err := zoneIndex(ip.Zone())
	if err != nil {
		return err
	}
	return unix.Bind(fd, &unix.SockaddrInet6{Port: int(a.AddrPort.Port()), Addr: ip.As16(), ZoneId: zone})
}

// SetOption sets a socket option: see runtime.Option.
func SetOption(fd int, o runtime.Option, v int) error {
	tcp := func(opt int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, opt, v) }
	sock := func(opt int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, v) }
	switch o {
	case runtime.OptNoDelay:
		return tcp(unix.TCP_NODELAY)
	case runtime.OptKeepAlive:
		if v == 0 {
			return sock(unix.SO_KEEPALIVE)
		}
		if err := tcp(unix.TCP_KEEPIDLE); err != nil {
			return err
		}
		if err := tcp(unix.TCP_KEEPINTVL); err != nil {
			return err
		}
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	case runtime.OptUserTimeout:
		return tcp(unix.TCP_USER_TIMEOUT)
	case runtime.OptSendBuffer:
		return sock(unix.SO_SNDBUF)
	case runtime.OptRecvBuffer:
		return sock(unix.SO_RCVBUF)
	case runtime.OptResetOnClose:
		return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: int32(v)})
	case runtime.OptDeferAccept:
		return tcp(unix.TCP_DEFER_ACCEPT)
	case runtime.OptQuickAck:
		return tcp(unix.TCP_QUICKACK)
	}
	return fmt.Errorf("option %d: %w", o, unix.ENOPROTOOPT)
}

// Kernel returns the kernel's release, as uname -r prints it.
func Kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// Shutdown shuts down the directions of a socket that the flags of an OpShutdown
// name.
func Shutdown(fd, flags int) error {
	how := [...]int{runtime.DirRead: unix.SHUT_RD, runtime.DirWrite: unix.SHUT_WR, runtime.DirRead | runtime.DirWrite: unix.SHUT_RDWR}
	if flags <= 0 || flags >= len(how) {
		return unix.EINVAL
	}
	err := unix.Shutdown(fd, how[flags])
	if err == unix.ENOTCONN { // the peer has closed already, which is no error
		return nil
	}
	return err
}
