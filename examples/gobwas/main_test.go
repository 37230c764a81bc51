package main

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria"
	"github.com/noria-go/noria/examples/gobwas/echo"
	"github.com/noria-go/noria/examples/internal/program"
	"github.com/noria-go/noria/loop"
)

func TestMain(m *testing.M) { program.Main(m, main) }

func TestSignalsDrain(t *testing.T) { program.RequireDrains(t) }

// The client, with a server on another group of loops.
func TestSay(t *testing.T) {
	g, err := noria.Start(noria.Options{Loops: 1})
	require.NoError(t, err)
	defer func() { require.NoError(t, g.Stop()) }()
	ls, err := g.Listen("127.0.0.1:0", loop.ListenOptions{})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx, ls, echo.Server(echo.Options{})) }()
	require.NoError(t, run(ctx, noria.Options{}, "", "ws://"+ls.Addr().String(), "größer", echo.Options{}))
	require.Error(t, run(ctx, noria.Options{}, "", "wss://"+ls.Addr().String(), "", echo.Options{}))
	stop()
	require.NoError(t, <-served)
}
