//go:build !386 && !arm && !mips && !mipsle

package uring

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"github.com/godzie44/go-uring/uring"
)

// opt makes a go-uring option from a function on the raw parameters. go-uring's
// SetupOption is func(*P) with an unexported P, which type inference can supply. So
// flags that go-uring does not know can be set. P has the kernel's layout, because
// go-uring passes it to the kernel.
func opt[O ~func(*P), P any](f func(*params)) O {
	return func(p *P) { f((*params)(unsafe.Pointer(p))) }
}

func withParams(f func(*params)) uring.SetupOption { return opt[uring.SetupOption](f) }

// setup makes a go-uring ring with these flags.
func setup(entries, cqEntries uint32, flags uint32) (*uring.Ring, *params, error) {
	lib, err := uring.New(entries, withParams(func(p *params) {
		p.flags |= flags
		if cqEntries > 0 {
			p.flags |= setupCQSize
			p.cqEntries = cqEntries
		}
	}))
	if err != nil {
		if lib != nil { // the ring was made but could not be mapped
			_ = syscall.Close(lib.Fd())
		}
		return nil, nil, err
	}
	return lib, (*params)(unsafe.Pointer(lib.Params)), nil
}

// explain adds to the error of io_uring_setup what it means and what to do about
// it.
func explain(err error) error {
	why := ""
	switch {
	case errors.Is(err, syscall.ENOSYS):
		why = "this kernel was built without it, or a seccomp filter hides it"
	case errors.Is(err, syscall.EPERM):
		why = whyNotPermitted("/proc/sys/kernel/io_uring_disabled")
	case errors.Is(err, syscall.ENOMEM):
		why = "no memory is left for the rings: raise the limit of locked memory (ulimit -l, LimitMEMLOCK= of systemd, " +
			"--ulimit memlock of docker), or ask for fewer Entries"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		why = "no file descriptor is left: raise ulimit -n"
	case errors.Is(err, syscall.EINVAL):
		why = "the kernel does not know these parameters"
	default:
		return fmt.Errorf("io_uring: %w", err)
	}
	return fmt.Errorf("io_uring: %w: %s: %w", errors.ErrUnsupported, why, err)
}

// whyNotPermitted distinguishes the two causes of EPERM: the sysctl
// (io_uring_disabled in https://docs.kernel.org/admin-guide/sysctl/kernel.html) and
// a seccomp filter such as Docker's default profile.
func whyNotPermitted(sysctl string) string {
	value, err := os.ReadFile(sysctl)
	switch strings.TrimSpace(string(value)) {
	case "2":
		return "sysctl kernel.io_uring_disabled=2 forbids it to every process; set it to 0"
	case "1":
		return "sysctl kernel.io_uring_disabled=1 forbids it to processes outside the group kernel.io_uring_group; " +
			"set it to 0 or join the group"
	}
	if err != nil {
		return "a seccomp filter or security module denies it (Docker's default profile does)"
	}
	return "sysctl kernel.io_uring_disabled allows it, so a seccomp filter denies it (Docker's default profile does)"
}
