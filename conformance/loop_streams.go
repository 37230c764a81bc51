package conformance

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/noria-go/noria/conformance/internal/require"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

func loopStreamCases() []testCase {
	return []testCase{
		{Name: "stream/conn", RunLoops: loopConn},
		{Name: "stream/buffers", RunLoops: loopBuffers},
		{Name: "stream/copy", RunLoops: loopCopy},
		{Name: "stream/inbox-limit", RunLoops: loopInboxLimit},
		{Name: "stream/slow-reader", RunLoops: loopBackpressure},
		{Name: "stream/writes-stay-together", RunLoops: loopWriters},
		{Name: "stream/read-deadline-race", RunLoops: loopDeadlineRace},
		{Name: "stream/write-deadline", RunLoops: loopWriteDeadline},
		{Name: "stream/idle-timeout", RunLoops: loopIdle},
		{Name: "stream/close-with-pending-reader", RunLoops: loopClosePending},
		{Name: "stream/close-flushes", RunLoops: loopCloseFlushes},
		{Name: "stream/linger-expires", RunLoops: loopLinger},
		{Name: "stream/shared-buffer-on-two-loops", RunLoops: loopBroadcast},
		{Name: "trap/used-off-loop", RunLoops: loopOffLoop, LoopAlone: true},
		{Name: "stream/goroutines-allowed", RunLoops: loopGoroutines},
	}
}

func loopConn(l *loopWorld) {
	l.with(loop.StreamOptions{}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
		require.Equal(l, peer.LocalAddr().String(), s.RemoteAddr().String())
		require.Equal(l, peer.RemoteAddr().String(), s.LocalAddr().String())
		_, err := s.Write([]byte("hel"))
		require.NoError(l, err)
		_, err = s.Write([]byte("lo"))
		require.NoError(l, err)
		require.NoError(l, s.Flush())
		require.Zero(l, s.Queued())
		l.off(ctx, func() { l.expect(peer, []byte("hello")) })
		require.NoError(l, s.CloseWrite())
		l.off(ctx, func() {
			_, err := peer.Read(make([]byte, 1))
			require.Equal(l, io.EOF, err)
			_, err = peer.Write([]byte("bye"))
			require.NoError(l, err)
			require.NoError(l, peer.CloseWrite())
		})
		_, err = s.Write([]byte("x"))
		require.ErrorIs(l, err, net.ErrClosed)
		n, err := s.Read(nil)
		require.Zero(l, n)
		require.NoError(l, err)
		p := make([]byte, 2) // smaller than what has arrived
		_, err = io.ReadFull(s, p)
		require.NoError(l, err)
		rest, err := io.ReadAll(s)
		require.NoError(l, err)
		require.Equal(l, "bye", string(p)+string(rest))
		_, err = s.ReadBuf()
		require.Equal(l, io.EOF, err, "again")
		require.NoError(l, s.Close())
		require.ErrorIs(l, s.Close(), net.ErrClosed)
		_, err = s.Read(p)
		require.ErrorIs(l, err, net.ErrClosed)
		require.ErrorIs(l, s.SetDeadline(time.Now()), net.ErrClosed)
	})
}

