package epoll

import (
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/runtime/internal/wake"
)

// A poller is the epoll descriptor.
type poller struct {
	fd     int
	pwait2 bool
	why    string
	events [256]unix.EpollEvent
	ts     timespec // read by the kernel; not on a stack, which can move
}

// A timespec is the kernel's __kernel_timespec, which unix.Timespec is not on 32-bit
// processors.
type timespec struct{ sec, nsec int64 }

func (p *poller) open(noPwait2 bool) (err error) {
	if p.fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll_create1: %w", err)
	}
	if noPwait2 {
		p.why = "switched off"
		return nil
	}
	p.pwait2 = true
	if _, err := p.wait(0); err != nil {
		p.pwait2, p.why = false, fmt.Sprintf("epoll_pwait2: %v", err)
		return nil
	}
	p.why = "waits end to the nanosecond"
	return nil
}

func (p *poller) close() error { return unix.Close(p.fd) }

// add registers fd for both directions, edge-triggered. A direction that is ready
// already is reported too.
func (p *poller) add(fd int, h runtime.Handle) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(h.Slot()), Pad: int32(h.Gen())}
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &ev)
}

func (p *poller) remove(fd int) error { return unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil) }

// addWaker registers a waker's eventfd. It is never read: each signal is a new edge.
// No handle has the generation 0.
func (p *poller) addWaker(w *wake.Waker) error { return p.add(w.FD(), 0) }

// wait waits for events for at most timeout nanoseconds; a negative timeout means
// no limit.
func (p *poller) wait(timeout int64) (int, error) {
	events := uintptr(unsafe.Pointer(&p.events))
	if timeout == 0 {
		// It cannot block, so a raw system call is enough.
		n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), events, uintptr(len(p.events)), 0, 0, 0)
		if errno == 0 && p.pwait2 && p.why == "" {
			errno = p.probePwait2()
		}
		return count(n, errno)
	}
	if p.pwait2 {
		var ts uintptr
		if timeout > 0 {
			p.ts = timespec{timeout / 1e9, timeout % 1e9}
			ts = uintptr(unsafe.Pointer(&p.ts))
		}
		return count2(syscall.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.fd), events, uintptr(len(p.events)), ts, 0, 0))
	}
	ms := int64(-1)
	if timeout > 0 {
		ms = min((timeout+int64(time.Millisecond)-1)/int64(time.Millisecond), 1<<31-1)
	}
	return count2(syscall.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), events, uintptr(len(p.events)), uintptr(ms), 0, 0))
}

// probePwait2 tries epoll_pwait2 with a timeout of 0.
func (p *poller) probePwait2() syscall.Errno {
	p.ts = timespec{}
	_, _, errno := syscall.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events)), uintptr(len(p.events)), uintptr(unsafe.Pointer(&p.ts)), 0, 0)
	return errno
}

func count2(n, _ uintptr, errno syscall.Errno) (int, error) { return count(n, errno) }

func count(n uintptr, errno syscall.Errno) (int, error) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
