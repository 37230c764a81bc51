package conformance

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/noria-go/noria/conformance/internal/require"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

func loopWaitCases() []testCase {
	return []testCase{
		{Name: "wait/sleep-never-early", RunLoops: loopSleep, LoopAlone: true},
		{Name: "wait/timer-armed-late-in-a-batch", RunLoops: loopLateTimer, LoopAlone: true},
		{Name: "wait/yield", RunLoops: loopYield, LoopAlone: true},
		{Name: "wait/event", RunLoops: loopEvent},
		{Name: "wait/queue-from-everywhere", RunLoops: loopQueue},
		{Name: "wait/queue-limits-deadline-close", RunLoops: loopQueueLimits, LoopAlone: true},
		{Name: "wait/any-of-stream-and-queue", RunLoops: loopWaitAny},
		{Name: "wait/offload-many", RunLoops: loopOffload, LoopAlone: true},
		{Name: "wait/offload-panic-cancel", RunLoops: loopOffloadFaults},
	}
}

func loopSleep(l *loopWorld) {
	lp := l.loop()
	l.call(lp, func(ctx context.Context) {
		var tasks []*loop.Task
		for range 200 {
			d := time.Duration(l.rand.IntN(3000)) * time.Microsecond
			t, err := loop.Go(ctx, "sleeper", func(ctx context.Context) error {
				start := lp.Now()
				err := loop.Sleep(ctx, d)
				require.GreaterOrEqual(l, time.Duration(lp.Now()-start), d)
				return err
			})
			require.NoError(l, err)
			tasks = append(tasks, t)
		}
		for _, t := range tasks {
			require.NoError(l, t.Wait(ctx))
		}
	})
}

// loopLateTimer: a task that computes before it sleeps sleeps the whole time,
// although the turn began earlier.
func loopLateTimer(l *loopWorld) {
	lp := l.loop()
	l.call(lp, func(ctx context.Context) {
		for range 5 {
			for start := lp.Now(); lp.Now() < start+int64(3*time.Millisecond); {
			}
			start := lp.Now()
			require.NoError(l, loop.Sleep(ctx, 2*time.Millisecond))
			require.GreaterOrEqual(l, lp.Now()-start, int64(2*time.Millisecond))
		}
	})
}

func loopYield(l *loopWorld) {
	lp := l.loop()
	var order []int
	l.call(lp, func(ctx context.Context) {
		var tasks []*loop.Task
		for i := range 3 {
			t, err := loop.Go(ctx, "turns", func(ctx context.Context) error {
				for range 3 {
					order = append(order, i)
					if err := loop.Yield(ctx); err != nil {
						return err
					}
				}
				return nil
			})
			require.NoError(l, err)
			tasks = append(tasks, t)
		}
		for _, t := range tasks {
			require.NoError(l, t.Wait(ctx))
		}
	})
	require.Equal(l, []int{0, 1, 2, 0, 1, 2, 0, 1, 2}, order)
}

func loopEvent(l *loopWorld) {
	g := l.group(2)
	for range 50 {
		var (
			e     loop.Event
			woken atomic.Int32
			wg    sync.WaitGroup
		)
		for _, lp := range g.Loops() {
			for range 3 {
				l.bg(&wg, func() {
					l.call(lp, func(ctx context.Context) { require.NoError(l, e.Wait(ctx)); woken.Add(1) })
				})
			}
		}
		l.bg(&wg, func() { require.NoError(l, e.Wait(context.Background())); woken.Add(1) })
		e.Set()
		wg.Wait()
		require.Equal(l, 7, woken.Load())
		require.True(l, e.IsSet())
		e.Clear()
		require.False(l, e.IsSet())
	}
}

// loopQueue: goroutines and tasks of two loops put values, and one task takes them. The
// values of one sender arrive in order, and none is lost.
func loopQueue(l *loopWorld) {
	const senders, each = 6, 500
	g := l.group(2)
	type msg struct{ from, n int }
	q := loop.NewQueue[msg](8)
	var wg sync.WaitGroup
	for from := range senders {
		send := func(ctx context.Context) error {
			for n := range each {
				if err := q.Put(ctx, msg{from, n}); err != nil {
					return err
				}
			}
			return nil
		}
		l.bg(&wg, func() {
			var err error
			switch from % 3 {
			case 0:
				err = send(context.Background())
			default:
				err = l.do(g.Loops()[from%3-1], send)
			}
			if err != nil {
				l.Errorf("sender %d: %v", from, err)
			}
		})
	}
	var next [senders]int
	l.call(g.Loops()[0], func(ctx context.Context) {
		for range senders * each {
			m, err := q.Get(ctx)
			require.NoError(l, err)
			require.LessOrEqual(l, q.Len(), 8)
			require.Equal(l, next[m.from], m.n, "of sender %d", m.from)
			next[m.from]++
		}
	})
	wg.Wait()
	require.Zero(l, q.Len())
}

