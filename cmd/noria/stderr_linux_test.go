package main_test

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Standard error is a full pipe that nobody reads.
func TestServeEndsWhileStandardErrorIsFull(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		t.Run("no connection", func(t *testing.T) {
			cmd := exec.Command(program, serveArgs("--backend", backend)...)
			cmd.Stderr = fullPipe(t)
			s := start(t, cmd)
			s.signal(t)
			require.Zero(t, s.wait(t))
		})
		t.Run("a connection", func(t *testing.T) {
			cmd := exec.Command(program, serveArgs("--backend", backend, "--drain", "1h")...)
			cmd.Stderr = fullPipe(t)
			s := start(t, cmd)
			ping(t, dial(t, s.tcp))
			s.signal(t)
			requireStopping(t, s.tcp)
			s.signal(t)
			require.Equal(t, 1, s.wait(t))
		})
	})
}

// fullPipe returns the end of a pipe where the next write waits for ever.
func fullPipe(t *testing.T) *os.File {
	t.Helper()
	var p [2]int
	require.NoError(t, syscall.Pipe2(p[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK))
	t.Cleanup(func() { _ = syscall.Close(p[0]) })
	var err error
	for err == nil {
		_, err = syscall.Write(p[1], make([]byte, 1))
	}
	require.Equal(t, syscall.EAGAIN, err)
	require.NoError(t, syscall.SetNonblock(p[1], false))
	w := os.NewFile(uintptr(p[1]), "full pipe")
	t.Cleanup(func() { _ = w.Close() })
	return w
}
