package conformance

import (
	"context"
	"crypto/sha256"
	"io"
	"net"
	"os"
	goruntime "runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/noria-go/noria/conformance/internal/require"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// Each of these cases uses a loop against itself, in a way that once hung the loop,
// ended it, or left something behind.
func loopHostileCases() []testCase {
	return []testCase{
		{Name: "hostile/end-callback-that-waits", RunLoops: loopWaitingEnd},
		{Name: "hostile/child-of-a-task-that-has-ended", RunLoops: loopOrphan, LoopAlone: true},
		{Name: "hostile/goexit-in-posted-function", RunLoops: loopGoexitPosted},
		{Name: "hostile/group-stopped-from-a-task", RunLoops: loopStopInside, LoopAlone: true},
		{Name: "hostile/loop-used-from-elsewhere", RunLoops: loopForeignCalls, LoopAlone: true},
		{Name: "hostile/killed-reader-of-a-peer-that-never-stops", RunLoops: loopFirehose},
		{Name: "hostile/reader-woken-and-killed", RunLoops: loopReaderWokenAndKilled, LoopAlone: true},
		{Name: "hostile/acceptor-woken-and-killed", RunLoops: loopAcceptorWokenAndKilled, LoopAlone: true},
		{Name: "hostile/read-into-interrupted-at-once", RunLoops: loopReadIntoInterrupted},
		{Name: "hostile/read-into-beside-a-reader", RunLoops: loopReadIntoBeside},
		{Name: "hostile/idle-read-into-and-write", RunLoops: loopIdleElsewhere},
		{Name: "hostile/write-without-memory", RunLoops: loopWriteWithoutMemory},
		{Name: "hostile/loop-that-takes-no-connections", RunLoops: loopTakesNone},
		{Name: "hostile/linger-longer-than-the-loop", RunLoops: loopLingerAtStop},
		{Name: "hostile/close-write-cut-short", RunLoops: loopCloseWriteAgain},
	}
}

// loopWaitingEnd: the callback of a task's end does not run in a task. It may not wait
// as if it ran in the task that has just ended.
func loopWaitingEnd(l *loopWorld) {
	lp := l.loop()
	told := make(chan error, 1)
	var s *loop.Stream
	l.call(lp, func(ctx context.Context) { s, _ = l.pair(lp, loop.StreamOptions{}) })
	require.NoError(l, lp.Go("short", func(context.Context) error { return nil }, func(error) {
		_, err := s.Read(make([]byte, 1))
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		_ = s.Close()                                                                                        // only begins the close
		_ = lp.Call(context.Background(), "nested", func(context.Context) error { told <- nil; return nil }) // it is refused
		told <- err
	}))
	require.ErrorIs(l, <-told, loop.ErrOffLoop)
	l.soon("the stream's end", func() bool {
		st, err := lp.Friend(key).Stats()
		require.NoError(l, err)
		return st.Streams == 0
	})
}

// loopOrphan: a task that has ended cannot start a child, since nothing would cancel
// that child or wait for it.
func loopOrphan(l *loopWorld) {
	g := l.groupWith(1, l.options())
	lp := g.Loops()[0]
	var gone context.Context
	l.call(lp, func(ctx context.Context) { gone = ctx })
	l.call(lp, func(ctx context.Context) {
		_, err := loop.Go(gone, "orphan", func(ctx context.Context) error { return loop.Sleep(context.Background(), time.Hour) })
		require.ErrorIs(l, err, runtime.ErrClosed)
	})
	err := lp.Call(gone, "orphan", func(context.Context) error { return loop.Sleep(context.Background(), time.Hour) })
	require.ErrorIs(l, err, runtime.ErrClosed)

	// A task that has returned and waits for its children kills late children too.
	ended := make(chan error, 1)
	l.call(lp, func(ctx context.Context) {
		t, err := loop.Go(ctx, "parent", func(parent context.Context) error {
			_, err := loop.Go(parent, "child", func(child context.Context) error {
				_ = loop.Sleep(child, time.Hour) // sleeps until parent has returned
				_, err := loop.Go(parent, "late", func(context.Context) error {
					err := loop.Sleep(context.Background(), time.Hour)
					ended <- err
					return err
				})
				return err
			})
			return err
		})
		require.NoError(l, err)
		require.NoError(l, t.Wait(ctx))
	})
	require.ErrorIs(l, <-ended, runtime.ErrCanceled)
	require.NoError(l, g.Stop(), "a task was left behind")
}

// loopGoexitPosted: runtime.Goexit outside a task cannot be contained, so the loop
// ends. It must end in order, and every caller that waits for it must return.
func loopGoexitPosted(l *loopWorld) {
	g := l.groupWith(1, l.options())
	lp := g.Loops()[0]
	var s *loop.Stream
	var peer *net.TCPConn
	l.call(lp, func(ctx context.Context) { s, peer = l.pair(lp, loop.StreamOptions{}) })
	read, called := make(chan error, 1), make(chan error, 1)
	require.NoError(l, lp.Go("reader", func(context.Context) error { return second(s.Read(make([]byte, 1))) }, func(err error) { read <- err }))
	l.call(lp, func(context.Context) {}) // the reader waits
	require.NoError(l, lp.Post(func() {
		require.NoError(l, lp.Post(goruntime.Goexit))
		require.NoError(l, lp.Post(goruntime.Goexit))
		go func() {
			called <- lp.Call(context.Background(), "behind it", func(context.Context) error { return nil })
		}()
	}))
	require.ErrorIs(l, <-read, runtime.ErrCanceled)
	<-lp.Friend(key).Stopped()
	if err := <-called; err != nil { // nil if the function ran before the Goexit
		require.ErrorIs(l, err, runtime.ErrClosed)
	}
	require.ErrorIs(l, lp.Post(func() {}), runtime.ErrClosed)
	_, err := peer.Read(make([]byte, 1))
	require.Error(l, err, "the peer did not see the end")
	require.NoError(l, g.Stop())
}

func loopStopInside(l *loopWorld) {
	g := l.group(2)
	svc := serviceFunc(func(ctx context.Context, ln *loop.Listener) error { return nil })
	ls, err := g.Listen("127.0.0.1:0", loop.ListenOptions{})
	require.NoError(l, err)
	l.call(g.Loops()[1], func(ctx context.Context) {
		require.ErrorIs(l, g.Stop(), runtime.ErrBusy)
		require.ErrorIs(l, g.Serve(ctx, ls, svc), runtime.ErrBusy)
		more, err := g.Listen("127.0.0.1:0", loop.ListenOptions{}) // this may succeed
		require.NoError(l, err)
		require.NoError(l, more.Close())
	})
	require.NoError(l, ls.Close())
}

type serviceFunc func(ctx context.Context, ln *loop.Listener) error

func (f serviceFunc) Serve(ctx context.Context, ln *loop.Listener) error { return f(ctx, ln) }

// loopForeignCalls: calls that only a loop's tasks may make are refused on a goroutine
// and in another loop's task, and corrupt nothing.
func loopForeignCalls(l *loopWorld) {
	g := l.group(2)
	here, there := g.Loops()[0], g.Loops()[1]
	var s *loop.Stream
	l.call(here, func(context.Context) { s, _ = l.pair(here, loop.StreamOptions{}) })
	try := func(ctx context.Context) {
		short, cancel := context.WithTimeout(ctx, l.limits.Wait)
		defer cancel()
		for _, src := range []loop.Source{s.Readable(), s.Writable(), s.Friend(key).ReadableWhen(func() bool { return false })} {
			_, err := loop.WaitAny(short, &loop.Event{}, src)
			require.ErrorIs(l, err, loop.ErrOffLoop)
		}
		_, err := here.Friend(key).Listen(loopback, runtime.ListenOptions{}, loop.StreamOptions{})
		require.ErrorIs(l, err, loop.ErrOffLoop)
		_, err = here.Friend(key).AdoptListener(-1, loop.StreamOptions{})
		require.ErrorIs(l, err, loop.ErrOffLoop)
		_, err = here.Friend(key).AdoptConn(&net.TCPConn{}, loop.StreamOptions{})
		require.ErrorIs(l, err, loop.ErrOffLoop)
		_, err = here.Friend(key).Dial(short, "127.0.0.1:1", loop.DialOptions{})
		require.ErrorIs(l, err, loop.ErrOffLoop)
		_, err = here.Open(short, os.DevNull, os.O_RDONLY, 0)
		require.ErrorIs(l, err, loop.ErrOffLoop)
		require.ErrorIs(l, s.Friend(key).ReadErr(), loop.ErrOffLoop)
		require.Zero(l, s.Buffered())
		require.Zero(l, s.Queued())
		require.Panics(l, func() { here.Friend(key).NextTurn(func() {}) })
		require.Panics(l, func() { here.Friend(key).Notify(s.Readable(), func() {}) })
	}
	try(context.Background())
	l.call(there, try)
	l.call(here, func(ctx context.Context) {
		require.NoError(l, s.Close())
	})
}

// loopFirehose: a killed task ends even if its peer never stops sending.
func loopFirehose(l *loopWorld) {
	g := l.groupWith(1, l.options())
	lp := g.Loops()[0]
	var taken atomic.Int64
	require.NoError(l, lp.Go("reader", func(ctx context.Context) error {
		s, peer := l.pair(lp, loop.StreamOptions{})
		defer s.Close()
		l.background(func() {
			for p := make([]byte, 1<<16); ; {
				if _, err := peer.Write(p); err != nil {
					return
				}
			}
		})
		for {
			b, err := s.ReadBuf()
			if err != nil {
				return err
			}
			for range 10 {
				sha256.Sum256(b.Bytes()) // slower than the peer sends
			}
			taken.Add(int64(b.Len()))
			b.Release()
		}
	}, nil))
	l.soon("the first megabytes", func() bool { return taken.Load() > 1<<20 })
	require.NoError(l, g.Stop(), "the task did not end")
}

// loopReaderWokenAndKilled: bytes arrive and wake a reader, and the reader is killed
// before it takes them. The next reader must get them.
func loopReaderWokenAndKilled(l *loopWorld) {
	for _, wait := range []func(ctx context.Context, s *loop.Stream) error{
		func(_ context.Context, s *loop.Stream) error { return second(s.Read(make([]byte, 100))) },
		func(_ context.Context, s *loop.Stream) error {
			b, err := s.ReadBuf()
			if err == nil {
				b.Release()
			}
			return err
		},
		func(ctx context.Context, s *loop.Stream) error { return second(loop.WaitAny(ctx, s.Readable())) },
	} {
		l.with(loop.StreamOptions{}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
			reader := func(name string) *loop.Task {
				t, err := loop.Go(ctx, name, func(ctx context.Context) error { return wait(ctx, s) })
				require.NoError(l, err)
				require.NoError(l, loop.Yield(ctx)) // until it waits
				return t
			}
			first, next := reader("first"), reader("next")
			s.Unread(runtime.NewShared([]byte("bytes"))) // wakes the first reader
			first.Cancel(true)
			require.ErrorIs(l, first.Wait(ctx), runtime.ErrCanceled)
			require.NoError(l, next.Wait(ctx), "the second reader was not woken")
		})
	}
}

