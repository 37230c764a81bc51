package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/examples/internal/program"
	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/tcp"
)

func TestMain(m *testing.M) { program.Main(m, main) }

func TestSignalsDrain(t *testing.T) { program.RequireDrains(t) }

// A client on the net package; interop/run.sh drives it with npm's.
func TestEcho(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		ls, err := g.Listen("127.0.0.1:0", loop.ServeOptions{})
		require.NoError(t, err)
		ends := make(chan error, 2)
		srv := &tcp.Server{Handler: echo, OnEnd: func(_ *tcp.Conn, err error) { ends <- err }}
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- g.Serve(ctx, ls, srv) }()

		c, _, _, err := ws.Dial(context.Background(), fmt.Sprintf("ws://%s/", ls.Addr()))
		require.NoError(t, err)
		for _, n := range []int{0, 1, 125, 126, 65535, 65536, 5 << 20} {
			message := bytes.Repeat([]byte("x"), n)
			require.NoError(t, wsutil.WriteClientBinary(c, message))
			got, err := wsutil.ReadServerBinary(c)
			require.NoError(t, err)
			require.True(t, bytes.Equal(message, got), "%d bytes", n)
		}
		require.NoError(t, ws.WriteFrame(c, ws.MaskFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, "bye")))))
		_, err = wsutil.ReadServerBinary(c)
		require.ErrorAs(t, err, &wsutil.ClosedError{})
		require.NoError(t, c.Close())
		require.NoError(t, <-ends)

		// One that goes in the middle of a frame.
		c, _, _, err = ws.Dial(context.Background(), fmt.Sprintf("ws://%s/", ls.Addr()))
		require.NoError(t, err)
		_, err = c.Write([]byte{0x82, 0xfe})
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.ErrorIs(t, <-ends, io.ErrUnexpectedEOF)
		stop()
		require.NoError(t, <-done)
	})
}
