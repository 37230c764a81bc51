package conformance

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/noria-go/noria/conformance/internal/require"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// These cases are mistakes of a program. The call that makes the mistake reports it at
// once, and the loop and its other connections keep working.
func loopMisuseCases() []testCase {
	return []testCase{
		{Name: "misuse/buffer-that-was-given-away", RunLoops: loopGivenAway, LoopAlone: true},
		{Name: "misuse/buffer-with-too-few-owners", RunLoops: loopTooFewOwners, LoopAlone: true},
		{Name: "misuse/buffer-of-another-loop", RunLoops: loopForeignBuffer, LoopAlone: true},
		{Name: "misuse/callback-that-panics", RunLoops: loopPanickingCallbacks, LoopAlone: true},
		{Name: "misuse/settings-from-elsewhere", RunLoops: loopForeignSettings, LoopAlone: true},
		{Name: "misuse/posted-function-that-blocks", RunLoops: loopBlockingPost, LoopAlone: true},
		{Name: "misuse/one-of-thousands-blocks", RunLoops: loopStallAmongMany, LoopAlone: true},
	}
}

// loopGivenAway: a buffer belongs to the stream from Write on, not only from the moment
// at which the loop sends it. A caller that touches it panics, and the bytes are sent
// as they were written.
func loopGivenAway(l *loopWorld) {
	for _, tt := range []struct {
		name  string
		touch func(s *loop.Stream, b *runtime.Buffer)
	}{
		{"WriteBuf", func(s *loop.Stream, b *runtime.Buffer) { _ = s.WriteBuf(b) }},
		{"TryWriteBuf", func(s *loop.Stream, b *runtime.Buffer) { _ = s.TryWriteBuf(b) }},
		{"Enqueue", func(s *loop.Stream, b *runtime.Buffer) { _ = s.Friend(key).Enqueue(b) }},
		{"ReadInto", func(s *loop.Stream, b *runtime.Buffer) { _, _ = s.ReadInto(b) }},
		{"Release", func(_ *loop.Stream, b *runtime.Buffer) { b.Release() }},
		{"Truncate", func(_ *loop.Stream, b *runtime.Buffer) { b.Truncate(1) }},
		{"Advance", func(_ *loop.Stream, b *runtime.Buffer) { b.Advance(1) }},
		{"Append", func(_ *loop.Stream, b *runtime.Buffer) { b.Append([]byte("more")) }},
		{"Bytes", func(_ *loop.Stream, b *runtime.Buffer) { _ = b.Bytes() }},
	} {
		for _, write := range []func(s *loop.Stream, b *runtime.Buffer) error{
			func(s *loop.Stream, b *runtime.Buffer) error { return s.WriteBuf(b) },
			func(s *loop.Stream, b *runtime.Buffer) error { return s.TryWriteBuf(b) },
			func(s *loop.Stream, b *runtime.Buffer) error { return s.Friend(key).Enqueue(b) },
		} {
			l.with(loop.StreamOptions{}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
				b, err := s.Loop().Pool().Friend(key).Copy(8, []byte("once"))
				require.NoError(l, err)
				require.NoError(l, write(s, b))
				require.Panics(l, func() { tt.touch(s, b) }, tt.name)
				require.NoError(l, s.Flush(), tt.name)
				require.Zero(l, s.Queued(), tt.name)
				require.NoError(l, s.CloseWrite())
				l.off(ctx, func() {
					got, err := io.ReadAll(peer)
					require.NoError(l, err)
					require.Equal(l, "once", string(got), tt.name)
				})
			})
		}
	}
	l.with(loop.StreamOptions{}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) { // the peer reads them
		for range 2 {
			b, err := s.Loop().Pool().Friend(key).Copy(8, []byte("again"))
			require.NoError(l, err)
			s.Unread(b)
			require.Panics(l, func() { s.Unread(b) })
			require.Panics(l, func() { b.Release() })
			require.Panics(l, func() { b.Append([]byte("more")) })
			require.Panics(l, func() { _ = s.WriteBuf(b) })
			l.expect(s, []byte("ag"))
			got, err := s.ReadBuf()
			require.NoError(l, err)
			require.Equal(l, "ain", string(got.Bytes()))
			got.Append([]byte("x")) // the reader owns it
			got.Release()
		}
		b, err := s.Loop().Pool().Friend(key).Copy(0, []byte("left there"))
		require.NoError(l, err)
		s.Unread(b.Retain())
		s.Unread(b)
		l.expect(s, []byte("left"))
	})
	l.with(loop.StreamOptions{}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
		b, err := s.Loop().Pool().Friend(key).Copy(0, []byte("once"))
		require.NoError(l, err)
		require.Panics(l, func() { _ = s.WriteBuf(b, b) })
		require.NoError(l, s.Flush())
		require.Zero(l, s.Queued())
	})
}