// loopAcceptorWokenAndKilled is the same for an acceptor: one that is killed, and one
// whose context ends.
func loopAcceptorWokenAndKilled(l *loopWorld) {
	for _, kill := range []bool{true, false} {
		lp := l.loop()
		l.call(lp, func(ctx context.Context) {
			ln, err := lp.Friend(key).Listen(loopback, runtime.ListenOptions{}, loop.StreamOptions{})
			require.NoError(l, err)
			defer ln.Close()
			acceptor := func(name string) *loop.Task {
				t, err := loop.Go(ctx, name, func(ctx context.Context) error {
					s, err := ln.Accept(ctx)
					if err != nil {
						return err
					}
					return s.Close()
				})
				require.NoError(l, err)
				require.NoError(l, loop.Yield(ctx)) // until it waits
				return t
			}
			first, next := acceptor("first"), acceptor("next")
			// The loop sees the connection at the end of this turn. Then it runs posted
			// functions, before it resumes a task.
			require.NoError(l, lp.Post(func() {
				nc, err := net.Dial("tcp", ln.Addr().String())
				require.NoError(l, err)
				l.Defer(func() { _ = nc.Close() })
				require.NoError(l, lp.Post(func() { first.Cancel(kill) }))
			}))
			require.Error(l, first.Wait(ctx))
			require.NoError(l, next.Wait(ctx), "the second acceptor was not woken")
		})
	}
}

