// Package backendtest gives tests their backends and groups of loops on them. The
// backends are those of the build, and io_uring once more with every optional feature
// switched off. Each group is checked for leaks when the test ends.
package backendtest

import (
	"context"
	"errors"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backends"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// A Variant is a backend in one configuration.
type Variant struct {
	Name string
	New  func() (runtime.Runtime, error)
}

// Variants returns the variants on which every behaviour is tested: each backend of
// this build as a server gets it, the preferred one first, and io_uring without its
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

// Group starts loops on v. It stops them when the test ends, and then requires that no
// buffer, task, descriptor or goroutine is left.
func Group(t testing.TB, v Variant, loops int) *loop.Group {
	t.Helper()
	if r, w, err := os.Pipe(); err == nil { // makes Go's own poller open its descriptors
		_ = errors.Join(r.Close(), w.Close())
	}
	fds, goroutines := OpenFDs(), goruntime.NumGoroutine()
	g, err := loop.StartGroup(loop.GroupOptions{Loops: loops, New: func(int) (runtime.Runtime, error) { return v.New() }})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, g.Stop())
		require.True(t, soon(func() bool { return OpenFDs() <= fds }), "descriptors leaked: %d before, now %s", fds, fdList())
		require.True(t, soon(func() bool { return goruntime.NumGoroutine() <= goroutines }), "goroutines leaked: %d before, %d now\n%s", goroutines, goruntime.NumGoroutine(), stacks())
	})
	return g
}

// Run runs f as a task on the group's first loop and returns what it returned.
func Run(t testing.TB, g *loop.Group, f func(ctx context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return g.Loops()[0].Call(ctx, t.Name(), f)
}

// soon waits for ok on the calling goroutine, since it counts goroutines.
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

// OpenFDs returns how many descriptors the process has.
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

// Seed returns a seed for the test's random numbers, and logs it. The environment
// variable NORIA_SEED sets it.
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