// loopTooFewOwners: each write takes an owner along.
func loopTooFewOwners(l *loopWorld) {
	for name, make := range map[string]func(s *loop.Stream) *runtime.Buffer{
		"shared": func(*loop.Stream) *runtime.Buffer { return runtime.NewShared([]byte("payload")) },
		"pool's": func(s *loop.Stream) *runtime.Buffer {
			b, err := s.Loop().Pool().Friend(key).Copy(0, []byte("payload"))
			require.NoError(l, err)
			return b
		},
	} {
		l.with(loop.StreamOptions{}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
			b := make(s).Retain()
			require.NoError(l, s.WriteBuf(b))
			require.Equal(l, "payload", string(b.Bytes()), "the owner that is left may read it: %s", name)
			require.NoError(l, s.WriteBuf(b))
			require.Panics(l, func() { _ = s.WriteBuf(b) }, name)
			require.Panics(l, func() { b.Release() }, name)
			require.NoError(l, s.Flush())
			require.Zero(l, s.Queued(), name)
			require.NoError(l, s.CloseWrite())
			l.off(ctx, func() {
				got, err := io.ReadAll(peer)
				require.NoError(l, err)
				require.Equal(l, "payloadpayload", string(got), name)
			})
		})
	}
}

// loopForeignBuffer: a buffer belongs to the loop whose pool it comes from.
func loopForeignBuffer(l *loopWorld) {
	g := l.group(2)
	here, there := g.Loops()[0], g.Loops()[1]
	var foreign *runtime.Buffer
	l.call(there, func(context.Context) {
		var err error
		foreign, err = there.Pool().Friend(key).Copy(0, []byte("foreign"))
		require.NoError(l, err)
	})
	l.call(here, func(context.Context) {
		s, _ := l.pair(here, loop.StreamOptions{})
		defer s.Close()
		require.Panics(l, func() { _ = s.WriteBuf(foreign) })
		require.Panics(l, func() { _ = s.TryWriteBuf(foreign) })
		require.Panics(l, func() { _ = s.Friend(key).Enqueue(foreign) })
		require.Panics(l, func() { s.Unread(foreign) })
		require.Zero(l, s.Queued())
		foreign.Release() // any loop may release it
	})
}

var errCallback = errors.New("a callback's panic")

// loopPanickingCallbacks: a panic in a function that the loop calls outside any task
// is reported, like a task's.
func loopPanickingCallbacks(l *loopWorld) {
	var reported atomic.Int64
	opts := l.options()
	other := opts.OnPanic
	opts.OnPanic = func(p *loop.PanicError) {
		if errors.Is(p, errCallback) {
			reported.Add(1)
			return
		}
		other(p)
	}
	g := l.groupWith(1, opts)
	lp := g.Loops()[0]
	fail := func() { panic(errCallback) }
	var timer loop.Timer
	l.call(lp, func(ctx context.Context) {
		timer.Init(lp, fail)
		timer.Set(0)
		var again loop.Event
		var second loop.Timer
		second.Init(lp, again.Set)
		second.Set(time.Millisecond)
		require.NoError(l, again.Wait(ctx), "the timers behind it")
		require.Equal(l, 1, reported.Load(), "a timer's")
		timer.Set(time.Hour) // the timer can be used again
		timer.Stop()
	})
	l.call(lp, func(ctx context.Context) {
		s, peer := l.pair(lp, loop.StreamOptions{})
		defer s.Close()
		s.Friend(key).OnSent(fail)
		_, err := s.Write([]byte("it is sent all the same"))
		require.NoError(l, err)
		require.NoError(l, s.Flush())
		require.Equal(l, 2, reported.Load(), "the panic of OnSent's function")
		l.off(ctx, func() { l.expect(peer, []byte("it is sent all the same")) })
		s.Friend(key).OnSent(nil)

		s.Friend(key).OnEOF(func() error { panic(errCallback) })
		require.NoError(l, peer.CloseWrite())
		for range 2 {
			_, err = s.Read(make([]byte, 1))
			require.ErrorIs(l, err, errCallback, "an end that was not judged must not count as success")
		}
		require.Equal(l, 3, reported.Load(), "the panic of OnEOF's function")
		s.Friend(key).OnEnd(fail)
	})
	require.Equal(l, 4, reported.Load(), "the panic of OnEnd's function")
	require.NoError(l, g.Stop())
}

