package main_test

import (
	"encoding/json"
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

	"github.com/noria-go/noria"
)

// The test binary becomes noria under restrictions: it is started with these
// variables, restricts itself, and calls exec. All three kinds survive that.
const (
	seccompVariable = "NORIA_TEST_SECCOMP" // the errno that io_uring's system calls get
	memlockVariable = "NORIA_TEST_MEMLOCK" // bytes
	nofileVariable  = "NORIA_TEST_NOFILE"
	programVariable = "NORIA_TEST_PROGRAM"
)

// becomeRestricted does so if the variables say it. It returns only if they
// don't, or if it failed.
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
	if v := os.Getenv(seccompVariable); v != "" {
		errno, err := strconv.ParseUint(v, 10, 16)
		if err != nil {
			return err
		}
		return refuseRing(uint32(errno))
	}
	return nil
}

// refuseRing has the kernel answer errno to io_uring's three system calls, as
// Docker's default profile does with EPERM: see seccomp(2).
func refuseRing(errno uint32) error {
	runtime.LockOSThread()
	const offsetNR = 0 // of struct seccomp_data
	jump := func(nr uint32, to uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: to, K: nr}
	}
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offsetNR},
		jump(unix.SYS_IO_URING_SETUP, 3),
		jump(unix.SYS_IO_URING_ENTER, 2),
		jump(unix.SYS_IO_URING_REGISTER, 1),
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | errno},
	}
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

// restricted returns noria with args, under restrictions.
func restricted(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, args...)
	cmd.Env = append(append(os.Environ(), programVariable+"="+program, noria.BackendVariable+"="), env...)
	return cmd
}

func needsBothBackends(t *testing.T) bool {
	if len(noria.Backends()) < 2 {
		t.Log("this build has one backend: there is nothing to fall back from or to")
		return false
	}
	return true
}

// io_uring is refused for real: everything goes on with epoll, which says why.
func TestServeUnderSeccomp(t *testing.T) {
	if !needsBothBackends(t) {
		return
	}
	for name, tt := range map[string]struct {
		errno syscall.Errno
		says  []string
	}{
		"as Docker does": {syscall.EPERM, []string{"seccomp", syscall.EPERM.Error()}},
		"as if unknown":  {syscall.ENOSYS, []string{"seccomp", syscall.ENOSYS.Error()}},
	} {
		t.Run(name, func(t *testing.T) {
			env := []string{seccompVariable + "=" + strconv.Itoa(int(tt.errno))}
			s := start(t, restricted(t, env, serveArgs("--loops", "2")...))
			requireEcho(t, s.tcp)
			requireWebSocketEcho(t, s.ws)
			line := s.line("backend ")
			require.Contains(t, line, "backend epoll,")
			require.Contains(t, line, "io_uring:")
			require.Contains(t, line, "; using epoll")
			for _, part := range tt.says {
				require.Contains(t, line, part)
			}
			s.signal(t)
			require.Zero(t, s.wait(t), s.stderr.String())

			out, err := restricted(t, env, "serve", "--backend", "io_uring", "--tcp", "127.0.0.1:0").CombinedOutput()
			require.Error(t, err, "what is asked for by name is not replaced")
			require.Contains(t, string(out), "no backend can be started")
			require.Contains(t, string(out), "seccomp")
		})
	}
}

func TestProbeUnderSeccomp(t *testing.T) {
	if !needsBothBackends(t) {
		return
	}
	out, err := restricted(t, []string{seccompVariable + "=" + strconv.Itoa(int(syscall.EPERM))}, "probe", "--json").Output()
	require.NoError(t, err)
	var r noria.Report
	require.NoError(t, json.Unmarshal(out, &r))
	require.Equal(t, "epoll", r.Backend)
	require.Contains(t, r.Reason, "seccomp")
	require.Contains(t, r.Reason, "; using epoll")
	for _, b := range r.Backends {
		require.Equal(t, b.Name == "epoll", b.Usable, b.Why)
	}
	advice := ""
	for _, a := range r.Advice {
		advice += a.About + ": " + a.Do + "\n"
	}
	require.Contains(t, advice, "io_uring: ")
	require.Contains(t, advice, "--security-opt seccomp=")
}

// Little memory that may be locked, for a user without rights: either io_uring
// goes on (some kernels do not count rings), or epoll does and says why.
func TestServeWithLittleMemlock(t *testing.T) {
	if !needsBothBackends(t) {
		return
	}
	for _, bytes := range []string{"0", "16384"} {
		t.Run(bytes, func(t *testing.T) {
			env := []string{memlockVariable + "=" + bytes}
			s := start(t, unprivileged(t, restricted(t, env, serveArgs()...)))
			requireEcho(t, s.tcp)
			if line := s.line("backend "); !strings.Contains(line, "backend io_uring,") {
				require.Contains(t, line, "raise the limit of locked memory")
				require.Contains(t, line, "; using epoll")
				out, err := unprivileged(t, restricted(t, env, "serve", "--backend", "io_uring")).CombinedOutput()
				require.Error(t, err)
				require.Contains(t, string(out), "raise the limit of locked memory")
			}
			s.signal(t)
			require.Zero(t, s.wait(t), s.stderr.String())
		})
	}
}

// unprivileged has cmd, which restricted made, run as a user without rights if
// this one is root, whom RLIMIT_MEMLOCK does not bind. The test binary is copied
// to where that user can start it.
func unprivileged(t *testing.T, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	if os.Getuid() != 0 {
		return cmd
	}
	copied := program + "-test"
	if _, err := os.Stat(copied); err != nil {
		data, err := os.ReadFile(cmd.Path)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(copied, data, 0o755))
	}
	const nobody = 65534
	cmd.Path, cmd.Dir = copied, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return cmd
}

// With hardly a descriptor left a loop cannot be started, and what is said is
// what to raise. How many Go itself needs before is its own business (it dies
// when it cannot have them), so some numbers are tried.
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
