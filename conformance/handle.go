package conformance

import (
	"errors"
	"net"
	"time"

	"github.com/noria-go/noria/conformance/internal/require"
	"github.com/noria-go/noria/runtime"
)

func handleCases() []testCase {
	return []testCase{
		{Name: "rule04/stale-handle", Run: staleHandle},
		{Name: "rule04/close-joins", Run: closeJoins},
		{Name: "rule04/close-with-everything-pending", Run: closePending},
		{Name: "rule04/closed-is-refused", Run: closedIsRefused},
		{Name: "rule04/unwanted-descriptors", Run: unwanted},
		{Name: "rule04/accept-races-cancel", Run: acceptRaces},
		{Name: "rule04/connect-races-cancel", Run: connectRaces},
	}
}

// staleHandle closes a connection and opens others until one has its slot and
// its descriptor. The old handle must reach none of them.
func staleHandle(c *world) {
	old, _ := c.pair()
	c.close(old)
	for range 5 {
		h, peer := c.pair()
		require.NotEqual(c, old, h)
		s := c.op(runtime.OpSend, old)
		s.Buf = runtime.NewShared([]byte("for the new connection"))
		require.ErrorIs(c, c.try(s).Err, runtime.ErrClosed)
		require.ErrorIs(c, c.try(c.op(runtime.OpClose, old)).Err, runtime.ErrClosed)
		require.ErrorIs(c, c.rt.SetOption(old, runtime.OptNoDelay, 1), runtime.ErrClosed)
		_, err := c.rt.Detach(old)
		require.ErrorIs(c, err, runtime.ErrClosed)
		c.send(h, []byte("to its own peer"))
		c.expect(peer, []byte("to its own peer"))
		c.close(h)
		c.expectEOF(peer)
	}
}

func closeJoins(c *world) {
	h, peer := c.pair()
	var order []runtime.OpCode
	ops := []*rec{c.op(runtime.OpRecv, h), c.op(runtime.OpRecvMany, h), c.op(runtime.OpPoll, h), c.op(runtime.OpClose, h)}
	ops[0].Buf = c.room(10)
	defer ops[0].Buf.Release()
	ops[2].Flags = runtime.DirRead
	for _, r := range ops {
		r.then = func() { order = append(order, r.Code) }
	}
	c.submit(ops[:3]...)
	c.idle()
	c.submit(ops[3])
	c.wait(ops...)
	require.Equal(c, runtime.OpClose, order[len(order)-1], "closed while operations were in flight: %v", order)
	require.NoError(c, ops[3].Err)
	for _, r := range ops[:3] {
		require.True(c, errorsIsAny(r.Err, runtime.ErrCanceled, runtime.ErrClosed), "%s: %v", r.Code, r.Err)
	}
	c.expectEOF(peer)
}

// closePending closes a connection whose send is stuck and whose receive waits, right
// after both were submitted.
func closePending(c *world) {
	for range 20 {
		h, peer := c.pair()
		require.NoError(c, c.rt.SetOption(h, runtime.OptSendBuffer, 4096))
		var ops []*rec
		for range 3 {
			s := c.op(runtime.OpSend, h)
			s.Buf = c.buffer(make([]byte, 1<<20))
			ops = append(ops, s)
		}
		ops = append(ops, c.op(runtime.OpRecvMany, h))
		c.submit(ops...)
		if c.rand.IntN(2) == 0 {
			c.idle()
		}
		end := c.op(runtime.OpClose, h)
		c.submit(end)
		c.wait(append(ops, end)...)
		require.NoError(c, end.Err)
		for _, r := range ops[:3] {
			r.Buf.Release()
		}
		_ = peer.Close()
	}
}

func closedIsRefused(c *world) {
	h, _ := c.pair()
	end, late := c.op(runtime.OpClose, h), c.op(runtime.OpRecvMany, h)
	c.submit(end, late)
	c.wait(end, late)
	require.NoError(c, end.Err)
	require.ErrorIs(c, late.Err, runtime.ErrClosed)
	require.ErrorIs(c, late.Err, net.ErrClosed)
	require.ErrorIs(c, c.try(c.op(runtime.OpClose, h)).Err, net.ErrClosed)
}

// unwanted closes listeners while connections arrive. The runtime must close a
// connection that it accepted and cannot deliver, and the peer must see that.
func unwanted(c *world) {
	for i := range 30 {
		ln, addr := c.listen(runtime.ListenOptions{})
		code := runtime.OpAcceptMany
		if i%2 == 0 {
			code = runtime.OpAccept
		}
		accept := c.op(code, ln)
		c.submit(accept)
		if c.rand.IntN(2) == 0 {
			c.idle()
		}
		nc := c.dial(addr)
		end := c.op(runtime.OpClose, ln)
		c.submit(end)
		c.wait(end, accept)
		for _, h := range accept.got {
			c.close(h)
		}
		require.NoError(c, nc.SetReadDeadline(time.Now().Add(c.limits.Wait)))
		_, err := nc.Read(make([]byte, 1))
		var timeout net.Error
		require.False(c, errors.As(err, &timeout) && timeout.Timeout(), "an undelivered connection is still open")
		_ = nc.Close()
	}
}

// acceptRaces cancels an accept while a connection arrives. The accept has the
// connection or not; no descriptor may be left without a handle.
func acceptRaces(c *world) {
	ln, addr := c.listen(runtime.ListenOptions{})
	c.idle()
	before := countFDs()
	for range 200 {
		accept := c.op(runtime.OpAccept, ln)
		c.submit(accept)
		nc, err := net.Dial("tcp", addr.String())
		require.NoError(c, err)
		c.race(accept)
		if accept.Err != nil {
			require.ErrorIs(c, accept.Err, runtime.ErrCanceled)
			require.Zero(c, accept.Got)
			accept = c.do(c.op(runtime.OpAccept, ln)) // no connection was lost
		}
		c.close(accept.Got)
		_ = nc.Close()
	}
	require.LessOrEqual(c, countFDs(), before, "descriptors without a handle: %s", listFDs())
}

func connectRaces(c *world) {
	ln, addr := c.listen(runtime.ListenOptions{Backlog: 1000})
	defer c.close(ln)
	before := countFDs()
	for range 200 {
		dial := c.connect(addr)
		c.submit(dial)
		c.race(dial)
		if dial.Err == nil {
			c.close(dial.Got)
		} else {
			require.ErrorIs(c, dial.Err, runtime.ErrCanceled)
		}
	}
	require.LessOrEqual(c, countFDs(), before, "descriptors without a handle: %s", listFDs())
}