func loopBuffers(l *loopWorld) {
	l.with(loop.StreamOptions{}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
		pool := s.Loop().Pool()
		a, err := pool.Friend(key).Copy(8, []byte("one "))
		require.NoError(l, err)
		empty, err := pool.Get(10)
		require.NoError(l, err)
		require.NoError(l, s.WriteBuf(a, empty, runtime.NewShared([]byte("two "))))
		require.NoError(l, s.TryWriteBuf(runtime.NewShared([]byte("three"))))
		require.NoError(l, s.Flush())
		l.off(ctx, func() { l.expect(peer, []byte("one two three")) })
		require.Zero(l, s.TryReadBuf())

		// Bytes that were read can be put back, and ReadInto returns them first.
		l.off(ctx, func() { _, err := peer.Write([]byte("answer")); require.NoError(l, err) })
		b, err := s.ReadBuf()
		require.NoError(l, err)
		n := b.Len()
		s.Unread(b)
		require.Equal(l, n, s.Buffered())
		into, err := pool.Get(1 << 20)
		require.NoError(l, err)
		defer into.Release()
		for into.Len() < 6 {
			_, err = s.ReadInto(into)
			require.NoError(l, err)
		}
		require.Equal(l, "answer", string(into.Bytes()))
		s.Unread(runtime.NewShared([]byte("shared"))) // Read cuts it up without changing it
		for _, want := range "shared" {
			one := make([]byte, 1)
			_, err := s.Read(one)
			require.NoError(l, err)
			require.Equal(l, byte(want), one[0])
		}

		// Received straight into the buffer, with a receive of another kind before and
		// after.
		big := l.pattern(900 << 10)
		into.Reset(0)
		done := make(chan error, 1)
		go func() { _, err := peer.Write(big); done <- err }()
		for into.Len() < len(big) {
			_, err := s.ReadInto(into)
			require.NoError(l, err)
		}
		require.True(l, bytes.Equal(big, into.Bytes()), "ReadInto received other bytes")
		l.off(ctx, func() { require.NoError(l, <-done); _, err := peer.Write([]byte("after")); require.NoError(l, err) })
		p := make([]byte, 5)
		_, err = io.ReadFull(s, p)
		require.NoError(l, err)
		require.Equal(l, "after", string(p))
	})
}

// loopCopy: io.Copy of a stream to itself moves buffers and loses nothing.
func loopCopy(l *loopWorld) {
	l.with(loop.StreamOptions{}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
		data := l.pattern(3 << 20)
		var wg sync.WaitGroup
		l.bg(&wg, func() {
			if _, err := peer.Write(data); err != nil {
				l.Errorf("write: %v", err)
			}
			_ = peer.CloseWrite()
		})
		l.bg(&wg, func() {
			got, err := io.ReadAll(peer)
			if err != nil || !bytes.Equal(got, data) {
				l.Errorf("the echo differs: %d of %d bytes, %v", len(got), len(data), err)
			}
		})
		n, err := io.Copy(s, s)
		require.NoError(l, err)
		require.Equal(l, int64(len(data)), n)
		require.NoError(l, s.CloseWrite())
		l.off(ctx, wg.Wait)
	})
}

// loopInboxLimit: when a reader pauses, receiving stops near the limit; then the
// reader gets every byte.
func loopInboxLimit(l *loopWorld) {
	const limit = 64 << 10
	l.with(loop.StreamOptions{InboxLimit: limit}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
		data := l.pattern(8 << 20)
		var wg sync.WaitGroup
		l.bg(&wg, func() { _, _ = peer.Write(data); _ = peer.CloseWrite() })
		p := make([]byte, 48<<10)
		for at := 0; at < len(data); {
			n, err := s.Read(p[:1+l.rand.IntN(len(p)-1)])
			require.NoError(l, err)
			require.True(l, bytes.Equal(data[at:at+n], p[:n]), "at %d", at)
			at += n
			if l.rand.IntN(20) == 0 {
				require.NoError(l, loop.Sleep(ctx, time.Millisecond))
				// One more delivery, and those that were queued when receiving was
				// cancelled.
				require.LessOrEqual(l, s.Buffered(), limit+(4<<20))
			}
		}
		_, err := s.Read(p)
		require.Equal(l, io.EOF, err)
		l.off(ctx, wg.Wait)
	})
}

// loopBackpressure: a writer waits for a peer that reads slowly, with little
// queued.
func loopBackpressure(l *loopWorld) {
	l.with(loop.StreamOptions{QueueLimit: 32 << 10}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
		data := l.pattern(16 << 20)
		got := make(chan bool, 1)
		var begin loop.Event
		go func() {
			_ = begin.Wait(context.Background())
			p, err := io.ReadAll(peer)
			got <- err == nil && bytes.Equal(p, data)
		}()
		written := 0
		_, err := loop.Go(ctx, "watch", func(ctx context.Context) error {
			last := -1
			for last != written || written == 0 { // until the writer stops
				last = written
				if err := loop.Sleep(ctx, 50*time.Millisecond); err != nil {
					return err
				}
			}
			require.Less(l, written, len(data), "nothing held the writer back")
			require.LessOrEqual(l, s.Queued(), 64<<10)
			begin.Set()
			return nil
		})
		require.NoError(l, err)
		for written < len(data) {
			n, err := s.Write(data[written:min(len(data), written+20000)])
			require.NoError(l, err)
			written += n
		}
		require.NoError(l, s.CloseWrite())
		begin.Set()
		l.off(ctx, func() { require.True(l, <-got, "the peer got other bytes") })
	})
}

