package loop_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
)

// socketOf returns the process's descriptor of the socket whose own and peer's
// addresses are these.
func socketOf(local, peer net.Addr) (int, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, err
	}
	port := func(sa unix.Sockaddr) int {
		if in, ok := sa.(*unix.SockaddrInet4); ok {
			return in.Port
		}
		return -1
	}
	for _, e := range entries {
		fd, _ := strconv.Atoi(e.Name())
		here, err := unix.Getsockname(fd)
		if err != nil {
			continue
		}
		there, err := unix.Getpeername(fd)
		if err == nil && port(here) == local.(*net.TCPAddr).Port && port(there) == peer.(*net.TCPAddr).Port {
			return fd, nil
		}
	}
	return 0, fmt.Errorf("no descriptor is connected from %v to %v", local, peer)
}

// socketOptions are those of a socket that loop.StreamOptions sets.
type socketOptions struct {
	keepAlive, idle, interval, userTimeout, sendBuffer, recvBuffer int
}

func optionsOf(s *loop.Stream) (o socketOptions, err error) {
	fd, err := socketOf(s.LocalAddr(), s.RemoteAddr())
	if err != nil {
		return o, err
	}
	for _, get := range []struct {
		level, name int
		to          *int
	}{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, &o.keepAlive},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, &o.idle},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, &o.interval},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, &o.userTimeout},
		{unix.SOL_SOCKET, unix.SO_SNDBUF, &o.sendBuffer},
		{unix.SOL_SOCKET, unix.SO_RCVBUF, &o.recvBuffer},
	} {
		v, gerr := unix.GetsockoptInt(fd, get.level, get.name)
		*get.to, err = v, errors.Join(err, gerr)
	}
	return o, err
}

// opened calls check in a task with a stream that has these options, for each way to
// open one: dialing, accepting and adopting.
func opened(t *testing.T, v backendtest.Variant, opts loop.StreamOptions, check func(s *loop.Stream) error) {
	t.Helper()
	g := backendtest.Group(t, v, 1)
	ls, err := g.Listen("127.0.0.1:0", loop.ListenOptions{Stream: opts})
	require.NoError(t, err)
	accepted := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx, ls, acceptOne(func(s *loop.Stream) { accepted <- check(s) })) }()
	require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
		l := g.Loops()[0]
		s, err := l.Friend(key).Dial(ctx, ls.Addr().String(), loop.DialOptions{Stream: opts})
		if err != nil {
			return err
		}
		return errors.Join(check(s), s.Close())
	}), "dialed")
	require.NoError(t, <-accepted, "accepted")
	stop()
	require.NoError(t, <-served)

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	require.NoError(t, backendtest.Run(t, g, func(context.Context) error {
		nc, err := (&net.Dialer{KeepAlive: -1}).Dial("tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		s, err := g.Loops()[0].Friend(key).AdoptConn(nc, opts)
		if err != nil {
			return errors.Join(err, nc.Close())
		}
		return errors.Join(check(s), s.Close())
	}), "adopted")
}

// acceptOne is a service that calls f with the first connection and closes it.
type acceptOne func(s *loop.Stream)

func (f acceptOne) Serve(ctx context.Context, ln *loop.Listener) error {
	s, err := ln.Accept(ctx)
	if err != nil {
		return err
	}
	f(s)
	var never loop.Event
	return errors.Join(s.Close(), ignoreCanceled(never.Wait(ctx)))
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// The socket options of StreamOptions reach the socket, however it was opened. A time
// that the system cannot express is rounded up: it does not switch the option off.
func TestSocketOptions(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for name, tc := range map[string]struct {
			opts loop.StreamOptions
			ok   func(o socketOptions) bool
		}{
			"none":              {loop.StreamOptions{}, func(o socketOptions) bool { return o.keepAlive == 0 && o.userTimeout == 0 }},
			"KeepAlive":         {loop.StreamOptions{KeepAlive: 7 * time.Second}, func(o socketOptions) bool { return o.keepAlive == 1 && o.idle == 7 && o.interval == 7 }},
			"KeepAlive, short":  {loop.StreamOptions{KeepAlive: time.Millisecond}, func(o socketOptions) bool { return o.keepAlive == 1 && o.idle == 1 }},
			"KeepAlive, long":   {loop.StreamOptions{KeepAlive: 1000 * time.Hour}, func(o socketOptions) bool { return o.keepAlive == 1 && o.idle == 32767 }},
			"UserTimeout":       {loop.StreamOptions{UserTimeout: 1500 * time.Millisecond}, func(o socketOptions) bool { return o.userTimeout == 1500 }},
			"UserTimeout,short": {loop.StreamOptions{UserTimeout: time.Microsecond}, func(o socketOptions) bool { return o.userTimeout == 1 }},
			// The system doubles what it is asked for.
			"SendBuffer": {loop.StreamOptions{SendBuffer: 20_000}, func(o socketOptions) bool { return o.sendBuffer == 40_000 }},
			"RecvBuffer": {loop.StreamOptions{RecvBuffer: 20_000}, func(o socketOptions) bool { return o.recvBuffer == 40_000 }},
		} {
			t.Run(name, func(t *testing.T) {
				opened(t, v, tc.opts, func(s *loop.Stream) error {
					o, err := optionsOf(s)
					if !tc.ok(o) {
						err = errors.Join(err, fmt.Errorf("%+v", o))
					}
					return err
				})
			})
		}
	})
}

// A socket that has no such options, as a unix one, opens all the same.
func TestSocketOptionsOfAUnixSocket(t *testing.T) {
	opts := loop.StreamOptions{KeepAlive: time.Minute, UserTimeout: time.Minute, SendBuffer: 20_000}
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
		require.NoError(t, err)
		defer ln.Close()
		g := backendtest.Group(t, v, 1)
		require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
			s, err := g.Loops()[0].Friend(key).Dial(ctx, "unix:"+ln.Addr().String(), loop.DialOptions{Stream: opts})
			if err != nil {
				return err
			}
			return s.Close()
		}))
	})
}
