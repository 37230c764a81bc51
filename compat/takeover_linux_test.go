package compat_test

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/internal/backendtest"
)

// A connection that is pumped goes through a socket pair that is made by listening
// on the abstract name space, where anybody may connect: whoever comes first is
// not taken for the other end.
func TestTakeOverIsNotFooled(t *testing.T) {
	g := backendtest.Group(t, backendtest.Variants()[0], 1)
	for range 2000 {
		var stop atomic.Bool
		turned := make(chan bool, 1)
		intruder, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		listener := lowestFree(t) // nobody else opens files here
		go func() { turned <- intrude(intruder, listener, &stop) }()

		client, nc := net.Pipe()
		s, pumped, err := compat.TakeOver(g.Loops()[0], nc, compat.TakeOverOptions{})
		require.NoError(t, err)
		require.True(t, pumped)
		require.NoError(t, client.SetDeadline(time.Now().Add(20*time.Second)))
		require.NoError(t, backendtest.Run(t, g, func(context.Context) error {
			_, err := io.WriteString(s, "hello")
			return err
		}))
		got := make([]byte, len("hello"))
		_, err = io.ReadFull(client, got)
		require.NoError(t, err, "somebody else is the other end")
		require.Equal(t, "hello", string(got))
		require.NoError(t, client.Close())
		require.NoError(t, backendtest.Run(t, g, func(context.Context) error { return s.Close() }))
		stop.Store(true)
		if <-turned {
			return
		}
	}
	t.Skip("the intruder never came first: this machine is too busy")
}

// lowestFree returns the descriptor that is opened next.
func lowestFree(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Close(fd))
	return fd
}

// intrude connects to listener as soon as somebody listens there, sends as much as
// a token, and reports whether it was accepted, read and then turned away.
func intrude(fd, listener int, stop *atomic.Bool) bool {
	defer unix.Close(fd)
	for !stop.Load() {
		to, err := unix.Getsockname(listener)
		if err != nil {
			continue
		}
		if a, ok := to.(*unix.SockaddrUnix); !ok || a.Name == "" || unix.Connect(fd, to) != nil {
			continue
		}
		if _, err := unix.Write(fd, make([]byte, 16)); err != nil {
			return false
		}
		n, err := unix.Read(fd, make([]byte, 1)) // a reset, if nobody has accepted it
		return n == 0 && err == nil
	}
	return false
}