// loopReadIntoInterrupted: a ReadInto waits until it has the socket for itself. A kill,
// deadline or close during this wait must end it.
func loopReadIntoInterrupted(l *loopWorld) {
	for _, tt := range []struct {
		name string
		stop func(s *loop.Stream, t *loop.Task)
		want error
	}{
		{"killed", func(_ *loop.Stream, t *loop.Task) { t.Cancel(true) }, runtime.ErrCanceled},
		{"deadline", func(s *loop.Stream, _ *loop.Task) { _ = s.SetReadDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		{"closed", func(s *loop.Stream, _ *loop.Task) { _ = s.Close() }, runtime.ErrClosed},
	} {
		l.with(loop.StreamOptions{Linger: time.Hour, QueueLimit: 64 << 20}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
			if tt.name == "closed" { // the close then waits until the peer has read this
				_, err := s.Write(make([]byte, 16<<20))
				require.NoError(l, err)
			}
			first, err := loop.Go(ctx, "first", func(ctx context.Context) error { return second(s.ReadBuf()) })
			require.NoError(l, err)
			require.NoError(l, loop.Yield(ctx)) // until it waits in a receive-many
			into, err := loop.Go(ctx, "into", func(ctx context.Context) error {
				b, err := s.Loop().Pool().Get(1000)
				require.NoError(l, err)
				defer b.Release()
				return second(s.ReadInto(b))
			})
			require.NoError(l, err)
			_, err = loop.Go(ctx, "stop", func(ctx context.Context) error { // runs right after the ReadInto
				tt.stop(s, into)
				return nil
			})
			require.NoError(l, err)
			require.ErrorIs(l, into.Wait(ctx), tt.want, tt.name)
			first.Cancel(true)
			_ = first.Wait(ctx)
			l.background(func() { _, _ = io.Copy(io.Discard, peer) })
		})
	}
}

// loopReadIntoBeside: a ReadInto and a reader that wait together do not take turns at
// the socket.
func loopReadIntoBeside(l *loopWorld) {
	l.with(loop.StreamOptions{}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
		var got []byte
		done := 0
		read := func(read func(b *runtime.Buffer) error) {
			_, err := loop.Go(ctx, "reader", func(ctx context.Context) error {
				defer func() { done++ }()
				b, err := s.Loop().Pool().Get(1)
				require.NoError(l, err)
				b.Reset(b.Friend(key).Cap() - 1) // room for one byte
				require.NoError(l, read(b))
				got = append(got, b.Bytes()...)
				b.Release()
				return nil
			})
			require.NoError(l, err)
		}
		plain := func(b *runtime.Buffer) error {
			p := make([]byte, 1)
			n, err := s.Read(p)
			b.Append(p[:n])
			return err
		}
		into := func(b *runtime.Buffer) error { return second(s.ReadInto(b)) }
		for _, r := range []func(b *runtime.Buffer) error{plain, into, plain, into} {
			read(r)
		}
		// Taking turns would cost a turn of the loop each time. These yields are as
		// many turns of the loop, so it would show.
		before := s.Loop()
		st, err := before.Friend(key).Stats()
		require.NoError(l, err)
		const turns = 100
		for range turns {
			require.NoError(l, loop.Yield(ctx))
		}
		after, err := before.Friend(key).Stats()
		require.NoError(l, err)
		require.Less(l, after.Resumes-st.Resumes, uint64(turns+40), "readers are resumed again and again, with nothing to read")
		require.Zero(l, done)
		l.off(ctx, func() {
			_, err := peer.Write([]byte("abcd"))
			require.NoError(l, err)
		})
		for done < 4 {
			require.NoError(l, loop.Yield(ctx))
		}
		slices.Sort(got)
		require.Equal(l, "abcd", string(got))
	})
}

