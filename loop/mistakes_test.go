package loop_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// These are tests of mistakes that panic where they are made, and of what such a panic
// must leave as it was; and of extreme values.

// panics returns an error if f does not panic.
func panics(f func()) (err error) {
	defer func() {
		if recover() == nil {
			err = errors.New("it did not panic")
		}
	}()
	f()
	return nil
}

// The panic about a buffer that cannot be lent leaves the loop as it was: its operation
// can be used again, and the stream can receive.
func TestRefusedBuffers(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		path := filepath.Join(t.TempDir(), "f")
		require.NoError(t, os.WriteFile(path, []byte("hello"), 0o600))
		withPeer(t, v, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) error {
			l := s.Loop()
			for range 2 { // the second round reuses the operation
				f, err := l.Open(ctx, path, os.O_RDONLY, 0)
				if err != nil {
					return err
				}
				if err := panics(func() { _, _ = f.ReadAt(ctx, runtime.NewShared(make([]byte, 100)), 0) }); err != nil {
					return err
				}
				if err := f.Close(); err != nil {
					return err
				}
			}
			s.Friend(key).ReadAhead()
			b, err := l.Pool().Get(4096)
			if err != nil {
				return err
			}
			reader, err := loop.Go(ctx, "reader", func(context.Context) error {
				return panics(func() { _, _ = s.ReadInto(b) })
			})
			if err != nil {
				return err
			}
			if err := loop.Yield(ctx); err != nil {
				return err
			}
			b.Retain() // while ReadInto waits for the end of the recv-many
			err = reader.Wait(ctx)
			b.Release()
			b.Release()
			if err != nil {
				return err
			}
			if _, err := peer.Write([]byte("hello")); err != nil {
				return err
			}
			_, err = s.Read(make([]byte, 10))
			return err
		})
	})
}

// A badContext is a context whose Err panics once bad is set.
type badContext struct {
	context.Context
	bad *bool
}

func (c badContext) Err() error {
	if *c.bad {
		panic("a mistake in a context")
	}
	return c.Context.Err()
}

// A panic of a task with an operation in the kernel ends the operation. The loop closes
// the handle that the operation may make, and does not reuse the operation meanwhile.
func TestPanicWithOperationInFlight(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		l := g.Loops()[0]
		require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
			ln, err := l.Friend(key).Runtime().Listen(runtime.Addr{AddrPort: netip.MustParseAddrPort("127.0.0.1:0")}, runtime.ListenOptions{Backlog: 1})
			if err != nil {
				return err
			}
			full, err := l.Friend(key).Runtime().LocalAddr(ln)
			if err != nil {
				return err
			}
			const dials = 10 // the kernel accepts a few of them
			bad, waiting := false, 0
			var all []*loop.Task
			for range dials {
				task, err := loop.Go(ctx, "dials", func(context.Context) error {
					waiting++
					s, err := l.Friend(key).Dial(badContext{context.Background(), &bad}, full.String(), loop.DialOptions{})
					waiting--
					if err != nil {
						return err
					}
					return s.Close()
				})
				if err != nil {
					return err
				}
				all = append(all, task)
			}
			for range 20 { // turns in which the first dials succeed
				if err := loop.Yield(ctx); err != nil {
					return err
				}
			}
			if waiting == 0 {
				return errors.New("no connect had to wait")
			}
			bad = true
			for _, task := range all {
				task.Cancel(false) // makes the task look at its context
			}
			panicked := 0
			for _, task := range all {
				if err := task.Wait(ctx); errors.As(err, new(*loop.PanicError)) {
					panicked++
				}
			}
			if panicked != waiting {
				return fmt.Errorf("%d waited and %d panicked", waiting, panicked)
			}
			// An operation that succeeded before it was cancelled has made a connection.
			before := backendtest.OpenFDs()
			for range 200 {
				bad = false
				task, err := loop.Go(ctx, "opens", func(context.Context) error {
					f, err := l.Open(badContext{context.Background(), &bad}, os.DevNull, os.O_RDONLY, 0)
					if err != nil {
						return err
					}
					bad = false // the dial had succeeded before
					return f.Close()
				})
				if err == nil {
					err = loop.Yield(ctx)
				}
				if err != nil {
					return err
				}
				bad = true
				task.Cancel(false)
				_ = task.Wait(ctx)
			}
			for turns := 0; backendtest.OpenFDs() > before; turns++ {
				if err := loop.Yield(ctx); err != nil || turns == 100_000 {
					return fmt.Errorf("%d descriptors before, %d now, %v", before, backendtest.OpenFDs(), err)
				}
			}
			for range dials { // each of these takes an operation
				f, err := l.Open(ctx, os.DevNull, os.O_RDONLY, 0)
				if err != nil {
					return err
				}
				if err := f.Close(); err != nil {
					return err
				}
			}
			return nil
		}))
	})
}