// loopWriters: several tasks write at once, and each Write is far longer than the
// queue's limit. The bytes of one Write stay together.
func loopWriters(l *loopWorld) {
	const writers, writes, size = 5, 6, 100 << 10
	l.with(loop.StreamOptions{QueueLimit: 8 << 10}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
		var tasks []*loop.Task
		for i := range writers {
			t, err := loop.Go(ctx, "writer", func(ctx context.Context) error {
				p := bytes.Repeat([]byte{byte('a' + i)}, size)
				for range writes {
					for i > 1 && s.Queued() >= 8<<10 { // while there is room, before the tasks that wait in a Write
						if err := loop.Yield(ctx); err != nil {
							return err
						}
					}
					if i == 0 {
						if err := s.WriteBuf(runtime.NewShared(p)); err != nil {
							return err
						}
					} else if _, err := s.Write(p); err != nil {
						return err
					}
				}
				return nil
			})
			require.NoError(l, err)
			tasks = append(tasks, t)
		}
		l.off(ctx, func() {
			p := make([]byte, size)
			for range writers * writes {
				_, err := io.ReadFull(peer, p)
				require.NoError(l, err)
				require.Equal(l, size, bytes.Count(p, p[:1]), "two writes are mixed")
			}
		})
		for _, t := range tasks {
			require.NoError(l, t.Wait(ctx))
		}
	})
}

// loopDeadlineRace: deadlines pass while bytes arrive. No byte is lost.
func loopDeadlineRace(l *loopWorld) {
	l.with(loop.StreamOptions{}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
		const rounds = 600
		data := l.pattern(rounds * 16)
		var wg sync.WaitGroup
		l.bg(&wg, func() {
			for at := 0; at < len(data); at += 16 {
				if _, err := peer.Write(data[at : at+16]); err != nil {
					l.Errorf("write: %v", err)
					return
				}
				time.Sleep(50 * time.Microsecond)
			}
		})
		pool := s.Loop().Pool()
		late, at := 0, 0
		for at < len(data) {
			require.NoError(l, s.SetReadDeadline(time.Now().Add(time.Duration(l.rand.IntN(200))*time.Microsecond)))
			var (
				n   int
				err error
				p   = make([]byte, 512)
			)
			if l.rand.IntN(2) == 0 {
				n, err = s.Read(p)
			} else {
				var b *runtime.Buffer
				b, err = pool.Get(len(p))
				require.NoError(l, err)
				n, err = s.ReadInto(b)
				require.Equal(l, n, copy(p, b.Bytes()))
				b.Release()
			}
			if err != nil {
				require.ErrorIs(l, err, os.ErrDeadlineExceeded)
				require.Zero(l, n)
				late++
				continue
			}
			require.True(l, bytes.Equal(data[at:at+n], p[:n]), "at %d, after %d deadlines", at, late)
			at += n
		}
		require.Positive(l, late)
		require.NoError(l, s.SetReadDeadline(time.Time{}))
		l.off(ctx, wg.Wait)
	})
}

func loopWriteDeadline(l *loopWorld) {
	l.with(loop.StreamOptions{Linger: -1}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
		require.NoError(l, s.SetWriteDeadline(time.Now().Add(200*time.Millisecond))) // it passes while the Write waits
		p := make([]byte, 1<<20)
		var err error
		for err == nil { // the peer does not read
			_, err = s.Write(p)
		}
		require.ErrorIs(l, err, os.ErrDeadlineExceeded)
		require.ErrorIs(l, s.Flush(), os.ErrDeadlineExceeded)
		require.NoError(l, s.SetWriteDeadline(time.Time{}))
		go func() { _, _ = io.Copy(io.Discard, peer) }()
		_, err = s.Write(p)
		require.NoError(l, err, "the Write ignored the deadline")
		require.NoError(l, s.Flush())
	})
}

