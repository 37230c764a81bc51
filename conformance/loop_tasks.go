package conformance

import (
	"context"
	"errors"
	"iter"
	goruntime "runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"net"

	"github.com/noria-go/noria/conformance/internal/require"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

func loopTaskCases() []testCase {
	return []testCase{
		{Name: "task/go-call-post", RunLoops: loopEntries, LoopAlone: true},
		{Name: "task/post-is-bounded", RunLoops: loopPostBounded, LoopAlone: true},
		{Name: "task/after-stop", RunLoops: loopAfterStop, NoFault: "a loop that has ended asks its Runtime for nothing"},
		{Name: "task/call-from-posted-function", RunLoops: loopCallFromPost, LoopAlone: true},
		{Name: "task/call-between-loops", RunLoops: loopCallBetween},
		{Name: "task/children", RunLoops: loopChildren, LoopAlone: true},
		{Name: "task/panic-contained", RunLoops: loopPanic, LoopAlone: true},
		{Name: "trap/goexit-contained", RunLoops: loopGoexit, LoopAlone: true},
		{Name: "trap/nested-coroutines", RunLoops: loopNested},
		{Name: "trap/watchdog-names-mutex", RunLoops: loopWatchdog, LoopAlone: true},
		{Name: "task/abandoned-is-named", RunLoops: loopAbandoned,
			NoFault: "the case is about a loop that stops with an error, and a faulty runtime only adds another error"},
		{Name: "task/ignores-cancel", RunLoops: loopIgnoresCancel},
		{Name: "task/foreign-context", RunLoops: loopForeignContext},
		{Name: "task/cancel-while-posts-are-full", RunLoops: loopCancelFull, LoopAlone: true},
	}
}

func loopEntries(l *loopWorld) {
	lp := l.loop()
	var order []string
	ended := make(chan error, 1)
	require.NoError(l, lp.Post(func() { order = append(order, "post") }))
	require.NoError(l, lp.Go("go", func(ctx context.Context) error {
		order = append(order, "go")
		return errors.New("mine")
	}, func(err error) { ended <- err }))
	require.ErrorContains(l, <-ended, "mine")
	want := errors.New("result")
	require.Same(l, want, l.do(lp, func(ctx context.Context) error {
		order = append(order, "call")
		require.Same(l, lp, loop.TaskOf(ctx).Loop())
		return lp.Call(ctx, "inline", func(inner context.Context) error {
			require.Same(l, loop.TaskOf(ctx), loop.TaskOf(inner))
			return want
		})
	}))
	require.Equal(l, []string{"post", "go", "call"}, order)
}

func loopPostBounded(l *loopWorld) {
	opts := l.options()
	opts.MaxPosts = 10
	g := l.groupWith(1, opts)
	lp := g.Loops()[0]
	hold, held := make(chan struct{}), make(chan struct{})
	ran := 0
	require.NoError(l, lp.Post(func() { close(held); <-hold }))
	<-held
	for range 10 {
		require.NoError(l, lp.Post(func() { ran++ }))
	}
	require.ErrorIs(l, lp.Post(func() {}), runtime.ErrBusy)
	close(hold)
	require.NoError(l, g.Stop())
	require.Equal(l, 10, ran, "a function that Post accepted runs")
}

func loopAfterStop(l *loopWorld) {
	g := l.groupWith(1, l.options())
	lp := g.Loops()[0]
	require.NoError(l, g.Stop())
	require.ErrorIs(l, lp.Post(func() {}), runtime.ErrClosed)
	require.ErrorIs(l, lp.Go("late", func(context.Context) error { return nil }, nil), runtime.ErrClosed)
	require.ErrorIs(l, lp.Call(context.Background(), "late", func(context.Context) error { return nil }), net.ErrClosed)
	lp.Friend(key).Stop()
}

func loopCallFromPost(l *loopWorld) {
	lp := l.loop()
	got := make(chan error, 1)
	require.NoError(l, lp.Post(func() {
		got <- lp.Call(context.Background(), "inside", func(context.Context) error { return nil })
	}))
	require.ErrorIs(l, <-got, loop.ErrOffLoop, "the call would wait for itself")
}

func loopCallBetween(l *loopWorld) {
	g := l.group(2)
	a, b := g.Loops()[0], g.Loops()[1]
	l.call(a, func(ctx context.Context) {
		others := 0
		_, err := loop.Go(ctx, "other", func(ctx context.Context) error {
			for {
				others++
				if err := loop.Yield(ctx); err != nil {
					return err
				}
			}
		})
		require.NoError(l, err)
		require.NoError(l, b.Call(ctx, "there", func(there context.Context) error {
			require.Same(l, b, loop.TaskOf(there).Loop())
			return loop.Sleep(there, 5*time.Millisecond)
		}))
		require.Positive(l, others, "the calling loop ran meanwhile")
		short, cancel := context.WithCancel(ctx)
		defer cancel()
		require.ErrorIs(l, b.Call(short, "long", func(there context.Context) error {
			cancel() // only after it runs: before, it would not start
			return loop.Sleep(there, time.Hour)
		}), runtime.ErrCanceled, "the end of ctx kills it")
	})
}

func loopChildren(l *loopWorld) {
	lp := l.loop()
	ended := 0
	waits := func(ctx context.Context) error {
		defer func() {
			for range 5 { // so that a caller which does not wait would be seen
				_ = loop.Yield(ctx)
			}
			ended++
		}()
		var never loop.Event
		return never.Wait(context.Background()) // only a kill ends it
	}
	l.call(lp, func(ctx context.Context) {
		parent, err := loop.Go(ctx, "parent", func(ctx context.Context) error {
			for range 3 {
				_, err := loop.Go(ctx, "child", func(ctx context.Context) error {
					_, err := loop.Go(ctx, "grandchild", waits)
					require.NoError(l, err)
					return waits(ctx)
				})
				require.NoError(l, err)
			}
			return loop.Yield(ctx) // until they wait
		})
		require.NoError(l, err)
		require.NoError(l, parent.Wait(ctx))
		require.Equal(l, 6, ended, "a task has ended when its children have")
		task, err := loop.Go(ctx, "fails", func(context.Context) error { return net.ErrClosed })
		require.NoError(l, err)
		require.Equal(l, net.ErrClosed, task.Wait(ctx))
	})
	_, err := loop.Go(context.Background(), "x", nil)
	require.ErrorIs(l, err, loop.ErrOffLoop)
}

func loopPanic(l *loopWorld) {
	opts := l.options()
	reported := make(chan *loop.PanicError, 3)
	opts.OnPanic = func(p *loop.PanicError) { reported <- p }
	g := l.groupWith(1, opts)
	lp := g.Loops()[0]
	var p *loop.PanicError
	cause := errors.New("cause")
	err := lp.Call(context.Background(), "victim", func(ctx context.Context) error {
		require.NoError(l, loop.Yield(ctx))
		panic(cause)
	})
	require.ErrorAs(l, err, &p)
	require.ErrorIs(l, err, cause)
	require.Equal(l, "victim", p.Task)
	require.Contains(l, string(p.Stack), "loopPanic")
	require.Same(l, p, <-reported)
	require.NoError(l, lp.Post(func() { panic("posted") }))
	require.Equal(l, "posted", (<-reported).Value)
	require.NoError(l, lp.Go("x", func(context.Context) error { return nil }, func(error) { panic("ended") }))
	require.Equal(l, "ended", (<-reported).Value)
	l.call(lp, func(ctx context.Context) { require.NoError(l, loop.Sleep(ctx, time.Millisecond)) })
	require.NoError(l, g.Stop())
}

func loopGoexit(l *loopWorld) {
	const n = 20
	l.lost = n
	lp := l.loop()
	var wg sync.WaitGroup
	for range n {
		l.bg(&wg, func() {
			err := lp.Call(context.Background(), "exits", func(ctx context.Context) error {
				defer func() { _ = loop.Yield(ctx) }() // suspends during Goexit
				goruntime.Goexit()
				return nil
			})
			if !errors.Is(err, loop.ErrGoexit) {
				l.Errorf("a task that called Goexit ended with %v", err)
			}
		})
	}
	wg.Wait()
	st, err := lp.Friend(key).Stats()
	require.NoError(l, err)
	require.Equal(l, n, st.Lost)
	require.Zero(l, st.Tasks)
	l.call(lp, func(ctx context.Context) {
		require.ErrorIs(l, loop.Offload(ctx, goruntime.Goexit), loop.ErrGoexit)
	})
}

// loopNested does I/O inside a coroutine of a task, and inside the body of a
// range-over-func loop.
func loopNested(l *loopWorld) {
	l.with(loop.StreamOptions{}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
		chunks := func(yield func(string) bool) {
			p := make([]byte, 5)
			for {
				l.off(ctx, func() { _, err := peer.Write([]byte("hello")); require.NoError(l, err) })
				n, err := s.Read(p)
				require.NoError(l, err)
				if !yield(string(p[:n])) {
					return
				}
			}
		}
		next, stop := iter.Pull(iter.Seq[string](chunks))
		for range 10 {
			v, ok := next()
			require.True(l, ok)
			require.Equal(l, "hello", v)
			require.NoError(l, loop.Yield(ctx))
		}
		stop()
		rounds := 0
		for v := range chunks {
			_, err := s.Write([]byte(v))
			require.NoError(l, err)
			require.NoError(l, s.Flush())
			l.off(ctx, func() { l.expect(peer, []byte("hello")) })
			if rounds++; rounds == 10 {
				break
			}
		}
	})
}

