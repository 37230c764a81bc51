package compat

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Another process that connects first is not taken for the other end of a socket pair: its
// connection is closed.
func TestSocketPairIsNotFooled(t *testing.T) {
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix"})
	require.NoError(t, err)
	defer ln.Close()
	dial := func(says string) net.Conn {
		c, err := net.DialUnix("unix", nil, ln.Addr().(*net.UnixAddr))
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Second)))
		_, err = io.WriteString(c, says)
		require.NoError(t, err)
		return c
	}
	const token = "0123456789abcdef"
	wrong, gone := dial("fedcba9876543210"), dial("0123")
	require.NoError(t, gone.Close())
	near := dial(token) // they wait in this order
	far, err := acceptOwn(ln, []byte(token))
	require.NoError(t, err)
	defer far.Close()
	require.NoError(t, far.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.WriteString(near, "hello")
	require.NoError(t, err)
	got := make([]byte, len("hello"))
	_, err = io.ReadFull(far, got)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))
	_, err = wrong.Read(got)
	require.Equal(t, io.EOF, err)
}