// loopIdle: bytes that arrive in time keep a stream alive, even if the loop slept until
// they arrived. If the machine is too busy to send them in time, the case tries again
// with more time.
func loopIdle(l *loopWorld) {
	for idle := 100 * time.Millisecond; ; idle *= 3 {
		kept := 0
		l.with(loop.StreamOptions{IdleTimeout: idle}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
			p := make([]byte, 1)
			moved := s.Loop().Now() // at or before the last arrival
			late := false
			for kept < 4 {
				var sent int64
				l.off(ctx, func() {
					time.Sleep(idle * 2 / 5)
					sent = s.Loop().Now()
					_, err := peer.Write([]byte("x"))
					require.NoError(l, err)
				})
				if _, err := s.Read(p); err != nil {
					require.ErrorIs(l, err, os.ErrDeadlineExceeded)
					require.GreaterOrEqual(l, time.Duration(s.Loop().Now()-moved), idle, "the stream ended too early")
					kept = 0
					return
				}
				late = late || time.Duration(s.Loop().Now()-moved) >= idle // the stream may have ended before the bytes arrived
				moved = sent
				kept++
			}
			_, err := s.Read(p)
			require.ErrorIs(l, err, os.ErrDeadlineExceeded)
			if late {
				kept = 0
				return
			}
			require.GreaterOrEqual(l, time.Duration(s.Loop().Now()-moved), idle)
		})
		if kept == 4 {
			return
		}
		require.Less(l, idle, 5*time.Second, "the stream ended although bytes arrived")
	}
}

func loopClosePending(l *loopWorld) {
	l.with(loop.StreamOptions{}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
		var tasks []*loop.Task
		for _, read := range []func() error{
			func() error { _, err := s.ReadBuf(); return err },
			func() error { _, err := s.Read(make([]byte, 9)); return err },
			func() error {
				_, err := loop.WaitAny(ctx, s.Readable())
				return errors.Join(err, s.Friend(key).ReadErr())
			},
		} {
			t, err := loop.Go(ctx, "reader", func(context.Context) error { return read() })
			require.NoError(l, err)
			tasks = append(tasks, t)
		}
		require.NoError(l, loop.Sleep(ctx, time.Millisecond))
		require.NoError(l, s.Close())
		for _, t := range tasks {
			require.ErrorIs(l, t.Wait(ctx), net.ErrClosed)
		}
		l.off(ctx, func() {
			_, err := peer.Read(make([]byte, 1))
			require.Equal(l, io.EOF, err)
		})
	})
	l.with(loop.StreamOptions{}, func(ctx context.Context, s *loop.Stream, _ *net.TCPConn) {
		t, err := loop.Go(ctx, "reads into", func(context.Context) error {
			b, err := s.Loop().Pool().Get(100)
			require.NoError(l, err)
			defer b.Release()
			_, err = s.ReadInto(b)
			return err
		})
		require.NoError(l, err)
		require.NoError(l, loop.Sleep(ctx, time.Millisecond))
		require.NoError(l, s.Close())
		require.ErrorIs(l, t.Wait(ctx), net.ErrClosed)
	})
}

func loopCloseFlushes(l *loopWorld) {
	l.with(loop.StreamOptions{QueueLimit: 32 << 20}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
		data := l.pattern(8 << 20)
		got := make(chan []byte, 1)
		go func() { p, _ := io.ReadAll(peer); got <- p }()
		_, err := s.Write(data)
		require.NoError(l, err)
		require.NoError(l, s.Close())
		l.off(ctx, func() { require.True(l, bytes.Equal(data, <-got), "Close lost what was written") })
	})
}

func loopLinger(l *loopWorld) {
	l.with(loop.StreamOptions{QueueLimit: 64 << 20, Linger: 50 * time.Millisecond}, func(ctx context.Context, s *loop.Stream, _ *net.TCPConn) {
		_, err := s.Write(make([]byte, 32<<20)) // the peer does not read
		require.NoError(l, err)
		start := s.Loop().Now()
		require.ErrorIs(l, s.Close(), os.ErrDeadlineExceeded)
		require.GreaterOrEqual(l, time.Duration(s.Loop().Now()-start), 50*time.Millisecond)
	})
}