// loopWatchdog: a mutex that a suspended task holds stops the loop. The watchdog
// reports which task waits for it, and where.
func loopWatchdog(l *loopWorld) {
	opts, told := l.stalls("stuck in a mutex")
	g := l.groupWith(1, opts)
	lp := g.Loops()[0]
	var mu sync.Mutex
	mu.Lock()
	done := make(chan error, 1)
	require.NoError(l, lp.Go("stuck in a mutex", func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		return nil
	}, func(err error) { done <- err }))
	s := <-told
	mu.Unlock()
	require.NoError(l, <-done)
	require.Equal(l, "stuck in a mutex", s.Task)
	require.Contains(l, s.Stack, "loopWatchdog")
	require.Contains(l, s.Stack, "Mutex")
	require.GreaterOrEqual(l, s.Held, opts.StallAfter)
	require.NoError(l, g.Stop())
}

func loopAbandoned(l *loopWorld) {
	opts := l.options()
	opts.StopTimeout = 20 * time.Millisecond
	g := l.groupWith(1, opts)
	lp := g.Loops()[0]
	hold, gone := make(chan struct{}), make(chan struct{})
	started, result := make(chan struct{}), make(chan error, 1)
	require.NoError(l, lp.Go("never ends", func(ctx context.Context) error {
		close(started)
		return loop.Offload(ctx, func() { <-hold; close(gone) })
	}, func(err error) { result <- err }))
	<-started
	err := g.Stop()
	require.ErrorContains(l, err, "never ends")
	require.ErrorContains(l, err, "abandoned")
	require.ErrorContains(l, <-result, "abandoned", "a caller that waits for the task gets the error")
	close(hold)
	<-gone
	l.lost++ // its coroutine is left
}