// A buffer that the kernel writes into cannot get a second owner.
func TestRetainInFlight(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		withPeer(t, v, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) error {
			b, err := s.Loop().Pool().Get(4096)
			if err != nil {
				return err
			}
			defer b.Release()
			reader, err := loop.Go(ctx, "reader", func(context.Context) error {
				_, err := s.ReadInto(b)
				return err
			})
			if err == nil {
				err = loop.Yield(ctx) // lets the other task begin to wait
			}
			if err == nil {
				err = panics(func() { b.Retain() })
			}
			if err != nil {
				return err
			}
			if _, err := peer.Write([]byte("hello")); err != nil {
				return err
			}
			if err := reader.Wait(ctx); err != nil || string(b.Bytes()) != "hello" {
				return fmt.Errorf("%w: %q", err, b.Bytes())
			}
			return nil
		})
	})
}

// A write that panics about one of its buffers sends none, and leaks none.
func TestRefusedMessage(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		withPeer(t, v, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) error {
			pool := s.Loop().Pool()
			before := pool.Friend(key).Stats().Outstanding
			head, err := pool.Friend(key).Copy(0, []byte("head"))
			if err != nil {
				return err
			}
			tail, err := pool.Friend(key).Copy(0, []byte("tail"))
			if err != nil {
				return err
			}
			bad := runtime.NewShared([]byte("bad"))
			bad.Release()
			if err := panics(func() { _ = s.WriteBuf(head, bad, tail) }); err != nil {
				return err
			}
			if n := pool.Friend(key).Stats().Outstanding; n != before {
				return fmt.Errorf("%d buffers stay behind", n-before)
			}
			if err := s.CloseWrite(); err != nil {
				return err
			}
			if got, err := io.ReadAll(peer); err != nil || len(got) > 0 {
				return fmt.Errorf("the peer got %q, %v", got, err)
			}
			return nil
		})
	})
}

// A time in the past means now, and a time beyond the clock means never.
func TestExtremeTimes(t *testing.T) {
	never := loop.DialOptions{Timeout: math.MaxInt64, Stream: loop.StreamOptions{Linger: math.MaxInt64, IdleTimeout: math.MaxInt64}}
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		withPeerOf(t, v, never, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) error {
			for _, wait := range []func(context.Context, time.Duration) error{loop.Sleep, timed(s.Loop())} {
				if err := wait(ctx, -time.Hour*24*365); err != nil { // before the clock began
					return err
				}
			}
			if _, err := peer.Write([]byte("x")); err != nil {
				return err
			}
			if _, err := s.Read(make([]byte, 1)); err != nil {
				return fmt.Errorf("it was idle for too long: %w", err)
			}
			const size = 32 << 20
			if err := s.Friend(key).Enqueue(runtime.NewShared(make([]byte, size))); err != nil {
				return err
			}
			read := make(chan int64, 1)
			go func() {
				n, _ := io.Copy(io.Discard, peer)
				read <- n
			}()
			if err := s.Close(); err != nil {
				return fmt.Errorf("it lingered for too long: %w", err)
			}
			var got int64
			err := loop.Offload(ctx, func() { got = <-read })
			if err == nil && got != size {
				err = fmt.Errorf("%d of %d bytes were sent", got, size)
			}
			return err
		})
	})
}

// timed waits for a Timer on l.
func timed(l *loop.Loop) func(ctx context.Context, d time.Duration) error {
	return func(ctx context.Context, d time.Duration) error {
		var fired loop.Event
		var timer loop.Timer
		timer.Init(l, fired.Set)
		timer.Set(d)
		defer timer.Stop()
		return fired.Wait(ctx)
	}
}

