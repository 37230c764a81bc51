//go:build unix

package loop

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// closeDescriptor closes a socket that no Runtime owns.
func closeDescriptor(fd int) { _ = unix.Close(fd) } // nothing was written to it that an error could lose

// dupDescriptor returns another descriptor of c's socket. Unlike os.File.Fd it does not
// make the socket blocking.
func dupDescriptor(c syscall.Conn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd, derr := -1, error(nil)
	if err := raw.Control(func(p uintptr) { fd, derr = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return -1, err
	}
	if derr != nil {
		return -1, fmt.Errorf("fcntl F_DUPFD_CLOEXEC: %w", derr)
	}
	return fd, nil
}