// loopIgnoresCancel: a killed task that continues anyway does not keep the loop
// from its other tasks.
func loopIgnoresCancel(l *loopWorld) {
	lp := l.loop()
	var enough atomic.Bool
	rounds := 0
	l.call(lp, func(ctx context.Context) {
		task, err := loop.Go(ctx, "deaf", func(ctx context.Context) error {
			for !enough.Load() {
				rounds++
				_ = loop.Sleep(ctx, time.Hour)
			}
			return nil
		})
		require.NoError(l, err)
		defer enough.Store(true) // otherwise it could outlive a case that has failed
		task.Cancel(true)
		for range 10 {
			require.NoError(l, loop.Sleep(ctx, time.Millisecond))
		}
		require.Positive(l, rounds)
		enough.Store(true)
		require.NoError(l, task.Wait(ctx))
	})
}

// loopForeignContext: a context that does not come from the task ends the task's calls
// too, by deadline and by cancel, whatever the call waits for.
func loopForeignContext(l *loopWorld) {
	lp := l.loop()
	l.call(lp, func(ctx context.Context) {
		var never loop.Event
		q := loop.NewQueue[int](1)
		ln, err := lp.Friend(key).Listen(loopback, runtime.ListenOptions{}, loop.StreamOptions{})
		require.NoError(l, err)
		defer ln.Close()
		for name, wait := range map[string]func(context.Context) error{
			"sleep":  func(c context.Context) error { return loop.Sleep(c, time.Hour) },
			"event":  never.Wait,
			"queue":  func(c context.Context) error { _, err := q.Get(c); return err },
			"accept": func(c context.Context) error { _, err := ln.Accept(c); return err },
		} {
			for range 3 {
				c, cancel := context.WithTimeout(ctx, 2*time.Millisecond)
				err := wait(c)
				cancel()
				require.ErrorIs(l, err, context.DeadlineExceeded, name)
				var ne net.Error
				require.True(l, errors.As(err, &ne) && ne.Timeout(), name)
			}
			c, cancel := context.WithCancel(context.Background())
			_, err := loop.Go(ctx, "cancels", func(context.Context) error { cancel(); return nil })
			require.NoError(l, err)
			require.ErrorIs(l, wait(c), context.Canceled, name)
			cancel()
			require.ErrorIs(l, wait(c), context.Canceled, name)
		}
		require.NoError(l, loop.Sleep(ctx, 0), "the task's own context is not done")
	})
}

// loopCancelFull: a loop whose queue of posts is full still takes a cancel.
func loopCancelFull(l *loopWorld) {
	opts := l.options()
	opts.MaxPosts = 1
	g := l.groupWith(1, opts)
	lp := g.Loops()[0]
	tasks, ended := make(chan *loop.Task, 1), make(chan error, 1)
	require.NoError(l, lp.Go("sleeps", func(ctx context.Context) error {
		tasks <- loop.TaskOf(ctx)
		return loop.Sleep(ctx, time.Hour)
	}, func(err error) { ended <- err }))
	task := <-tasks
	hold, held := make(chan struct{}), make(chan struct{})
	require.NoError(l, lp.Post(func() { close(held); <-hold }))
	<-held
	require.NoError(l, lp.Post(func() {}))
	require.ErrorIs(l, lp.Post(func() {}), runtime.ErrBusy)
	task.Cancel(true)
	close(hold)
	err := <-ended
	require.True(l, errors.Is(err, runtime.ErrCanceled), "%v", err)
	require.True(l, strings.HasPrefix(err.Error(), "sleep"))
	require.NoError(l, g.Stop())
}
