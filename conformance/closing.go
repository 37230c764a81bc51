package conformance

import (
	"os"
	"path/filepath"

	"github.com/noria-go/noria/conformance/internal/require"
	"github.com/noria-go/noria/runtime"
)

func closeCases() []testCase {
	return []testCase{
		{Name: "close/everything-comes-back", Run: everythingComesBack},
		{Name: "close/submissions-are-refused", Run: refusedAfterClose},
		{Name: "close/before-start", Run: closeBeforeStart},
		{Name: "close/wake-after-it", Run: wakeAfterClose,
			NoFault: "the fault would write to a descriptor that belongs to another file by then"},
		{Name: "close/twice", Run: closeTwice},
		{Name: "close/what-comes-later-comes-back", Run: submitAfterClose},
		{Name: "info", Run: info},
	}
}

// everythingComesBack closes the Runtime with one operation of each kind in flight.
func everythingComesBack(c *world) {
	ln, addr := c.listen(runtime.ListenOptions{})
	h, peer := c.pair()
	stuck, _ := c.pair()
	require.NoError(c, c.rt.SetOption(stuck, runtime.OptSendBuffer, 4096))
	held := c.op(runtime.OpRecvMany, h)
	c.submit(held)
	c.write(peer, []byte("x"))
	c.until("a byte", func() bool { return len(held.data) == 1 })

	recv, send, poll, open := c.op(runtime.OpRecv, stuck), c.op(runtime.OpSend, stuck), c.op(runtime.OpPoll, h), c.op(runtime.OpOpen, 0)
	recv.Buf, send.Buf = c.room(10), c.buffer(make([]byte, 8<<20))
	poll.Flags = runtime.DirRead
	open.Path, open.Flags = filepath.Join(os.TempDir(), "noria-does-not-exist"), os.O_RDONLY
	ops := []*rec{recv, send, poll, open, c.op(runtime.OpAccept, ln), c.op(runtime.OpAcceptMany, ln), c.connect(addr), c.op(runtime.OpNop, 0), c.op(runtime.OpClose, ln)}
	c.submit(ops[:4]...)
	c.idle()
	c.submit(ops[4:]...)
	require.NoError(c, c.closeRuntime())
	for _, r := range append(ops, held) {
		require.False(c, r.InFlight(), "%s is still in flight", r.Code)
		require.Equal(c, 1, r.ends, "%s", r.Code)
	}
	recv.Buf.Release()
	send.Buf.Release()
	c.expectEOFOrReset(peer)
}

func refusedAfterClose(c *world) {
	h, _ := c.pair()
	r := c.op(runtime.OpRecvMany, h)
	again := c.op(runtime.OpRecvMany, h)
	r.then = func() { c.rt.Submit(&again.Op) }
	c.submit(r)
	c.idle()
	require.NoError(c, c.closeRuntime())
	require.False(c, r.InFlight())
	require.False(c, again.InFlight(), "an operation that a Done submits during Close comes back too")
	require.ErrorIs(c, again.Err, runtime.ErrClosed)
	_, err := c.rt.Listen(loopback, runtime.ListenOptions{})
	require.ErrorIs(c, err, runtime.ErrClosed)
}

func closeBeforeStart(c *world) {
	rt, err := c.factory(c.wishes)
	require.NoError(c, err)
	require.NotZero(c, rt.Info().Backend)
	require.Positive(c, rt.Now())
	require.NoError(c, rt.Close())
}

func wakeAfterClose(c *world) {
	stop := make(chan struct{})
	c.background(func() {
		for {
			select {
			case <-stop:
				return
			default:
				c.rt.Wake()
			}
		}
	})
	c.idle()
	require.NoError(c, c.closeRuntime())
	r, w, err := os.Pipe() // takes the number of the waker's descriptor, to which Wake must not write any more
	require.NoError(c, err)
	c.rt.Wake()
	close(stop)
	require.NoError(c, r.Close())
	require.NoError(c, w.Close())
}

func closeTwice(c *world) {
	require.NoError(c, c.closeRuntime())
	require.ErrorIs(c, c.rt.Close(), runtime.ErrClosed)
	require.ErrorIs(c, c.rt.Poll(0), runtime.ErrClosed)
}

// submitAfterClose: an operation that is submitted after Close is refused like any
// other, and its buffer comes back.
func submitAfterClose(c *world) {
	h, _ := c.pair()
	require.NoError(c, c.closeRuntime())
	late := c.op(runtime.OpRecv, h)
	late.Buf = c.room(100)
	nop := c.op(runtime.OpNop, 0)
	c.submit(late, nop)
	require.ErrorIs(c, c.rt.Poll(0), runtime.ErrClosed)
	for _, r := range []*rec{late, nop} {
		require.False(c, r.InFlight(), "it never comes back")
		require.ErrorIs(c, r.Err, runtime.ErrClosed)
	}
	late.Buf.Release()
}

func info(c *world) {
	i := c.rt.Info()
	require.NotZero(c, i.Backend)
	for _, f := range i.Features {
		require.NotZero(c, f.Name)
		require.NotZero(c, f.Why, "%s: no reason is given", f.Name)
	}
}
