package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/internal/backends"
)

// The test binary can start noria under restrictions: it is run with these variables,
// restricts itself, and calls exec. All three kinds of restriction survive exec.
const (
	seccompVariable = "NORIA_TEST_SECCOMP" // the errno that io_uring's system calls return
	enterVariable   = "NORIA_TEST_ENTER"   // the errno that io_uring_enter alone returns
	memlockVariable = "NORIA_TEST_MEMLOCK" // bytes
	nofileVariable  = "NORIA_TEST_NOFILE"
	programVariable = "NORIA_TEST_PROGRAM"
)

// becomeRestricted restricts the process and becomes noria if the variables ask for it.
// It returns only if they do not, or if it failed.
func becomeRestricted() (done bool, status int) {
	path := os.Getenv(programVariable)
	if path == "" {
		return false, 0
	}
	err := restrict()
	if err == nil {
		err = syscall.Exec(path, append([]string{path}, os.Args[1:]...), os.Environ())
	}
	fmt.Fprintln(os.Stderr, "cannot restrict:", err)
	return true, 3
}

func restrict() error {
	for name, resource := range map[string]int{memlockVariable: unix.RLIMIT_MEMLOCK, nofileVariable: unix.RLIMIT_NOFILE} {
		if v := os.Getenv(name); v != "" {
			n, err := strconv.ParseUint(v, 10, 64)
			if err == nil {
				err = unix.Setrlimit(resource, &unix.Rlimit{Cur: n, Max: n})
			}
			if err != nil {
				return fmt.Errorf("%s=%s: %w", name, v, err)
			}
		}
	}
	for name, calls := range map[string][]uint32{
		seccompVariable: {unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER}, // as Docker's default profile does
		enterVariable:   {unix.SYS_IO_URING_ENTER},
	} {
		if v := os.Getenv(name); v != "" {
			errno, err := strconv.ParseUint(v, 10, 16)
			if err == nil {
				err = refuseCalls(uint32(errno), calls)
			}
			if err != nil {
				return fmt.Errorf("%s=%s: %w", name, v, err)
			}
		}
	}
	return nil
}

// refuseCalls makes the kernel answer these system calls with errno: see seccomp(2).
func refuseCalls(errno uint32, calls []uint32) error {
	runtime.LockOSThread()
	const offsetNR = 0 // of struct seccomp_data
	program := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offsetNR}}
	for i, nr := range calls {
		program = append(program, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: uint8(len(calls) - i), K: nr})
	}
	program = append(program,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | errno})
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(program)
	if e != 0 {
		return e
	}
	return nil
}

// restricted returns a command that runs noria with args under restrictions.
func restricted(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, args...)
	cmd.Env = append(append(os.Environ(), programVariable+"="+program, backends.Variable+"="), env...)
	return cmd
}

// With hardly a descriptor left a loop cannot start, and the error says which limit to
// raise. How many descriptors Go itself needs first is not known (it dies without
// them), so the test tries several numbers.
func TestProbeWithoutDescriptors(t *testing.T) {
	var said []string
	for n := range 8 {
		out, err := restricted(t, []string{nofileVariable + "=" + strconv.Itoa(5+n)}, "probe").CombinedOutput()
		if err == nil || strings.Contains(string(out), "fatal error: runtime: ") {
			continue
		}
		require.Contains(t, string(out), "too many open files")
		require.Contains(t, string(out), "raise the limit of open files")
		said = append(said, string(out))
	}
	require.NotEmpty(t, said)
}
