package conformance

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// A LoopCase is one promise of loop.Loop and what stands on it, which must
// hold on every Runtime.
type LoopCase struct {
	Name   string
	Wishes Wishes
	Run    func(l *L)
}

// LoopCases returns all of them.
func LoopCases() []LoopCase {
	var all []LoopCase
	for _, group := range [][]LoopCase{loopTaskCases(), loopWaitCases(), loopStreamCases(), loopServeCases(), loopLimitCases(), loopHostileCases(), loopMisuseCases()} {
		all = append(all, group...)
	}
	return all
}

// TestLoop runs every LoopCase on loops that are made by factory.
func TestLoop(t *testing.T, factory Factory) {
	for _, cs := range LoopCases() {
		t.Run(cs.Name, func(t *testing.T) {
			if err := CheckLoop(cs, factory, Limits{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// CheckLoop runs one case and returns what is wrong.
func CheckLoop(cs LoopCase, factory Factory, limits Limits) error {
	if limits.Wait == 0 {
		limits.Wait = 20 * time.Second
	}
	if limits.Whole == 0 {
		limits.Whole = time.Minute
	}
	l := &L{factory: factory, wishes: cs.Wishes, limits: limits, seed: seed()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.run(cs)
	}()
	timer := time.NewTimer(limits.Whole)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		return fmt.Errorf("%s (seed %d): hangs\n%s", cs.Name, l.seed, stacks())
	}
	l.mu.Lock() // a goroutine of a case that failed may still be there
	defer l.mu.Unlock()
	if len(l.failures) == 0 {
		return nil
	}
	return fmt.Errorf("%s (seed %d): %s", cs.Name, l.seed, strings.Join(l.failures, "\n"))
}

// L is what a LoopCase works with: a require.TestingT with groups of loops.
// Errorf may be called from any goroutine and any task; so may FailNow, which
// ends whichever it is called from.
type L struct {
	factory Factory
	wishes  Wishes
	limits  Limits
	seed    uint64
	rand    *rand.Rand
	lost    int // goroutines that the case says are suspended for good
	defers  []func()

	mu       sync.Mutex
	failures []string
}

// Errorf notes a failure.
func (l *L) Errorf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// FailNow ends the calling goroutine by a panic, which a loop contains;
// runtime.Goexit would cost a coroutine.
func (l *L) FailNow() { panic(failNow{}) }

type failNow struct{}

// Helper is part of what require looks for.
func (l *L) Helper() {}

// Defer has f called when the case ends.
func (l *L) Defer(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.defers = append(l.defers, f)
}

func (l *L) run(cs LoopCase) {
	before := lookAround()
	l.rand = rand.New(rand.NewPCG(l.seed, 0))
	l.contain(func() { cs.Run(l) })
	for i := len(l.defers) - 1; i >= 0; i-- {
		l.contain(l.defers[i])
	}
	before.lost += l.lost
	if err := before.compare(l.limits.Wait); err != nil {
		l.Errorf("leak: %v", err)
	}
}

func (l *L) contain(f func()) {
	defer func() {
		if v := recover(); v != nil && v != (failNow{}) {
			l.Errorf("panic: %v\n%s", v, stacks())
		}
	}()
	f()
}

// background runs f on a goroutine that is joined when the case ends. f must end
// by itself, at the latest when the case's peers are closed.
func (l *L) background(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.defers = append([]func(){func() { <-done }}, l.defers...) // last of all
}

// bg runs f on a goroutine of wg; a failed require ends just that.
func (l *L) bg(wg *sync.WaitGroup, f func()) { wg.Go(func() { l.contain(f) }) }

// options are those of the case's loops: panics that are not FailNow's fail
// the case, and a task that holds its loop too.
func (l *L) options() loop.LoopOptions {
	return loop.LoopOptions{
		Logger: slog.New(slog.DiscardHandler),
		// A case that has failed need not wait longer for its tasks than for anything else.
		StopTimeout: min(loop.DefaultStopTimeout, l.limits.Wait),
		StallAfter:  10 * time.Second,
		OnStall:     func(s loop.Stall) { l.Errorf("%v", s) },
		OnPanic: func(p *loop.PanicError) {
			if p.Value != (failNow{}) {
				l.Errorf("%v\n%s", p, p.Stack)
			}
		},
	}
}

// group starts loops, which are stopped, and must stop in order, with the case.
func (l *L) group(loops int) *loop.Group {
	g := l.groupWith(loops, l.options())
	l.Defer(func() { require.NoError(l, g.Stop()) })
	return g
}

func (l *L) groupWith(loops int, opts loop.LoopOptions) *loop.Group {
	g, err := loop.StartGroup(loop.GroupOptions{Loops: loops, Loop: opts,
		New: func(int) (runtime.Runtime, error) { return l.factory(l.wishes) }})
	require.NoError(l, err)
	return g
}

// loop starts one.
func (l *L) loop() *loop.Loop { return l.group(1).Loops()[0] }

// call runs f as a task and fails the case if f fails.
func (l *L) call(lp *loop.Loop, f func(ctx context.Context)) {
	require.NoError(l, l.do(lp, func(ctx context.Context) error { f(ctx); return nil }))
}

func (l *L) do(lp *loop.Loop, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), l.limits.Wait)
	defer cancel()
	return lp.Call(ctx, "case", f)
}

// soon waits until ok, on a goroutine.
func (l *L) soon(what string, ok func() bool) {
	for deadline := time.Now().Add(l.limits.Wait); !ok(); goruntime.Gosched() {
		require.True(l, time.Now().Before(deadline), "waited in vain for %s", what)
	}
}

// pair is a stream of lp, adopted from a socket, and its plain peer. It is
// called in a task of lp. The stream is the caller's to close.
func (l *L) pair(lp *loop.Loop, opts loop.StreamOptions) (*loop.Stream, *net.TCPConn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(l, err)
	defer ln.Close()
	near, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(l, err)
	peer, err := ln.Accept()
	require.NoError(l, err)
	l.Defer(func() { _ = peer.Close() })
	s, err := lp.AdoptConn(near, opts)
	require.NoError(l, err)
	require.NoError(l, peer.SetDeadline(time.Now().Add(l.limits.Wait)))
	return s, peer.(*net.TCPConn)
}

// with runs f as a task with a pair, and closes the stream after it.
func (l *L) with(opts loop.StreamOptions, f func(ctx context.Context, s *loop.Stream, peer *net.TCPConn)) {
	lp := l.loop()
	l.call(lp, func(ctx context.Context) {
		s, peer := l.pair(lp, opts)
		defer s.Close()
		f(ctx, s, peer)
	})
}

// pattern is n bytes that show where each belongs.
func (l *L) pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(l.rand.Uint32())
	}
	return p
}

// off runs f off the loop, from a task.
func (l *L) off(ctx context.Context, f func()) { require.NoError(l, loop.Offload(ctx, f)) }

// expect reads exactly p from r.
func (l *L) expect(r io.Reader, p []byte) {
	got := make([]byte, len(p))
	n, err := io.ReadFull(r, got)
	require.NoError(l, err, "after %d of %d bytes", n, len(p))
	require.True(l, string(p) == string(got), "other bytes arrived than were sent")
}