// Notify calls its function, whichever thread sets the event.
func TestNotifyFromElsewhere(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		withPeer(t, v, func(ctx context.Context, s *loop.Stream, _ *net.TCPConn) error {
			for range 200 {
				var set, told loop.Event
				src := loop.Source(&set)
				s.Loop().Friend(key).Notify(src, told.Set)
				go set.Set()
				if err := told.Wait(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// A function that a loop calls outside any task must not wait: calls that would have to
// wait fail with ErrOffLoop. (The context has ended, so that a call which waits all the
// same does not hold the loop.)
func TestPostedFunctionsDoNotWait(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		l := backendtest.Group(t, v, 1).Loops()[0]
		var never loop.Event
		empty := loop.NewQueue[int](1)
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		waits := []func(context.Context, time.Duration) error{
			loop.Sleep,
			func(ctx context.Context, _ time.Duration) error { return never.Wait(ctx) },
			func(ctx context.Context, _ time.Duration) error { _, err := empty.Get(ctx); return err },
			func(ctx context.Context, _ time.Duration) error { _, err := loop.WaitAny(ctx, &never); return err },
		}
		results := make(chan error, len(waits))
		require.NoError(t, l.Post(func() {
			for _, wait := range waits {
				results <- wait(ended, time.Hour)
			}
		}))
		for i := range waits {
			require.ErrorIs(t, <-results, loop.ErrOffLoop, "%d", i)
		}
	})
}

// A task that panics while it registers for a wait is registered nowhere afterwards, and
// takes no wake-up of another.
func TestPanicWhileWaiting(t *testing.T) {
	v := backendtest.Variants()[0]
	g := backendtest.Group(t, v, 1)
	q, other := loop.NewQueue[int](1), loop.NewQueue[int](1)
	require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
		if err := panics(func() {
			_, _ = loop.WaitAny(ctx, q, loop.NewWhen(func() bool { panic("a mistake") }, other))
		}); err != nil {
			return err
		}
		getter, err := loop.Go(ctx, "getter", func(ctx context.Context) error {
			_, err := q.Get(ctx)
			return err
		})
		if err == nil {
			err = loop.Yield(ctx) // lets the other task begin to wait
		}
		if err == nil {
			err = q.TryPut(1)
		}
		if err != nil {
			return err
		}
		return getter.Wait(ctx)
	}))
}

// Functions given to NextTurn are called when the loop ends, as posted functions are. A
// panic of a function given to AfterFunc is contained.
func TestLastFunctions(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		rt, err := v.New()
		require.NoError(t, err)
		var panicked atomic.Int64
		l := loop.NewLoop(rt, loop.LoopOptions{OnPanic: func(*loop.PanicError) { panicked.Add(1) }})
		done := make(chan error, 1)
		go func() { done <- l.Run(context.Background()) }()
		var ran, posted bool
		require.NoError(t, l.Call(context.Background(), "last", func(ctx context.Context) error {
			loop.TaskOf(ctx).Friend(key).AfterFunc(func() { panic("a mistake") })
			l.Friend(key).Stop()
			l.Friend(key).NextTurn(func() { ran = true })
			return l.Post(func() { posted = true })
		}))
		require.NoError(t, <-done)
		require.True(t, posted && ran, "posted: %v, NextTurn: %v", posted, ran)
		require.EqualValues(t, 1, panicked.Load())
	})
}

// Many functions, each of them short, are no stall.
func TestManyFunctionsAreNoStall(t *testing.T) {
	v := backendtest.Variants()[0]
	rt, err := v.New()
	require.NoError(t, err)
	var stalls atomic.Int64
	const stallAfter = 200 * time.Millisecond
	l := loop.NewLoop(rt, loop.LoopOptions{StallAfter: stallAfter, OnStall: func(loop.Stall) { stalls.Add(1) }})
	done := make(chan error, 1)
	go func() { done <- l.Run(context.Background()) }()
	<-l.Running()
	longest := time.Duration(0)
	require.NoError(t, l.Post(func() {
		for range 400 {
			l.Friend(key).NextTurn(func() {
				begun := time.Now()
				for time.Since(begun) < 2*time.Millisecond {
				}
				longest = max(longest, time.Since(begun))
			})
		}
		l.Friend(key).NextTurn(l.Friend(key).Stop)
	}))
	require.NoError(t, <-done)
	if longest < stallAfter/2 { // otherwise other processes had the CPU
		require.Zero(t, stalls.Load())
	}
}
