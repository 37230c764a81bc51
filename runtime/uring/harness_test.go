//go:build linux && !386 && !arm && !mips && !mipsle

package uring

import (
	"net/netip"
	stdruntime "runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/runtime"
)

// patience is how long a test waits for an event that must happen.
const patience = 10 * time.Second

// A world is a started runtime on the test's locked thread.
type world struct {
	t    testing.TB
	r    *Runtime
	pool *runtime.Pool
}

func newWorld(t testing.TB, opts Options) *world {
	stdruntime.LockOSThread()
	rt, err := New(opts)
	require.NoError(t, err)
	w := &world{t: t, r: rt.(*Runtime), pool: runtime.NewPool(0)}
	require.NoError(t, w.r.Start(w.pool))
	t.Cleanup(func() {
		defer stdruntime.UnlockOSThread()
		if !w.r.closed {
			require.NoError(t, w.r.Close())
		}
		require.Zero(t, w.r.table.live, "a flight is left")
		require.NoError(t, w.pool.Close())
	})
	return w
}

// until polls until done is true.
func (w *world) until(done func() bool) {
	w.t.Helper()
	limit := w.r.Now() + int64(patience)
	for !done() {
		require.Less(w.t, w.r.Now(), limit, "the condition did not become true")
		require.NoError(w.t, w.r.Poll(limit))
	}
}

// A call is an operation and its result.
type call struct {
	runtime.Op
	times int
	over  bool
	data  []byte
	got   []runtime.Handle
}

func (w *world) submit(op runtime.Op) *call {
	c := &call{Op: op}
	c.Done = func(op *runtime.Op) {
		c.times++
		if op.Got != 0 {
			c.got = append(c.got, op.Got)
		}
		if op.More && op.Buf != nil {
			c.data = append(c.data, op.Buf.Bytes()...)
			op.Buf.Release()
		}
		c.over = !op.More
	}
	w.r.Submit(&c.Op)
	return c
}

// do submits op and polls until it has completed.
func (w *world) do(op runtime.Op) *call {
	w.t.Helper()
	c := w.submit(op)
	require.False(w.t, c.over, "Submit must not complete")
	w.until(func() bool { return c.over })
	return c
}

func (w *world) buffer(text string) *runtime.Buffer {
	b, err := w.pool.Friend(friend.Key{}).Copy(0, []byte(text))
	require.NoError(w.t, err)
	return b
}

func (w *world) room(size int) *runtime.Buffer {
	b, err := w.pool.Get(size)
	require.NoError(w.t, err)
	return b
}

// pair returns a handle and the other end of its socket.
func (w *world) pair() (runtime.Handle, int) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = unix.Close(fds[1]) })
	h, err := w.r.Adopt(fds[0])
	require.NoError(w.t, err)
	return h, fds[1]
}

func (w *world) write(fd int, text string) {
	n, err := unix.Write(fd, []byte(text))
	require.NoError(w.t, err)
	require.Equal(w.t, len(text), n)
}

// free returns how many receive buffers neither a receiver nor a receive holds.
func (w *world) free() int { return w.r.buffers.shown + len(w.r.buffers.idle) }

// exhaust leaves the pool no memory, so that no delivery can be a copy, until the test
// ends.
func (w *world) exhaust() {
	for size := 1 << 30; size >= 4096; {
		p, err := w.pool.Map(size)
		if err != nil {
			size /= 2
			continue
		}
		w.t.Cleanup(func() { require.NoError(w.t, w.pool.Unmap(p)) })
	}
}

func (w *world) listen() (runtime.Handle, runtime.Addr) {
	h, err := w.r.Listen(runtime.Addr{AddrPort: netip.MustParseAddrPort("127.0.0.1:0")}, runtime.ListenOptions{})
	require.NoError(w.t, err)
	addr, err := w.r.LocalAddr(h)
	require.NoError(w.t, err)
	return h, addr
}

// variants are the configurations to test: all features, none, and each feature
// missing.
func variants() map[string]Options {
	v := map[string]Options{"all": {}, "none": {Off: Features()}}
	for _, name := range Features() {
		v["without "+name] = Options{Off: []string{name}}
	}
	return v
}

// everywhere runs a test for each variant.
func everywhere(t *testing.T, opts Options, test func(t *testing.T, w *world)) {
	for name, v := range variants() {
		t.Run(name, func(t *testing.T) {
			o := opts
			o.Off = slices.Concat(o.Off, v.Off)
			test(t, newWorld(t, o))
		})
	}
}
