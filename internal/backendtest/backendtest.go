// Package backendtest provides tests with backends: those of this build, and
// io_uring without its optional features. It also provides groups of loops on them,
// which are checked for leaks when the test ends.
package backendtest

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backends"
	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// A Variant is a backend with particular options.
type Variant struct {
	Name string
	New  func() (runtime.Runtime, error)
}

// Variants returns the variants that every behaviour is tested on: each backend of
// this build with default options, the preferred one first, and io_uring without its
// optional features.
func Variants() []Variant {
	var variants []Variant
	for _, b := range backends.All() {
		variants = append(variants, Variant{b.Name, b.Open})
	}
	return append(variants, plainVariants()...)
}

// Each runs f as a subtest on every variant.
func Each(t *testing.T, f func(t *testing.T, v Variant)) {
	for _, v := range Variants() {
		t.Run(v.Name, func(t *testing.T) { f(t, v) })
	}
}

// Group starts a group of loops on v. When the test ends, it stops the group and
// fails the test if a buffer, task, descriptor or goroutine is left.
func Group(t testing.TB, v Variant, loops int) *loop.Group {
	t.Helper()
	return group(t, v, loops, loop.LoopOptions{})
}

// CrowdedGroup is Group with loops for Crowd.
func CrowdedGroup(t testing.TB, v Variant, loops int) *loop.Group {
	t.Helper()
	return group(t, v, loops, loop.LoopOptions{MaxPosts: 1, StallAfter: -1})
}

func group(t testing.TB, v Variant, loops int, opts loop.LoopOptions) *loop.Group {
	t.Helper()
	if r, w, err := os.Pipe(); err == nil { // Go's own poller opens descriptors when it is first used
		_ = errors.Join(r.Close(), w.Close())
	}
	fds, goroutines := OpenFDs(), goruntime.NumGoroutine()
	g, err := loop.StartGroup(loop.GroupOptions{Loops: loops, New: func(int) (runtime.Runtime, error) { return v.New() }, Loop: opts})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, g.Stop())
		require.True(t, soon(func() bool { return OpenFDs() <= fds }), "descriptors leaked: %d before, now %s", fds, fdList())
		require.True(t, soon(func() bool { return goruntime.NumGoroutine() <= goroutines }), "goroutines leaked: %d before, %d now\n%s", goroutines, goruntime.NumGoroutine(), stacks())
	})
	return g
}

// Run runs f as a task on the group's first loop and returns its error.
func Run(t testing.TB, g *loop.Group, f func(ctx context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return g.Loops()[0].Call(ctx, t.Name(), f)
}

// Crowd blocks l and fills its queue of posts until release is called. l must be a
// loop of a CrowdedGroup.
func Crowd(t testing.TB, l *loop.Loop) (release func()) {
	t.Helper()
	held, gate, last := make(chan struct{}), make(chan struct{}), make(chan struct{})
	require.NoError(t, l.Post(func() { close(held); <-gate }))
	<-held
	require.NoError(t, l.Post(func() { close(last) }))
	require.ErrorIs(t, l.Post(func() {}), runtime.ErrBusy)
	return func() {
		close(gate)
		<-last
	}
}

// WhileCrowded crowds l, calls f, which waits for l, and releases l when f has had
// time to reach its wait. It returns the error of f.
func WhileCrowded(t testing.TB, l *loop.Loop, f func() error) error {
	t.Helper()
	release, done := Crowd(t, l), make(chan error, 1)
	go func() { done <- f() }()
	for range 1000 {
		goruntime.Gosched()
	}
	release()
	return <-done
}

// WithPeer runs f as a task with a stream and the net.Conn of its peer, which is
// closed afterwards.
func WithPeer(t testing.TB, g *loop.Group, f func(ctx context.Context, s *loop.Stream, peer net.Conn) error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := ln.Accept()
		accepted <- c
	}()
	require.NoError(t, Run(t, g, func(ctx context.Context) error {
		s, err := loop.TaskOf(ctx).Loop().Friend(friend.Key{}).Dial(ctx, ln.Addr().String(), loop.DialOptions{})
		if err != nil {
			return err
		}
		var peer net.Conn
		if err := loop.Offload(ctx, func() { peer = <-accepted }); err != nil {
			return err
		}
		defer peer.Close()
		return f(ctx, s, peer)
	}))
}

// soon waits until ok returns true. It polls on the calling goroutine, because ok
// may count goroutines.
func soon(ok func() bool) bool {
	for deadline := time.Now().Add(5 * time.Second); !ok(); goruntime.Gosched() {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

func stacks() string {
	buf := make([]byte, 1<<20)
	return string(buf[:goruntime.Stack(buf, true)])
}

// OpenFDs returns the number of open descriptors of the process.
func OpenFDs() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}

func fdList() string {
	entries, _ := os.ReadDir("/proc/self/fd")
	var names []string
	for _, e := range entries {
		to, _ := os.Readlink("/proc/self/fd/" + e.Name())
		names = append(names, e.Name()+"="+to)
	}
	return strings.Join(names, " ")
}

// Seed returns a random seed for the test and logs it. The environment variable
// NORIA_SEED sets it, which repeats a test.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("NORIA_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 0, 64)
		require.NoError(t, err, "NORIA_SEED")
	}
	t.Logf("NORIA_SEED=%d", seed)
	return seed
}

// Rand returns a source of random numbers, and logs its seed.
func Rand(t testing.TB) *rand.Rand { return rand.New(rand.NewPCG(Seed(t), 0)) }

// RandomBytes returns n bytes of r.
func RandomBytes(r *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// Offload runs f off the loop and returns its error. A task calls it.
func Offload(ctx context.Context, f func() error) error {
	var err error
	if oerr := loop.Offload(ctx, func() { err = f() }); oerr != nil {
		return oerr
	}
	return err
}

// Bulk returns how many bytes are much: fewer in the short form of a test.
func Bulk() int {
	if testing.Short() {
		return 1 << 20
	}
	return 16 << 20
}
