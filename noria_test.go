package noria_test

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria"
	"github.com/noria-go/noria/internal/backends"
	"github.com/noria-go/noria/internal/cpus"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/tcp"
)

func echo(_ context.Context, c *loop.Stream) error {
	_, err := io.Copy(c, c)
	return err
}

// The environment goes before the option, the option before the probe; what is
// asked for by name is had or refused, and the reason says who asked. (That the
// probe falls back, and build tags, need programs of their own: see
// TestServeUnderSeccomp of cmd/noria, and TestBuildTagsLeaveABackendOut.)
func TestRule12Selection(t *testing.T) {
	first := backends.Names()[0]
	last := backends.Names()[len(backends.Names())-1]
	for _, tt := range []struct {
		env, option string
		backend     string // "": an error
		says        string
	}{
		{"", "", first, "using " + first},
		{"auto", "auto", first, "using " + first},
		{"", "auto", first, "using " + first},
		{"auto", last, first, "using " + first},
		{"", last, last, "asked for by Options.Backend"},
		{last, first, last, "asked for by NORIA_BACKEND"},
		{last, "kqueue", last, "asked for by NORIA_BACKEND"},
		{"", "kqueue", "", `Options.Backend asks for backend "kqueue"`},
		{"kqueue", first, "", `NORIA_BACKEND asks for backend "kqueue"`},
	} {
		t.Run("env="+tt.env+",option="+tt.option, func(t *testing.T) {
			t.Setenv(backends.Variable, tt.env)
			g, err := noria.Start(noria.Options{Backend: tt.option, Loops: 1})
			if tt.backend == "" {
				require.ErrorContains(t, err, tt.says)
				for _, name := range backends.Names() {
					require.ErrorContains(t, err, name, "what there is")
				}
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.backend, g.Info().Backend)
			require.Contains(t, g.Info().Reason, tt.says)
			require.NoError(t, g.Stop())
		})
	}
}

func TestStartRefuses(t *testing.T) {
	_, err := noria.Start(noria.Options{Loops: -1})
	require.ErrorContains(t, err, "-1 loops")
	_, err = noria.Start(noria.Options{Loops: loop.MaxLoops + 1})
	require.ErrorContains(t, err, "1025 loops, want 1 to 1024")
	_, err = loop.StartGroup(loop.GroupOptions{Loops: loop.MaxLoops + 1, New: func(int) (runtime.Runtime, error) { panic("not called") }})
	require.ErrorContains(t, err, "1025 loops, want 1 to 1024")
	require.ErrorContains(t, noria.ListenAndServe(t.Context(), "nowhere", nil, noria.Options{}), "host:port")
}

func each(t *testing.T, f func(t *testing.T, backend string)) {
	for _, name := range backends.Names() {
		t.Run(name, func(t *testing.T) {
			t.Setenv(backends.Variable, name)
			f(t, name)
		})
	}
}

// ListenAndServe serves until its context ends, and returns nil then; and what
// is wrong with the address otherwise, with no loop left behind.
func TestListenAndServe(t *testing.T) {
	each(t, func(t *testing.T, _ string) {
		path := filepath.Join(t.TempDir(), "s")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		srv := &tcp.Server{Handler: echo}
		go func() { done <- noria.ListenAndServe(ctx, "unix:"+path, srv, noria.Options{Loops: 2, Pin: true}) }()
		var c net.Conn
		require.Eventually(t, func() (ok bool) {
			var err error
			c, err = net.Dial("unix", path)
			return err == nil
		}, time.Minute, time.Millisecond)
		_, err := io.WriteString(c, "hello")
		require.NoError(t, err)
		require.NoError(t, c.(*net.UnixConn).CloseWrite())
		got, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, "hello", string(got))
		require.NoError(t, c.Close())
		cancel()
		require.NoError(t, <-done)
		require.EqualValues(t, 1, srv.Stats().Accepted)
	})
}

// A second program, or this one once more, does not get an address that is in
// use, whatever the number of loops; unless both say that they share it.
func TestRule11AddressInUse(t *testing.T) {
	each(t, func(t *testing.T, _ string) {
		for _, loops := range []int{1, 3} {
			g, err := noria.Start(noria.Options{Loops: loops})
			require.NoError(t, err)
			ls, err := g.Listen("127.0.0.1:0", loop.ListenOptions{})
			require.NoError(t, err)
			address := ls.Addr().String()
			for _, second := range []noria.Options{
				{Loops: 1}, {Loops: 3}, {Loops: 3, Listen: loop.ListenOptions{Spread: true}},
			} {
				err := noria.ListenAndServe(t.Context(), address, &tcp.Server{Handler: echo}, second)
				require.ErrorIs(t, err, syscall.EADDRINUSE)
				require.ErrorContains(t, err, address)
			}
			require.NoError(t, ls.Close())
			ls, err = g.Listen(address, loop.ListenOptions{Share: true})
			require.NoError(t, err, "it is free again")
			more, err := g.Listen(address, loop.ListenOptions{Share: true})
			require.NoError(t, err)
			require.NoError(t, more.Close())
			require.NoError(t, ls.Close())
			require.NoError(t, g.Stop())
		}
	})
}

// Where there is no memory for the receive buffers, starting fails with a
// number and leaves nothing.
func TestStartWithoutMemory(t *testing.T) {
	each(t, func(t *testing.T, _ string) {
		_, err := noria.Start(noria.Options{Loops: 2, Loop: loop.LoopOptions{PoolLimit: 1 << 14}})
		require.ErrorContains(t, err, runtime.ErrNoBuffers.Error())
		require.ErrorContains(t, err, "16384")
	})
}

// With no number given there are as many loops as package cpus says.
func TestStartDefaultLoops(t *testing.T) {
	g, err := noria.Start(noria.Options{})
	require.NoError(t, err)
	require.Len(t, g.Loops(), cpus.Loops())
	require.NoError(t, g.Stop())
}
