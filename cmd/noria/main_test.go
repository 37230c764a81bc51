package main_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backends"
)

const patience = 20 * time.Second // limits each wait for something that should happen soon

var program string // noria, built once

func TestMain(m *testing.M) {
	if done, status := becomeRestricted(); done {
		os.Exit(status)
	}
	becomeLiar()
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "noria-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// One test runs the program as an unprivileged user, who must be able to enter.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	program = filepath.Join(dir, "noria")
	if out, err := exec.Command("go", "build", "-tags", tags(), "-o", program, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// tags returns the build tags that give the program the same backends as this test.
func tags() string {
	if list := backends.Names(); len(list) == 1 {
		return "noria_" + strings.TrimPrefix(list[0], "io_")
	}
	return ""
}

// A server is a running noria serve.
type server struct {
	tcp, ws string   // where they listen
	said    []string // the lines of its start, without the last
	cmd     *exec.Cmd
	stderr  strings.Builder
	exited  chan error
}

// line returns the line of the server's start that has this prefix.
func (s *server) line(prefix string) string {
	for _, l := range s.said {
		if strings.HasPrefix(l, prefix) {
			return l
		}
	}
	return ""
}

// start runs cmd, a noria serve, and waits until it says that it is ready.
func start(t *testing.T, cmd *exec.Cmd) *server {
	t.Helper()
	s := &server{cmd: cmd, exited: make(chan error, 1)}
	if cmd.Stderr == nil {
		cmd.Stderr = &s.stderr
	}
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	ready := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(stdout)
		for open := true; lines.Scan(); {
			if !open {
				continue
			}
			s.said = append(s.said, lines.Text())
			if strings.HasPrefix(lines.Text(), "loops ") {
				open = false
				close(ready)
			}
		}
		s.exited <- cmd.Wait()
	}()
	select {
	case <-ready:
	case err := <-s.exited:
		require.FailNow(t, "the server ended at once", "%v\n%s", err, s.stderr.String())
	case <-time.After(patience):
		require.FailNow(t, "the server did not become ready")
	}
	s.tcp = strings.TrimPrefix(s.line("tcp echo on "), "tcp echo on ")
	s.ws = strings.TrimPrefix(s.line("ws echo on "), "ws echo on ")
	return s
}

// serve runs noria serve with both services on ports that the system chooses.
func serve(t *testing.T, args ...string) *server {
	t.Helper()
	return start(t, exec.Command(program, serveArgs(args...)...))
}

func serveArgs(args ...string) []string {
	return append([]string{"serve", "--tcp", "127.0.0.1:0", "--ws", "127.0.0.1:0"}, args...)
}

func (s *server) signal(t *testing.T) {
	t.Helper()
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGTERM))
}

// wait waits for the program's end and returns its status.
func (s *server) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-s.exited:
		return s.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		require.FailNow(t, "the server did not end")
		return -1
	}
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return c
}