func loopQueueLimits(l *loopWorld) {
	lp := l.loop()
	q := loop.NewQueue[int](2)
	l.call(lp, func(ctx context.Context) {
		short, cancel := context.WithTimeout(ctx, 2*time.Millisecond)
		defer cancel()
		_, err := q.Get(short)
		require.ErrorIs(l, err, context.DeadlineExceeded)
		require.NoError(l, q.Put(ctx, 1))
		require.NoError(l, q.TryPut(2))
		require.ErrorIs(l, q.TryPut(3), runtime.ErrBusy)
		short, cancel = context.WithTimeout(ctx, 2*time.Millisecond)
		defer cancel()
		require.ErrorIs(l, q.Put(short, 3), context.DeadlineExceeded)
		waiting, err := loop.Go(ctx, "putter", func(ctx context.Context) error { return q.Put(ctx, 4) })
		require.NoError(l, err)
		require.NoError(l, loop.Yield(ctx))
		q.Close()
		require.ErrorIs(l, waiting.Wait(ctx), runtime.ErrClosed)
		require.ErrorIs(l, q.TryPut(5), runtime.ErrClosed)
		for want := 1; want <= 2; want++ {
			v, err := q.Get(ctx)
			require.NoError(l, err, "what is in it can be taken")
			require.Equal(l, want, v)
		}
		_, err = q.Get(ctx)
		require.ErrorIs(l, err, net.ErrClosed)
		_, ok := q.TryGet()
		require.False(l, ok)
	})
}

// loopWaitAny is a push server: a task waits for the peer's bytes and for values to
// push, and takes whichever is ready first.
func loopWaitAny(l *loopWorld) {
	l.with(loop.StreamOptions{}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
		const pushes = 200
		q := loop.NewQueue[byte](4)
		var wg sync.WaitGroup
		l.bg(&wg, func() {
			for range pushes {
				require.NoError(l, q.Put(context.Background(), 'p'))
			}
		})
		l.bg(&wg, func() {
			for range pushes {
				_, err := peer.Write([]byte("e"))
				require.NoError(l, err)
			}
			require.NoError(l, peer.CloseWrite())
		})
		pushed, echoed, eof := 0, 0, false
		for !eof || pushed < pushes {
			sources := []loop.Source{q, s.Readable()}
			if eof {
				sources = sources[:1]
			}
			i, err := loop.WaitAny(ctx, sources...)
			require.NoError(l, err)
			if i == 0 {
				_, ok := q.TryGet()
				require.True(l, ok)
				pushed++
				continue
			}
			if b := s.TryReadBuf(); b != nil {
				echoed += b.Len()
				b.Release()
				continue
			}
			require.Error(l, s.Friend(key).ReadErr())
			eof = true
		}
		require.Equal(l, pushes, echoed)
		l.off(ctx, wg.Wait)
		short, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		_, err := loop.WaitAny(short, q)
		require.ErrorIs(l, err, context.DeadlineExceeded)
	})
}

// loopOffload: up to the limit of functions run at once, and no more. All of them run
// in the end.
func loopOffload(l *loopWorld) {
	const n, most = 1500, 512
	lp := l.loop()
	var now, ran atomic.Int32
	gate := make(chan struct{}) // holds the running functions so that they can be counted
	open := sync.OnceFunc(func() { close(gate) })
	l.call(lp, func(ctx context.Context) {
		defer open()
		var tasks []*loop.Task
		for range n {
			t, err := loop.Go(ctx, "offloads", func(ctx context.Context) error {
				return loop.Offload(ctx, func() {
					now.Add(1)
					<-gate // it may block here: this is no loop
					ran.Add(1)
				})
			})
			require.NoError(l, err)
			tasks = append(tasks, t)
		}
		for now.Load() < most {
			require.NoError(l, loop.Yield(ctx), "fewer run at once than the limit allows")
		}
		for range 2000 { // time for functions over the limit to show
			require.NoError(l, loop.Yield(ctx))
		}
		require.Equal(l, most, now.Load(), "at once")
		open()
		for _, t := range tasks {
			require.NoError(l, t.Wait(ctx))
		}
	})
	require.Equal(l, n, ran.Load())
}

func loopOffloadFaults(l *loopWorld) {
	lp := l.loop()
	l.call(lp, func(ctx context.Context) {
		func() {
			defer func() {
				err, ok := recover().(error)
				require.True(l, ok)
				require.ErrorIs(l, err, net.ErrClosed, "the panic reaches the caller")
				require.Contains(l, err.Error(), "loopOffloadFaults", "with the stack of the function")
			}()
			_ = loop.Offload(ctx, func() { panic(net.ErrClosed) })
		}()
		finished := false
		task, err := loop.Go(ctx, "cancelled", func(ctx context.Context) error {
			err := loop.Offload(ctx, func() { <-ctx.Done(); finished = true })
			require.True(l, finished, "Offload waits for the function")
			require.ErrorIs(l, loop.Offload(ctx, func() { l.Errorf("run after the cancel") }), runtime.ErrCanceled)
			return err
		})
		require.NoError(l, err)
		require.NoError(l, loop.Yield(ctx))
		task.Cancel(true)
		require.NoError(l, task.Wait(ctx))
	})
	require.NoError(l, loop.Offload(context.Background(), func() {}), "on a goroutine it is a call")
}
