package sys

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
)

// A RawAddr is a socket address in the kernel's form. It must be on the heap while
// the kernel may use it.
type RawAddr struct {
	Any unix.RawSockaddrAny
	Len uint32
}

const (
	pathOffset = int(unsafe.Offsetof(unix.RawSockaddrUnix{}.Path))
	maxPath    = len(unix.RawSockaddrUnix{}.Path) // including the final zero, if there is one
)

// Set sets r to the address a.
func (r *RawAddr) Set(a runtime.Addr) error {
	*r = RawAddr{}
	ip := a.AddrPort.Addr()
	switch {
	case a.Path != "":
		return r.setUnix(a.Path)
	case ip.Is4():
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&r.Any))
		sa.Family = unix.AF_INET
		sa.Addr = ip.As4()
		setPort(&sa.Port, a.AddrPort.Port())
		r.Len = unix.SizeofSockaddrInet4
	case ip.Is6():
		zone, err := zoneIndex(ip.Zone())
		if err != nil {
			return err
		}
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(&r.Any))
		sa.Family = unix.AF_INET6
		sa.Addr = ip.As16()
		sa.Scope_id = zone
		setPort(&sa.Port, a.AddrPort.Port())
		r.Len = unix.SizeofSockaddrInet6
	default:
		return fmt.Errorf("no address: %w", unix.EINVAL)
	}
	return nil
}

func (r *RawAddr) setUnix(path string) error {
	abstract := path[0] == '@'
	limit := maxPath - 1
	if abstract {
		limit = maxPath
	}
	if len(path) > limit {
		return fmt.Errorf("the path of a unix socket may have at most %d bytes, this one has %d: %w", limit, len(path), unix.ENAMETOOLONG)
	}
	sa := (*unix.RawSockaddrUnix)(unsafe.Pointer(&r.Any))
	sa.Family = unix.AF_UNIX
	for i := range len(path) {
		sa.Path[i] = int8(path[i])
	}
	r.Len = uint32(pathOffset + len(path))
	if abstract {
		sa.Path[0] = 0 // the length ends the name
	} else {
		r.Len++
	}
	return nil
}

// Addr returns the address in r. It is the zero Addr for an unnamed unix socket and
// for unknown address families.
func (r *RawAddr) Addr() runtime.Addr {
	switch r.Any.Addr.Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&r.Any))
		return runtime.Addr{AddrPort: netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), port(&sa.Port))}
	case unix.AF_INET6:
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(&r.Any))
		ip := netip.AddrFrom16(sa.Addr)
		if sa.Scope_id != 0 {
			ip = ip.WithZone(zoneName(sa.Scope_id))
		}
		return runtime.Addr{AddrPort: netip.AddrPortFrom(ip.Unmap(), port(&sa.Port))}
	case unix.AF_UNIX:
		return runtime.Addr{Path: r.unixPath()}
	}
	return runtime.Addr{}
}

func (r *RawAddr) unixPath() string {
	n := min(int(r.Len)-pathOffset, maxPath)
	if n <= 0 {
		return ""
	}
	sa := (*unix.RawSockaddrUnix)(unsafe.Pointer(&r.Any))
	path := make([]byte, n)
	for i := range path {
		path[i] = byte(sa.Path[i])
	}
	if path[0] == 0 {
		path[0] = '@'
		return string(path)
	}
	for i, c := range path {
		if c == 0 {
			return string(path[:i])
		}
	}
	return string(path)
}

// Ports are in network byte order on every machine.
func setPort(to *uint16, port uint16) {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(to))[:], port)
}

func port(from *uint16) uint16 { return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(from))[:]) }

func zoneIndex(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	ifi, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("zone %q: %w", zone, err)
	}
	return uint32(ifi.Index), nil
}

func zoneName(index uint32) string {
	if ifi, err := net.InterfaceByIndex(int(index)); err == nil {
		return ifi.Name
	}
	return strconv.FormatUint(uint64(index), 10)
}

type nameFunc uintptr

const (
	getsockname nameFunc = unix.SYS_GETSOCKNAME
	getpeername nameFunc = unix.SYS_GETPEERNAME
)

// ask calls getsockname or getpeername. The functions of x/sys return a Sockaddr,
// which would have to be converted again.
func (f nameFunc) ask(fd int) (runtime.Addr, error) {
	r := RawAddr{Len: uint32(unsafe.Sizeof(unix.RawSockaddrAny{}))}
	if _, _, errno := unix.RawSyscall(uintptr(f), uintptr(fd), uintptr(unsafe.Pointer(&r.Any)), uintptr(unsafe.Pointer(&r.Len))); errno != 0 {
		return runtime.Addr{}, errno
	}
	return r.Addr(), nil
}

// LocalAddr returns the local address of fd.
func LocalAddr(fd int) (runtime.Addr, error) { return getsockname.ask(fd) }

// PeerAddr returns the address of fd's peer.
func PeerAddr(fd int) (runtime.Addr, error) { return getpeername.ask(fd) }
