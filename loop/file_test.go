package loop_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
)

// A call that is refused before it reaches the kernel has moved no bytes, however many
// the call before it moved.
func TestRefusedFileCallsMoveNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte("hello"), 0o600))
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
			f, err := g.Loops()[0].Open(ctx, path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			b, err := g.Loops()[0].Pool().Get(4096)
			if err != nil {
				return errors.Join(err, f.Close())
			}
			defer b.Release()
			if n, err := f.ReadAt(ctx, b, 0); n != 5 || err != nil {
				return fmt.Errorf("ReadAt: %d, %v", n, err)
			}
			ended, cancel := context.WithCancel(context.Background())
			cancel()
			if n, err := f.ReadAt(ended, b, 0); n != 0 || !errors.Is(err, context.Canceled) {
				return fmt.Errorf("ReadAt with a context that has ended: %d, %v", n, err)
			}
			if n, err := f.WriteAt(ended, b, 0); n != 0 || !errors.Is(err, context.Canceled) {
				return fmt.Errorf("WriteAt with a context that has ended: %d, %v", n, err)
			}
			return f.Close()
		}))
	})
}
