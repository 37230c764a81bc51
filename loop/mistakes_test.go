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
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// These are mistakes that panic where they are made, and what they must leave as it
// was; and values at the end of what there may be.

// panics reports, as an error, that f does not panic.
func panics(f func()) (err error) {
	defer func() {
		if recover() == nil {
			err = errors.New("it did not panic")
		}
	}()
	f()
	return nil
}

// A buffer that cannot be lent takes nothing of its loop along: neither the call,
// which the next one is given, nor the stream's right to receive.
func TestRefusedBuffers(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		path := filepath.Join(t.TempDir(), "f")
		require.NoError(t, os.WriteFile(path, []byte("hello"), 0o600))
		withPeer(t, v, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) error {
			l := s.Loop()
			for range 2 { // the second time it is innocent, but for the same mistake
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
			s.ReadAhead()
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
			b.Retain() // while ReadInto waits for the receive before it
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

// A badContext is one whose Err panics, once it is bad.
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

// A panic while the kernel has an operation of the task ends the operation, and leaves
// nothing behind: neither what it made, nor a call for others to be given.
func TestPanicWithOperationInFlight(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		l := g.Loops()[0]
		require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
			ln, err := l.Friend(friend.Key{}).Runtime().Listen(runtime.Addr{AddrPort: netip.MustParseAddrPort("127.0.0.1:0")}, runtime.ListenOptions{Backlog: 1})
			if err != nil {
				return err
			}
			full, err := l.Friend(friend.Key{}).Runtime().LocalAddr(ln)
			if err != nil {
				return err
			}
			const dials = 10 // of which the kernel takes a few
			bad, waiting := false, 0
			var all []*loop.Task
			for range dials {
				task, err := loop.Go(ctx, "dials", func(context.Context) error {
					waiting++
					s, err := l.Dial(badContext{context.Background(), &bad}, full.String(), loop.DialOptions{})
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
			for range 20 { // turns in which those end that may
				if err := loop.Yield(ctx); err != nil {
					return err
				}
			}
			if waiting == 0 {
				return errors.New("no connect had to wait")
			}
			bad = true
			for _, task := range all {
				task.Cancel(false) // has it look at its context
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
			// What had succeeded already when it was to end is closed.
			before := backendtest.OpenFDs()
			for range 200 {
				bad = false
				task, err := loop.Go(ctx, "opens", func(context.Context) error {
					f, err := l.Open(badContext{context.Background(), &bad}, os.DevNull, os.O_RDONLY, 0)
					if err != nil {
						return err
					}
					bad = false // it was faster
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
			for range dials { // each of these is given a call
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

// Nobody becomes a second owner of what the kernel writes into.
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
				err = loop.Yield(ctx) // it waits
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

// What a write refuses is not sent in part, and nothing of it stays behind.
func TestRefusedMessage(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		withPeer(t, v, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) error {
			pool := s.Loop().Pool()
			before := pool.Stats().Outstanding
			head, err := pool.Copy(0, []byte("head"))
			if err != nil {
				return err
			}
			tail, err := pool.Copy(0, []byte("tail"))
			if err != nil {
				return err
			}
			bad := runtime.NewShared([]byte("bad"))
			bad.Release()
			if err := panics(func() { _ = s.WriteBuf(head, bad, tail) }); err != nil {
				return err
			}
			if n := pool.Stats().Outstanding; n != before {
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

// A time that is over is now, and one beyond the clock is never.
func TestExtremeTimes(t *testing.T) {
	never := loop.DialOptions{Timeout: math.MaxInt64, Stream: loop.StreamOptions{Linger: math.MaxInt64, IdleTimeout: math.MaxInt64}}
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		withPeerOf(t, v, never, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) error {
			for _, wait := range []func(context.Context, time.Duration) error{loop.Sleep, timed(s.Loop())} {
				if err := wait(ctx, -time.Hour*24*365); err != nil { // more than the clock has
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
			if err := s.Enqueue(runtime.NewShared(make([]byte, size))); err != nil {
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

// timed waits for a Timer of l.
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

// Both may be of two that have locks of their own: this is for the race detector.
func TestBothOfQueues(t *testing.T) {
	v := backendtest.Variants()[0]
	g := backendtest.Group(t, v, 1)
	a, b, c := loop.NewQueue[int](1), loop.NewQueue[int](1), loop.NewQueue[int](1)
	const rounds = 2000
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, q := range []*loop.Queue[int]{a, b, c} {
		wg.Go(func() {
			for i := 0; q.Put(ctx, i) == nil; i++ {
			}
		})
	}
	require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
		for range rounds {
			i, err := loop.WaitAny(ctx, loop.Both(a, b), c)
			if err != nil {
				return err
			}
			if i == 1 {
				c.TryGet()
				continue
			}
			_, okA := a.TryGet()
			if _, okB := b.TryGet(); !okA || !okB {
				return errors.New("one of them had nothing")
			}
		}
		return nil
	}))
	cancel()
	wg.Wait()
}

// Notify is told, whoever sets what it looks at.
func TestNotifyFromElsewhere(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		withPeer(t, v, func(ctx context.Context, s *loop.Stream, _ *net.TCPConn) error {
			for i := range 200 {
				var set, told loop.Event
				src := loop.Source(&set)
				if i%2 == 0 {
					src = loop.Both(s.Writable(), &set)
				}
				s.Loop().Friend(friend.Key{}).Notify(src, told.Set)
				go set.Set()
				if err := told.Wait(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// What a loop calls outside any task must not wait, and is told so: it would hold the
// loop. (Whoever does wait here does not do so for long: the context has ended.)
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

// Whoever panics while it begins to wait does not wait, and takes nobody's wake-up.
func TestPanicWhileWaiting(t *testing.T) {
	v := backendtest.Variants()[0]
	g := backendtest.Group(t, v, 1)
	q, other := loop.NewQueue[int](1), loop.NewQueue[int](1)
	require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
		if err := panics(func() {
			_, _ = loop.WaitAny(ctx, q, loop.When(func() bool { panic("a mistake") }, other))
		}); err != nil {
			return err
		}
		getter, err := loop.Go(ctx, "getter", func(ctx context.Context) error {
			_, err := q.Get(ctx)
			return err
		})
		if err == nil {
			err = loop.Yield(ctx) // it waits
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

// What was given to NextTurn is called when the loop ends, as what was posted is; and
// a panic of what AfterFunc was given is contained.
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
			loop.TaskOf(ctx).Friend(friend.Key{}).AfterFunc(func() { panic("a mistake") })
			l.Friend(friend.Key{}).Stop()
			l.Friend(friend.Key{}).NextTurn(func() { ran = true })
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
			l.Friend(friend.Key{}).NextTurn(func() {
				begun := time.Now()
				for time.Since(begun) < 2*time.Millisecond {
				}
				longest = max(longest, time.Since(begun))
			})
		}
		l.Friend(friend.Key{}).NextTurn(l.Friend(friend.Key{}).Stop)
	}))
	require.NoError(t, <-done)
	if longest < stallAfter/2 { // else the machine was busy with something else
		require.Zero(t, stalls.Load())
	}
}
