package conformance

import (
	"context"
	"io"
	"log/slog"
	"net"
	goruntime "runtime"
	"sync"
	"time"

	"github.com/noria-go/noria/conformance/internal/require"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// A loopWorld is what a case of loops works with: groups of loops that it starts.
type loopWorld struct{ *harness }

// bg runs f on a goroutine of wg. A failed assertion ends only this goroutine.
func (l *loopWorld) bg(wg *sync.WaitGroup, f func()) { wg.Go(func() { l.contain(f) }) }

// options are the options of the case's loops. A panic other than FailNow's fails the
// case, and so does a task that holds its loop.
func (l *loopWorld) options() loop.LoopOptions {
	return loop.LoopOptions{
		Logger: slog.New(slog.DiscardHandler),
		// A failed case does not wait longer for its tasks than for other events.
		StopTimeout: min(5*time.Second, l.limits.Wait),
		StallAfter:  10 * time.Second,
		OnStall:     func(s loop.Stall) { l.Errorf("%v", s) },
		OnPanic: func(p *loop.PanicError) {
			if p.Value != (require.Failed{}) {
				l.Errorf("%v\n%s", p, p.Stack)
			}
		},
	}
}

// group starts loops. They are stopped when the case ends, and must stop in order.
func (l *loopWorld) group(loops int) *loop.Group {
	g := l.groupWith(loops, l.options())
	l.Defer(func() { require.NoError(l, g.Stop()) })
	return g
}

func (l *loopWorld) groupWith(loops int, opts loop.LoopOptions) *loop.Group {
	g, err := loop.StartGroup(loop.GroupOptions{Loops: loops, Loop: opts,
		New: func(int) (runtime.Runtime, error) { return l.factory(l.wishes) }})
	require.NoError(l, err)
	return g
}

// loop starts a group of one loop.
func (l *loopWorld) loop() *loop.Loop { return l.group(1).Loops()[0] }

// call runs f as a task and fails the case if f fails.
func (l *loopWorld) call(lp *loop.Loop, f func(ctx context.Context)) {
	require.NoError(l, l.do(lp, func(ctx context.Context) error { f(ctx); return nil }))
}

func (l *loopWorld) do(lp *loop.Loop, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), l.limits.Wait)
	defer cancel()
	return lp.Call(ctx, "case", f)
}

// soon waits until ok, on a goroutine.
func (l *loopWorld) soon(what string, ok func() bool) {
	for deadline := time.Now().Add(l.limits.Wait); !ok(); goruntime.Gosched() {
		require.True(l, time.Now().Before(deadline), "timed out waiting for %s", what)
	}
}

// pair returns a stream of lp, adopted from a socket, and its peer, a plain connection.
// A task of lp must call it and must close the stream.
func (l *loopWorld) pair(lp *loop.Loop, opts loop.StreamOptions) (*loop.Stream, *net.TCPConn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(l, err)
	defer ln.Close()
	near, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(l, err)
	peer, err := ln.Accept()
	require.NoError(l, err)
	l.Defer(func() { _ = peer.Close() })
	s, err := lp.Friend(key).AdoptConn(near, opts)
	require.NoError(l, err)
	require.NoError(l, peer.SetDeadline(time.Now().Add(l.limits.Wait)))
	return s, peer.(*net.TCPConn)
}

// with runs f as a task with a pair, and closes the stream afterwards.
func (l *loopWorld) with(opts loop.StreamOptions, f func(ctx context.Context, s *loop.Stream, peer *net.TCPConn)) {
	lp := l.loop()
	l.call(lp, func(ctx context.Context) {
		s, peer := l.pair(lp, opts)
		defer s.Close()
		f(ctx, s, peer)
	})
}

// off runs f off the loop, from a task.
func (l *loopWorld) off(ctx context.Context, f func()) { require.NoError(l, loop.Offload(ctx, f)) }

// expect reads exactly p from r.
func (l *loopWorld) expect(r io.Reader, p []byte) {
	got := make([]byte, len(p))
	n, err := io.ReadFull(r, got)
	require.NoError(l, err, "after %d of %d bytes", n, len(p))
	require.True(l, string(p) == string(got), "other bytes arrived than were sent")
}