// loopIdleElsewhere: the idle timeout of a stream ends every call that waits on it: a
// ReadInto, and a Write whose bytes the peer does not read.
func loopIdleElsewhere(l *loopWorld) {
	opts := loop.StreamOptions{IdleTimeout: 50 * time.Millisecond, Linger: -1, QueueLimit: 1 << 10}
	l.with(opts, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
		b, err := s.Loop().Pool().Get(1000)
		require.NoError(l, err)
		defer b.Release()
		require.ErrorIs(l, second(s.ReadInto(b)), os.ErrDeadlineExceeded)
	})
	l.with(opts, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
		for {
			_, err := s.Write(make([]byte, 1<<20)) // the peer does not read
			if err == nil {
				continue
			}
			require.ErrorIs(l, err, os.ErrDeadlineExceeded)
			break
		}
		require.ErrorIs(l, s.Flush(), os.ErrDeadlineExceeded)
		require.ErrorIs(l, s.Friend(key).WriteErr(), os.ErrDeadlineExceeded)
		_, err := loop.WaitAny(ctx, s.Writable())
		require.NoError(l, err, "the call still waits")
	})
}

// loopWriteWithoutMemory: a Write that gets no memory waits until its queued bytes are
// sent, and holds up no other task meanwhile.
func loopWriteWithoutMemory(l *loopWorld) {
	opts := l.options()
	opts.PoolLimit = 4 << 20 // the receive buffers take a quarter
	g := l.groupWith(1, opts)
	l.Defer(func() { require.NoError(l, g.Stop()) })
	lp := g.Loops()[0]
	data := l.pattern(8 << 20)
	l.call(lp, func(ctx context.Context) {
		s, peer := l.pair(lp, loop.StreamOptions{QueueLimit: 1 << 30})
		defer s.Close()
		w, err := loop.Go(ctx, "writer", func(context.Context) error { return second(s.Write(data)) })
		require.NoError(l, err)
		for range 100 {
			require.NoError(l, loop.Yield(ctx), "the loop stands still")
		}
		l.off(ctx, func() { l.expect(peer, data) })
		require.NoError(l, w.Wait(ctx))
	})
}

