package loop_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// The deadline of the context that Call is given is that of its task and of the task's
// children. When it passes, they fail with DeadlineExceeded wherever they wait.
func TestCallDeadline(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 2)
		l := g.Loops()[0]
		waits := map[string]func(ctx context.Context) error{
			"own context":   func(ctx context.Context) error { return loop.Sleep(ctx, time.Hour) },
			"other context": func(context.Context) error { return loop.Sleep(context.Background(), time.Hour) },
			"operation": func(ctx context.Context) error {
				ln, err := g.Listen("127.0.0.1:0", loop.ListenOptions{})
				if err != nil {
					return err
				}
				s, err := loop.TaskOf(ctx).Loop().Friend(key).Dial(ctx, ln.Addr().String(), loop.DialOptions{})
				if err != nil {
					return err
				}
				defer func() { _ = errors.Join(s.Close(), ln.Close()) }()
				_, err = s.Read(make([]byte, 1))
				return err
			},
		}
		callers := map[string]func(f func(ctx context.Context) error) error{
			"goroutine": func(f func(ctx context.Context) error) error { return f(context.Background()) },
			"other loop": func(f func(ctx context.Context) error) error {
				return g.Loops()[1].Call(context.Background(), "caller", f)
			},
			"same loop": func(f func(ctx context.Context) error) error {
				return l.Call(context.Background(), "caller", func(context.Context) error { return f(context.Background()) })
			},
			"goroutine of a task": func(f func(ctx context.Context) error) (err error) {
				return l.Call(context.Background(), "caller", func(ctx context.Context) error {
					return errors.Join(loop.Offload(ctx, func() { err = f(ctx) }), err)
				})
			},
		}
		for caller, call := range callers {
			for wait, f := range waits {
				t.Run(caller+"/"+wait, func(t *testing.T) {
					var inner, own, child error
					err := call(func(ctx context.Context) error {
						ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
						defer cancel()
						want, _ := ctx.Deadline()
						return l.Call(ctx, "called", func(ctx context.Context) error {
							d, ok := ctx.Deadline()
							require.True(t, ok)
							require.Equal(t, want, d)
							_, err := loop.Go(ctx, "child", func(ctx context.Context) error {
								d, _ := ctx.Deadline()
								require.Equal(t, want, d)
								err := f(ctx)
								child = ctx.Err()
								return err
							})
							require.NoError(t, err)
							inner = f(ctx)
							own = ctx.Err()
							return inner
						})
					})
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.ErrorIs(t, inner, context.DeadlineExceeded)
					require.Equal(t, context.DeadlineExceeded, own)
					require.Equal(t, context.DeadlineExceeded, child)
				})
			}
		}
	})
}

// A task that calls its own loop goes on itself, with the context that it gave.
func TestCallInPlace(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		require.ErrorIs(t, backendtest.Run(t, g, func(ctx context.Context) error {
			short, cancel := context.WithTimeout(ctx, time.Millisecond)
			defer cancel()
			return g.Loops()[0].Call(short, "called", func(inner context.Context) error {
				require.Equal(t, short, inner)
				return loop.Sleep(inner, time.Hour)
			})
		}), context.DeadlineExceeded)
	})
}

// A context that is cancelled is no deadline: the task fails with ErrCanceled, and its
// context says why.
func TestCallCancel(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		l := backendtest.Group(t, v, 1).Loops()[0]
		ctx, cancel := context.WithCancelCause(context.Background())
		defer cancel(nil)
		mine := errors.New("mine")
		err := l.Call(ctx, "called", func(ctx context.Context) error {
			_, ok := ctx.Deadline()
			require.False(t, ok)
			cancel(mine)
			err := loop.Sleep(context.Background(), time.Hour)
			require.Equal(t, context.Canceled, ctx.Err())
			require.Equal(t, mine, context.Cause(ctx))
			return err
		})
		require.ErrorIs(t, err, runtime.ErrCanceled)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
	})
}