// loopForeignSettings: a method that must be called on the loop returns an error
// elsewhere. If it has no error result, it panics and changes nothing.
func loopForeignSettings(l *loopWorld) {
	g := l.group(2)
	here, there := g.Loops()[0], g.Loops()[1]
	var s *loop.Stream
	var peer *net.TCPConn
	var timer loop.Timer
	never := func() { l.Errorf("the call was accepted") }
	l.call(here, func(context.Context) {
		s, peer = l.pair(here, loop.StreamOptions{})
		timer.Init(here, never)
	})
	try := func(context.Context) {
		for name, f := range map[string]func(){
			"ReadAhead":     func() { s.Friend(key).ReadAhead() },
			"SetQueueLimit": func() { s.Friend(key).SetQueueLimit(1) },
			"SetLinger":     func() { s.Friend(key).SetLinger(-1) },
			"OnSent":        func() { s.Friend(key).OnSent(never) },
			"OnEOF":         func() { s.Friend(key).OnEOF(func() error { never(); return nil }) },
			"OnEnd":         func() { s.Friend(key).OnEnd(never) },
			"Timer.Set":     func() { timer.Set(0) },
			"Timer.Stop":    func() { timer.Stop() },
		} {
			require.Panics(l, f, name)
		}
		require.Zero(l, s.Friend(key).TailRoom())
		require.Zero(l, s.Friend(key).TryGrow(1))
		_, err := s.Friend(key).Grow(1, 0)
		require.ErrorIs(l, err, loop.ErrOffLoop)
		require.ErrorIs(l, s.Friend(key).Enqueue(runtime.NewShared([]byte("x"))), loop.ErrOffLoop)
		b := runtime.NewShared([]byte("x"))
		require.ErrorIs(l, s.TryWriteBuf(b), loop.ErrOffLoop)
		b.Release() // the caller still owns it
		require.ErrorIs(l, s.Friend(key).WriteErr(), loop.ErrOffLoop)
		require.Zero(l, s.TryReadBuf())
	}
	try(context.Background())
	l.call(there, try)
	l.call(here, func(ctx context.Context) {
		_, err := s.Write([]byte("y"))
		require.NoError(l, err)
		require.NoError(l, s.Flush())
		l.off(ctx, func() { l.expect(peer, []byte("y")) })
		require.NoError(l, peer.CloseWrite())
		_, err = s.Read(make([]byte, 1))
		require.Equal(l, io.EOF, err)
		require.NoError(l, s.Close())
	})
}

// stalls returns options whose watchdog reports the first stall of the task of this
// name.
func (l *loopWorld) stalls(task string) (loop.LoopOptions, <-chan loop.Stall) {
	opts := l.options()
	opts.StallAfter = 20 * time.Millisecond
	told := make(chan loop.Stall, 1)
	opts.OnStall = func(s loop.Stall) {
		if s.Task != task {
			return // another stall: the machine is slow
		}
		select {
		case told <- s:
		default:
		}
	}
	return opts, told
}

// stalled waits for the stall that stalls reports, and then ends it by gate.
func (l *loopWorld) stalled(told <-chan loop.Stall, gate chan struct{}) loop.Stall {
	defer close(gate)
	var s loop.Stall
	heard := false
	select {
	case s = <-told:
		heard = true
	case <-time.After(l.limits.Wait):
	}
	require.True(l, heard, "the watchdog reports nothing")
	return s
}

// loopBlockingPost: the watchdog also sees functions that the loop calls outside tasks.
func loopBlockingPost(l *loopWorld) {
	for name, start := range map[string]func(lp *loop.Loop, f func()){
		"Post": func(lp *loop.Loop, f func()) { require.NoError(l, lp.Post(f)) },
		"Timer": func(lp *loop.Loop, f func()) {
			l.call(lp, func(context.Context) {
				var timer loop.Timer
				timer.Init(lp, f)
				timer.Set(0)
			})
		},
		"OnSent": func(lp *loop.Loop, f func()) {
			l.call(lp, func(context.Context) {
				s, _ := l.pair(lp, loop.StreamOptions{})
				s.Friend(key).OnSent(f)
				_, err := s.Write([]byte("x"))
				require.NoError(l, err)
			})
		},
		"OnEOF": func(lp *loop.Loop, f func()) {
			require.NoError(l, lp.Go("reads", func(context.Context) error {
				s, peer := l.pair(lp, loop.StreamOptions{})
				s.Friend(key).OnEOF(func() error { f(); return nil })
				_ = peer.CloseWrite()
				_, err := s.Read(make([]byte, 1))
				return err
			}, nil))
		},
	} {
		opts, told := l.stalls("")
		g := l.groupWith(1, opts)
		gate := make(chan struct{})
		start(g.Loops()[0], func() { <-gate })
		s := l.stalled(told, gate)
		require.Contains(l, s.Stack, "loopBlockingPost", name)
		require.NoError(l, g.Stop())
	}
}

// loopStallAmongMany: the watchdog finds the one stack that matters.
func loopStallAmongMany(l *loopWorld) {
	opts, told := l.stalls("blocks")
	g := l.groupWith(1, opts)
	lp := g.Loops()[0]
	var over loop.Event
	l.Defer(func() {
		over.Set()
		require.NoError(l, g.Stop())
	})
	gate := make(chan struct{})
	var deep func(ctx context.Context, n int) error
	deep = func(ctx context.Context, n int) error { // a deep stack
		if n == 0 {
			return over.Wait(ctx)
		}
		return deep(ctx, n-1)
	}
	for range 2000 {
		require.NoError(l, lp.Go("waits", func(ctx context.Context) error { return deep(ctx, 20) }, nil))
	}
	l.call(lp, func(context.Context) {})
	require.NoError(l, lp.Go("blocks", func(context.Context) error { <-gate; return nil }, nil))
	s := l.stalled(told, gate)
	require.Contains(l, s.Stack, "loopStallAmongMany")
}
