package conformance

import (
	"bytes"
	"io"
	"net"

	"github.com/noria-go/noria/conformance/internal/require"
	"github.com/noria-go/noria/runtime"
)

func bufferCases() []testCase {
	few := Wishes{ReceiveBuffers: 4}
	return []testCase{
		{Name: "buffers/idle-holds-none", Run: idleHoldsNone},
		{Name: "buffers/shared-in-many-sends", Run: sharedSends},
		{Name: "buffers/released-from-elsewhere", Run: releasedElsewhere},
		{Name: "rule06/out-of-buffers", Wishes: few, Run: outOfBuffers},
		{Name: "rule06/cancel-loses-no-buffer", Wishes: few, Run: cancelLosesNone},
		{Name: "rule06/holders-do-not-stop-others", Wishes: few, Run: holders},
		{Name: "rule06/senders-that-wait-do-not-stop-others", Wishes: few, Run: stuckSenders},
		{Name: "rule06/a-free-buffer-goes-to-bytes", Wishes: few, Run: freeBuffer},
		{Name: "rule06/floods-share-the-buffers", Wishes: Wishes{ReceiveBuffers: floodBuffers}, Run: floods},
	}
}

func idleHoldsNone(c *world) {
	var ops []*rec
	for range 200 {
		h, _ := c.pair()
		r := c.op(runtime.OpRecvMany, h)
		c.submit(r)
		ops = append(ops, r)
	}
	c.idle()
	require.Zero(c, c.pool.Friend(key).Stats().Outstanding, "connections that wait for bytes hold buffers")
	for _, r := range ops {
		c.rt.Cancel(&r.Op)
	}
	c.wait(ops...)
}

func sharedSends(c *world) {
	p := c.pattern(100_000)
	own := c.buffer(p)
	shared := runtime.NewShared(p)
	var ops []*rec
	var peers []*net.TCPConn
	for i := range 20 {
		h, peer := c.pair()
		r := c.op(runtime.OpSend, h)
		if i%2 == 0 {
			r = c.op(runtime.OpSendVec, h)
			r.Bufs = []*runtime.Buffer{shared.Retain(), own.Retain()}
		} else {
			r.Buf = own.Retain()
		}
		ops, peers = append(ops, r), append(peers, peer)
	}
	c.submit(ops...)
	require.Equal(c, p, own.Bytes(), "a buffer with other owners can be read while it is sent")
	c.wait(ops...)
	for i, r := range ops {
		require.NoError(c, r.Err)
		c.expect(peers[i], bytes.Repeat(p, 2)[:r.N])
		if r.Buf != nil {
			r.Buf.Release()
		}
		for _, b := range r.Bufs {
			b.Release()
		}
	}
	require.False(c, own.Friend(key).Shared())
	own.Release()
	shared.Release()
}

func releasedElsewhere(c *world) {
	h, peer := c.pair()
	r := c.op(runtime.OpRecvMany, h)
	r.keep = true
	c.submit(r)
	c.write(peer, []byte("x"))
	c.until("a buffer", func() bool { return len(r.held) == 1 })
	done := make(chan struct{})
	b := r.held[0]
	r.held = nil
	c.background(func() {
		b.Release()
		close(done)
	})
	<-done
	c.rt.Cancel(&r.Op)
	c.wait(r)
}

// outOfBuffers holds every buffer that is received until nothing more arrives, and
// then releases them: every byte must arrive, and no stream may die.
func outOfBuffers(c *world) {
	const conns, size = 8, 400_000
	var ops []*rec
	var want [][]byte
	for range conns {
		h, peer := c.pair()
		r := c.op(runtime.OpRecvMany, h)
		r.keep = true
		c.submit(r)
		p := c.pattern(size)
		c.background(func() {
			_, _ = peer.Write(p)
			_ = peer.CloseWrite()
		})
		ops, want = append(ops, r), append(want, p)
	}
	c.until("the end", func() bool {
		c.idle()
		ended := 0
		for _, r := range ops {
			r.release()
			ended += r.ends
		}
		return ended == conns
	})
	for i, r := range ops {
		require.ErrorIs(c, r.Err, io.EOF)
		require.True(c, bytes.Equal(want[i], r.data), "connection %d lost bytes", i)
	}
}

// cancelLosesNone cancels receives at the moment at which they get a buffer, far more
// often than there are buffers. If each cancel lost a buffer, receiving would stop.
func cancelLosesNone(c *world) {
	h, peer := c.pair()
	r := c.op(runtime.OpRecvMany, h)
	const rounds = 300
	for range rounds {
		c.submit(r)
		if c.rand.IntN(2) == 0 {
			require.NoError(c, c.rt.Poll(0))
		}
		c.write(peer, []byte("x"))
		c.race(r)
		require.ErrorIs(c, r.Err, runtime.ErrCanceled)
	}
	c.submit(r)
	c.until("every byte", func() bool { return len(r.data) == rounds })
	c.rt.Cancel(&r.Op)
	c.wait(r)
}

