package loop_test

import (
	"context"
	"log/slog"
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// hidden returns the address of a socket that listens and that no process has open, as
// after the end of a process whose ring the kernel has not torn down yet: it is in a
// message that nobody receives. drop ends it.
func hidden(t *testing.T) (address string, drop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	raw, err := ln.(*net.TCPListener).SyscallConn()
	require.NoError(t, err)
	var serr error
	require.NoError(t, raw.Control(func(fd uintptr) {
		serr = unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(int(fd)), nil, 0)
	}))
	require.NoError(t, serr)
	require.NoError(t, ln.Close())
	return ln.Addr().String(), func() {
		_ = unix.Close(pair[0])
		_ = unix.Close(pair[1])
	}
}

// onWarning is a logger that calls f.
type onWarning struct {
	slog.Handler
	f func(text string)
}

func (h onWarning) Enabled(context.Context, slog.Level) bool { return true }

func (h onWarning) Handle(_ context.Context, r slog.Record) error {
	h.f(r.Message)
	return nil
}

// Listen waits for an address whose program has ended, says so, and does not wait for
// ever. It does not wait for one whose program lives.
func TestListenAfterAKilledProgram(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		var warned func(string)
		logger := slog.New(onWarning{slog.DiscardHandler, func(text string) { warned(text) }})
		for _, loops := range []int{1, 2} {
			g, err := loop.StartGroup(loop.GroupOptions{Loops: loops, New: func(int) (runtime.Runtime, error) { return v.New() },
				Loop: loop.LoopOptions{Logger: logger}})
			require.NoError(t, err)
			address, drop := hidden(t)
			var said []string
			warned = func(text string) {
				said = append(said, text)
				drop()
			}
			ls, err := g.Listen(address, loop.ListenOptions{})
			require.NoError(t, err)
			require.Equal(t, []string{"noria: the address is held by a program that has ended; trying again"}, said)

			said, drop = nil, func() {}
			_, err = g.Listen(address, loop.ListenOptions{})
			require.ErrorIs(t, err, syscall.EADDRINUSE)
			require.Empty(t, said, "this program lives")
			require.NoError(t, ls.Close())

			if loops == 1 {
				address, end := hidden(t)
				_, err = g.Listen(address, loop.ListenOptions{})
				require.ErrorIs(t, err, syscall.EADDRINUSE)
				require.Len(t, said, 1)
				end()
			}
			require.NoError(t, g.Stop())
		}
	})
}
