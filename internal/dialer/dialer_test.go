package dialer_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/dialer"
	"github.com/noria-go/noria/loop"
)

// A default group that fails to start once is started by a later call, once.
func TestDefaultGroupIsTriedAgain(t *testing.T) {
	g := backendtest.Group(t, backendtest.Variants()[0], 1)
	failed, starts := errors.New("too many open files"), 0
	dialer.Provide(func() (*loop.Group, error) {
		if starts++; starts == 1 {
			return nil, failed
		}
		return g, nil
	})
	var on *loop.Loop
	dial := func() error {
		return dialer.On(context.Background(), nil, "unix:/nowhere", func(ctx context.Context, foreign bool) error {
			require.True(t, foreign)
			on = loop.TaskOf(ctx).Loop()
			return nil
		})
	}
	require.ErrorIs(t, dial(), failed)
	require.Nil(t, on)
	require.NoError(t, dial())
	require.Same(t, g.Loops()[0], on)
	require.NoError(t, dial())
	require.Equal(t, 2, starts)
}