// loopBroadcast sends one payload to many streams of two loops at once.
func loopBroadcast(l *loopWorld) {
	const each = 20
	g := l.group(2)
	data := l.pattern(1 << 20)
	b := runtime.NewShared(data)
	var wg sync.WaitGroup
	for _, lp := range g.Loops() {
		for range each {
			b.Retain()
			var peers = make(chan net.Conn, 1)
			l.bg(&wg, func() {
				l.contain(func() {
					l.call(lp, func(ctx context.Context) {
						ln, err := net.Listen("tcp", "127.0.0.1:0")
						require.NoError(l, err)
						defer ln.Close()
						nc, err := net.Dial("tcp", ln.Addr().String())
						require.NoError(l, err)
						peer, err := ln.Accept()
						require.NoError(l, err)
						peers <- peer
						s, err := lp.Friend(key).AdoptConn(nc, loop.StreamOptions{})
						require.NoError(l, err)
						require.NoError(l, s.WriteBuf(b))
						require.NoError(l, s.Close())
					})
				})
			})
			l.bg(&wg, func() {
				peer := <-peers
				defer peer.Close()
				got, err := io.ReadAll(peer)
				if err != nil || !bytes.Equal(got, data) {
					l.Errorf("a peer got %d of %d bytes: %v", len(got), len(data), err)
				}
			})
		}
	}
	wg.Wait()
	require.Equal(l, len(data), b.Len())
	b.Release()
}

// loopOffLoop: a goroutine that uses a stream gets ErrOffLoop, and the stream still
// works.
func loopOffLoop(l *loopWorld) {
	l.with(loop.StreamOptions{}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
		l.off(ctx, func() {
			b := runtime.NewShared([]byte("x"))
			for name, err := range map[string]error{
				"Read":         second(s.Read(make([]byte, 1))),
				"Write":        second(s.Write([]byte("x"))),
				"ReadBuf":      second(s.ReadBuf()),
				"ReadInto":     second(s.ReadInto(b)),
				"WriteBuf":     s.WriteBuf(b.Retain()),
				"TryWriteBuf":  s.TryWriteBuf(b),
				"Flush":        s.Flush(),
				"CloseWrite":   s.CloseWrite(),
				"Close":        s.Close(),
				"SetDeadline":  s.SetDeadline(time.Now()),
				"SetReadDead…": s.SetReadDeadline(time.Now()),
			} {
				require.ErrorIs(l, err, loop.ErrOffLoop, name)
			}
			require.Zero(l, s.TryReadBuf())
			s.Unread(b)
		})
		_, err := s.Write([]byte("fine"))
		require.NoError(l, err)
		require.NoError(l, s.Flush())
		l.off(ctx, func() {
			l.expect(peer, []byte("fine"))
			_, err := peer.Write([]byte("too"))
			require.NoError(l, err)
		})
		l.expect(s, []byte("too"))
	})
}

func second[T any](_ T, err error) error { return err }

func loopGoroutines(l *loopWorld) {
	l.with(loop.StreamOptions{}, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) {
		s.Friend(key).AllowGoroutines(ctx)
		require.NoError(l, loop.TaskOf(ctx).Friend(key).OnGoroutine(func() {
			require.Equal(l, peer.RemoteAddr().String(), s.LocalAddr().String())
			_, err := s.Write([]byte("hello"))
			require.NoError(l, err)
			require.NoError(l, s.WriteBuf(runtime.NewShared([]byte(" you"))))
			require.NoError(l, s.Flush())
			l.expect(peer, []byte("hello you"))
			_, err = peer.Write([]byte("abc"))
			require.NoError(l, err)
			b, err := s.ReadBuf()
			require.NoError(l, err)
			s.Unread(b)
			l.expect(s, []byte("abc"))
			require.NoError(l, s.SetReadDeadline(time.Now().Add(5*time.Millisecond)))
			_, err = s.Read(make([]byte, 1))
			require.ErrorIs(l, err, os.ErrDeadlineExceeded)
			require.NoError(l, s.SetDeadline(time.Time{}))
			require.NoError(l, s.Friend(key).SetOption(runtime.OptNoDelay, 0))
			require.NoError(l, s.CloseWrite())
			_, err = peer.Read(make([]byte, 1))
			require.Equal(l, io.EOF, err)
			require.NoError(l, s.Close())
			_, err = s.Read(make([]byte, 1))
			require.ErrorIs(l, err, net.ErrClosed)
		}, nil))
	})
}