// loopTakesNone: two loops share a listener, and one of them takes none of its
// connections. A bounded number of connections waits for that loop; the other loop gets
// the rest. When neither loop takes any, the rest waits in the kernel. No connection is
// lost. (The bound is not exact: a kernel that accepts by itself is stopped only after
// the fact.)
func loopTakesNone(l *loopWorld) {
	const n, most = 1500, 900 // about 256 wait for each loop
	g := l.group(2)
	ls, err := g.Listen("127.0.0.1:0", loop.ListenOptions{Spread: true})
	require.NoError(l, err)
	gates := make([]loop.Event, 2)
	taken := make([]atomic.Int64, 2)
	svc := serviceFunc(func(ctx context.Context, ln *loop.Listener) error {
		i := 0
		if ln.Loop() == g.Loops()[1] {
			i = 1
		}
		for {
			s, err := ln.Accept(ctx)
			if err != nil {
				return err
			}
			taken[i].Add(1)
			if err := s.Close(); err != nil {
				return err
			}
			if err := gates[i].Wait(ctx); err != nil {
				return err
			}
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx, ls, svc) }()
	gates[1].Set() // the first loop accepts for both, and takes just one
	for range n {
		nc, err := net.Dial("tcp", ls.Addr().String())
		require.NoError(l, err)
		l.Defer(func() { _ = nc.Close() })
	}
	l.soon("the connections that pass the first loop by", func() bool { return taken[1].Load() >= n-1-most })
	require.Equal(l, 1, taken[0].Load())
	gates[0].Set()
	l.soon("all", func() bool { return taken[0].Load()+taken[1].Load() == n })
	require.LessOrEqual(l, taken[0].Load(), int64(1+most))

	// Now neither loop takes any: both are full, and the rest is in the kernel. The
	// loop that takes connections again gets the rest.
	taken[0].Store(0)
	taken[1].Store(0)
	gates[0].Clear()
	gates[1].Clear()
	for range n {
		nc, err := net.Dial("tcp", ls.Addr().String())
		require.NoError(l, err)
		l.Defer(func() { _ = nc.Close() })
	}
	gates[1].Set()
	l.soon("what the second loop gets", func() bool { return taken[1].Load() >= n/3 })
	gates[0].Set()
	l.soon("all", func() bool { return taken[0].Load()+taken[1].Load() == n })
	cancel()
	require.NoError(l, <-served)
}

// loopLingerAtStop: a loop that stops does not wait for a slow Close, whether the Close
// began before or the loop itself closes the stream.
func loopLingerAtStop(l *loopWorld) {
	opts := l.options()
	opts.StopTimeout = 2 * time.Second
	g := l.groupWith(1, opts)
	lp := g.Loops()[0]
	closed := make(chan error, 1)
	began := make(chan struct{})
	require.NoError(l, lp.Go("closer", func(ctx context.Context) error {
		s, _ := l.pair(lp, loop.StreamOptions{QueueLimit: 64 << 20, Linger: time.Hour})
		_, err := s.Write(make([]byte, 32<<20)) // the peer does not read
		require.NoError(l, err)
		require.NoError(l, lp.Post(func() { close(began) }))
		return s.Close()
	}, func(err error) { closed <- err }))
	<-began
	require.NoError(l, g.Stop(), "the task that closes is abandoned")
	require.ErrorIs(l, <-closed, os.ErrDeadlineExceeded)

	// A stream that has begun to close sends its bytes even if no task waits for it.
	opts.StopTimeout = l.limits.Wait
	g = l.groupWith(1, opts)
	lp = g.Loops()[0]
	data := l.pattern(4 << 20)
	var peer *net.TCPConn
	l.call(lp, func(ctx context.Context) {
		var s *loop.Stream
		s, peer = l.pair(lp, loop.StreamOptions{QueueLimit: 64 << 20})
		_, err := s.Write(data)
		require.NoError(l, err)
		require.NoError(l, lp.Post(func() { _ = s.Close() }))
	})
	lp.Friend(key).Stop()
	l.expect(peer, data)
	require.NoError(l, g.Stop())
}

// loopCloseWriteAgain: after a CloseWrite that could not flush in time, a second one
// succeeds, and then the peer sees the end.
func loopCloseWriteAgain(l *loopWorld) {
	l.with(loop.StreamOptions{QueueLimit: 64 << 20}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
		data := l.pattern(16 << 20)
		_, err := s.Write(data)
		require.NoError(l, err)
		require.NoError(l, s.SetWriteDeadline(time.Unix(1, 0)))
		require.ErrorIs(l, s.CloseWrite(), os.ErrDeadlineExceeded)
		require.NoError(l, s.SetWriteDeadline(time.Time{}))
		read := make(chan struct{})
		l.background(func() {
			defer close(read)
			l.contain(func() {
				l.expect(peer, data)
				_, err := peer.Read(make([]byte, 1))
				require.ErrorIs(l, err, io.EOF)
			})
		})
		require.NoError(l, s.CloseWrite())
		require.ErrorIs(l, s.CloseWrite(), runtime.ErrClosed)
		l.off(ctx, func() { <-read })
	})
}