// holders: many connections keep the buffers that they received. This must not stop the
// other connections from receiving.
func holders(c *world) {
	var keepers []*rec
	for range 100 {
		h, peer := c.pair()
		r := c.op(runtime.OpRecvMany, h)
		r.keep = true
		c.submit(r)
		c.write(peer, []byte("half a mess"))
		c.until("half a message", func() bool { return len(r.held) > 0 })
		keepers = append(keepers, r)
	}
	h, peer := c.pair()
	echo := c.op(runtime.OpRecvMany, h)
	c.submit(echo)
	for i := range 100 {
		c.write(peer, []byte{byte(i)})
		c.until("the echo", func() bool { return len(echo.data) == i+1 })
	}
	for _, r := range keepers {
		require.Equal(c, "half a mess", string(r.held[0].Bytes()), "a buffer that is held was written to")
		r.release()
	}
}

// stuckSenders sends received buffers, unchanged, to peers that do not read.
func stuckSenders(c *world) {
	var sends []*rec
	stuck, _ := c.pair()
	require.NoError(c, c.rt.SetOption(stuck, runtime.OptSendBuffer, 4096))
	for range 40 {
		h, peer := c.pair()
		r := c.op(runtime.OpRecvMany, h)
		r.keep = true
		c.submit(r)
		c.write(peer, make([]byte, 30_000))
		c.until("something", func() bool { return len(r.held) > 0 })
		c.rt.Cancel(&r.Op)
		c.wait(r)
		sends = append(sends, c.echoAll(r, stuck)...)
	}
	h, peer := c.pair()
	echo := c.op(runtime.OpRecvMany, h)
	c.submit(echo)
	for i := range 100 {
		c.write(peer, []byte{byte(i)})
		c.until("the echo", func() bool { return len(echo.data) == i+1 })
	}
	for _, s := range sends {
		c.rt.Cancel(&s.Op)
	}
	c.wait(sends...)
	for _, s := range sends {
		s.Buf.Release()
	}
}

// freeBuffer has receivers that hold every buffer, connections without bytes, and one
// with bytes that came after them. A buffer that is released must go to the one with
// bytes at once, and not only when the next event wakes the loop.
func freeBuffer(c *world) {
	c.exhaust()
	receive := func(p []byte) *rec {
		h, peer := c.pair()
		r := c.op(runtime.OpRecvMany, h)
		r.keep = true
		c.write(peer, p)
		c.submit(r)
		c.idle()
		return r
	}
	var holders []*rec
	for len(holders) == 0 || len(holders[len(holders)-1].held) > 0 {
		if len(holders) == 100 {
			return // the Runtime has as many buffers as are asked for
		}
		holders = append(holders, receive([]byte("held")))
	}
	short := holders[len(holders)-1]
	c.rt.Cancel(&short.Op)
	c.wait(short)
	if len(holders) == 1 {
		return // the Runtime has no buffers of its own: it needs the pool's memory
	}
	for range 10 {
		receive(nil)
	}
	waits := receive([]byte("bytes"))
	require.Zero(c, len(waits.data))
	holders[0].release()
	for deadline := c.rt.Now() + int64(c.limits.Wait); len(waits.data) == 0; {
		require.NoError(c, c.rt.Poll(deadline))
		require.Less(c, c.rt.Now(), deadline, "the connection with bytes waits beside a free buffer")
	}
	require.Equal(c, "bytes", string(waits.data))
	waits.release()
	for _, r := range holders {
		r.release()
	}
}

// exhaust leaves the pool no memory, so that no delivery can be a copy, until the case
// ends.
func (c *world) exhaust() {
	for size := 1 << 30; size >= 4096; {
		p, err := c.pool.Map(size)
		if err != nil {
			size /= 2
			continue
		}
		c.Defer(func() { require.NoError(c, c.pool.Unmap(p)) })
	}
}

// floodBuffers is enough for many buffers to be free while one flood is served: a
// Runtime that lets a flood take what is free gives it all of them.
const floodBuffers = 256

// floods has peers that send as fast as they can, and another peer that sends a byte now
// and then. When the byte arrives, the floods may have filled each buffer, and fill it
// once more while the Runtime finds that out. Then the byte's turn is before that of a
// flood that had one since.
func floods(c *world) {
	const peers = 32
	var ops []*rec
	total := 0
	for range peers {
		h, flood := c.pair()
		c.background(func() {
			for chunk := make([]byte, 256<<10); ; {
				if _, err := flood.Write(chunk); err != nil {
					return
				}
			}
		})
		r := c.op(runtime.OpRecvMany, h)
		r.then = func() {
			r.data = r.data[:0]
			total++
		}
		c.submit(r)
		ops = append(ops, r)
	}
	h, peer := c.pair()
	quiet := c.op(runtime.OpRecvMany, h)
	c.submit(quiet)
	for _, r := range ops {
		c.until("bytes of each flood", func() bool { return r.delivered > floodBuffers/peers })
	}
	for i := range 50 {
		c.write(peer, []byte{byte(i)})
		start := total
		c.until("the byte", func() bool {
			require.LessOrEqual(c, total-start, 2*floodBuffers+peers, "the floods keep the buffers to themselves")
			return len(quiet.data) > i
		})
	}
}

// echoAll sends the buffers that r holds.
func (c *world) echoAll(r *rec, h runtime.Handle) (sends []*rec) {
	for _, b := range r.held {
		s := c.op(runtime.OpSend, h)
		s.Buf = b
		c.submit(s)
		sends = append(sends, s)
	}
	r.held = nil
	return sends
}
