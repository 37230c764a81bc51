//go:build (noria_uring && noria_epoll) || (!noria_uring && !noria_epoll)

package main_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/probe"
)

// These tests are about falling back from one backend to the other, in a build that has
// both.

// A seccomp filter refuses io_uring: every command uses epoll and says why.
func TestServeUnderSeccomp(t *testing.T) {
	for name, tt := range map[string]struct {
		variable string
		errno    syscall.Errno
		says     []string
	}{
		"as Docker does":        {seccompVariable, syscall.EPERM, []string{"seccomp", syscall.EPERM.Error()}},
		"as if unknown":         {seccompVariable, syscall.ENOSYS, []string{"seccomp", syscall.ENOSYS.Error()}},
		"only enter":            {enterVariable, syscall.EPERM, []string{"io_uring_enter", "seccomp", syscall.EPERM.Error()}},
		"enter, as if unknown":  {enterVariable, syscall.ENOSYS, []string{"io_uring_enter", "seccomp", syscall.ENOSYS.Error()}},
		"enter, as if it waits": {enterVariable, syscall.EAGAIN, []string{"io_uring_enter", "seccomp", syscall.EAGAIN.Error()}},
	} {
		t.Run(name, func(t *testing.T) {
			env := []string{tt.variable + "=" + strconv.Itoa(int(tt.errno))}
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
	out, err := restricted(t, []string{seccompVariable + "=" + strconv.Itoa(int(syscall.EPERM))}, "probe", "--json").Output()
	require.NoError(t, err)
	var r probe.Report
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

// With little lockable memory, an unprivileged user gets either io_uring (some kernels
// do not count rings) or epoll and the reason.
func TestServeWithLittleMemlock(t *testing.T) {
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

// unprivileged makes cmd, which restricted made, run as an unprivileged user if the
// test runs as root, since RLIMIT_MEMLOCK does not bind root. It copies the test binary
// to a place where that user can start it.
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
