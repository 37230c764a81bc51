package loop_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// A loop that is stopped before it runs closes its backend and refuses to run.
func TestStoppedBeforeItRuns(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		rt, err := v.New()
		require.NoError(t, err)
		l := loop.NewLoop(rt, loop.LoopOptions{})
		l.Friend(key).Stop()
		<-l.Friend(key).Stopped()
		require.ErrorIs(t, l.Post(func() {}), runtime.ErrClosed)
		require.ErrorIs(t, l.Run(context.Background()), runtime.ErrClosed)
	})
}
