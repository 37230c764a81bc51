package conformance

import (
	"bytes"
	"errors"
	"io"
	"syscall"
	"time"

	"github.com/noria-go/noria/conformance/internal/require"
	"github.com/noria-go/noria/runtime"
)

func streamCases() []testCase {
	return []testCase{
		{Name: "rule03/eof", Run: eof},
		{Name: "rule03/data-wins-over-cancel", Run: dataWins},
		{Name: "rule05/one-busy-connection", Run: oneBusy},
		{Name: "rule05/budget", Run: budget},
		{Name: "rule07/no-sigpipe", Run: noSigpipe},
		{Name: "rule08/sends-in-order", Run: sendsInOrder},
		{Name: "rule08/receives-in-order", Run: receivesInOrder},
		{Name: "rule08/partial-sends", Run: partialSends},
		{Name: "rule08/vectored-sends", Run: vectoredSends},
		{Name: "stream/half-close-both-ways", Run: halfClose},
		{Name: "stream/shutdown-of-what-has-gone", Run: shutdownGone},
		{Name: "stream/shutdown-follows-the-sends", Run: shutdownFollows},
		{Name: "stream/reset-after-data", Run: resetAfterData},
		{Name: "stream/checksums", Run: checksums},
	}
}

func eof(c *world) {
	h, peer := c.pair()
	many := c.op(runtime.OpRecvMany, h)
	c.submit(many)
	c.write(peer, []byte("the end"))
	require.NoError(c, peer.CloseWrite())
	c.wait(many)
	require.True(c, many.Err == io.EOF, "recv-many ends with %v, not io.EOF", many.Err)
	require.Equal(c, "the end", string(many.data))
	require.Zero(c, many.N)
	r := c.op(runtime.OpRecv, h)
	r.Buf = c.room(10)
	c.try(r)
	require.True(c, r.Err == io.EOF, "recv ends with %v, not io.EOF", r.Err)
	require.Zero(c, r.N)
	r.Buf.Release()
}

// dataWins cancels a receive while bytes arrive, many times: no byte may be lost,
// whichever of the two was first.
func dataWins(c *world) {
	h, peer := c.pair()
	want := c.pattern(3000)
	c.background(func() {
		for i := range want {
			if _, err := peer.Write(want[i : i+1]); err != nil {
				return
			}
		}
	})
	var got []byte
	one, many := c.op(runtime.OpRecv, h), c.op(runtime.OpRecvMany, h)
	one.Buf = c.room(512)
	defer one.Buf.Release()
	for deadline := time.Now().Add(c.limits.Wait); len(got) < len(want); {
		require.True(c, time.Now().Before(deadline), "%d of %d bytes arrived", len(got), len(want))
		if c.rand.IntN(2) == 0 {
			one.Buf.Reset(0)
			c.submit(one)
			c.race(one)
			if one.Err == nil {
				require.Positive(c, one.N)
				got = append(got, one.Buf.Bytes()...)
				continue
			}
			require.ErrorIs(c, one.Err, runtime.ErrCanceled)
			require.Zero(c, one.N, "a cancelled operation delivered bytes")
			continue
		}
		many.data = nil
		c.submit(many)
		c.race(many)
		require.ErrorIs(c, many.Err, runtime.ErrCanceled)
		got = append(got, many.data...)
	}
	require.Equal(c, want, got)
}

// race cancels r after a random number of polls and waits for its end.
func (c *world) race(r *rec) {
	for range c.rand.IntN(3) {
		require.NoError(c, c.rt.Poll(0))
	}
	c.rt.Cancel(&r.Op)
	c.wait(r)
}

// oneBusy has one peer that sends as fast as it can, and another that asks a question
// now and then. The runtime must deliver every question.
func oneBusy(c *world) {
	busy, flood := c.pair()
	quiet, peer := c.pair()
	c.background(func() {
		for chunk := make([]byte, 64<<10); ; {
			if _, err := flood.Write(chunk); err != nil {
				return
			}
		}
	})
	fm, qm := c.op(runtime.OpRecvMany, busy), c.op(runtime.OpRecvMany, quiet)
	fm.then = func() { fm.data = fm.data[:0] }
	c.submit(fm, qm)
	c.until("the flood", func() bool { return fm.delivered > 100 })
	for i := range 50 {
		c.write(peer, []byte{byte(i)})
		start := fm.delivered
		c.until("the quiet one", func() bool { return len(qm.data) > i })
		require.Less(c, fm.delivered-start, 5000, "the busy connection keeps the other from its turn")
	}
	_ = flood.Close()
	c.wait(fm)
}

func budget(c *world) {
	const n = 5000
	var ops []*rec
	for range n {
		ops = append(ops, c.op(runtime.OpNop, 0))
	}
	c.submit(ops...)
	polls := 0
	for done := 0; done < n; polls++ {
		before := done
		require.NoError(c, c.rt.Poll(0))
		done = 0
		for _, r := range ops {
			done += r.ends
		}
		require.Less(c, done-before, n, "one Poll delivers any number of completions")
		require.Less(c, polls, n, "Poll delivers nothing")
	}
	// A Done that submits again must not keep Poll from returning.
	again := c.op(runtime.OpNop, 0)
	stop := false
	again.then = func() {
		if !stop {
			again.again()
		}
	}
	c.submit(again)
	for range 10 {
		c.poll()
	}
	stop = true
	c.wait(again)
}

func noSigpipe(c *world) {
	h, peer := c.pair()
	require.NoError(c, peer.SetLinger(0))
	require.NoError(c, peer.Close())
	b := c.buffer(c.pattern(1000))
	defer b.Release()
	for {
		r := c.op(runtime.OpSend, h)
		r.Buf = b
		if c.try(r); r.Err != nil {
			require.True(c, errorsIsAny(r.Err, syscall.EPIPE, syscall.ECONNRESET), "%v", r.Err)
			break
		}
	}
	v := c.op(runtime.OpSendVec, h)
	v.Bufs = []*runtime.Buffer{b}
	require.ErrorIs(c, c.try(v).Err, syscall.EPIPE)
}

func sendsInOrder(c *world) {
	h, peer := c.pair()
	var ops []*rec
	var want []byte
	for i := range 200 {
		p := c.pattern(1 + c.rand.IntN(300))
		want = append(want, p...)
		r := c.op(runtime.OpSend, h)
		if i%3 == 0 {
			r = c.op(runtime.OpSendVec, h)
			r.Bufs = []*runtime.Buffer{c.buffer(p)}
		} else {
			r.Buf = c.buffer(p)
		}
		ops = append(ops, r)
	}
	c.submit(ops...)
	c.wait(ops...)
	for _, r := range ops {
		require.NoError(c, r.Err)
		if r.Buf != nil {
			require.Equal(c, r.Buf.Len(), r.N)
			r.Buf.Release()
		}
		for _, b := range r.Bufs {
			b.Release()
		}
	}
	c.expect(peer, want)
}

func receivesInOrder(c *world) {
	h, peer := c.pair()
	var ops []*rec
	for range 50 {
		r := c.op(runtime.OpRecv, h)
		r.Buf = c.room(512)
		r.Buf.Reset(r.Buf.Friend(key).Cap() - 10)
		ops = append(ops, r)
	}
	many := c.op(runtime.OpRecvMany, h)
	c.submit(append(ops, many)...)
	want := c.pattern(1000)
	c.write(peer, want)
	require.NoError(c, peer.CloseWrite())
	c.wait(append(ops, many)...)
	var got []byte
	for _, r := range ops {
		got = append(got, r.Buf.Bytes()...)
		r.Buf.Release()
	}
	require.Equal(c, want, append(got, many.data...))
}

// partialSends sends many bytes to a peer that reads slowly, through small buffers.
func partialSends(c *world) {
	h, peer := c.pair()
	require.NoError(c, c.rt.SetOption(h, runtime.OptSendBuffer, 4096))
	want := c.pattern(1 << 20)
	all := make(chan []byte, 1)
	c.background(func() {
		var got []byte
		chunk := make([]byte, 10_000)
		for {
			n, err := peer.Read(chunk[:1+len(got)%len(chunk)])
			if got = append(got, chunk[:n]...); err != nil {
				all <- got
				return
			}
		}
	})
	c.send(h, want)
	c.close(h)
	require.True(c, bytes.Equal(want, <-all), "bytes were lost, repeated or reordered")
}

func vectoredSends(c *world) {
	h, peer := c.pair()
	for _, n := range []int{1, 2, runtime.MaxVec} {
		v := c.op(runtime.OpSendVec, h)
		var want []byte
		for i := range n {
			p := c.pattern(i % 5) // empty ones too
			if i == 0 {
				p = c.pattern(20)
			}
			want = append(want, p...)
			v.Bufs = append(v.Bufs, c.buffer(p))
		}
		v.Skip = 7
		c.do(v)
		require.Equal(c, len(want)-7, v.N)
		for _, b := range v.Bufs {
			b.Release()
		}
		c.expect(peer, want[7:])
	}
}

func halfClose(c *world) {
	h, peer := c.pair()
	down := c.op(runtime.OpShutdown, h)
	down.Flags = runtime.DirWrite
	c.do(down)
	c.expectEOF(peer)
	c.write(peer, []byte("still here"))
	r := c.op(runtime.OpRecv, h)
	r.Buf = c.room(20)
	c.do(r)
	require.Equal(c, "still here", string(r.Buf.Bytes()))
	r.Buf.Release()

	h, peer = c.pair()
	require.NoError(c, peer.CloseWrite())
	many := c.op(runtime.OpRecvMany, h)
	c.submit(many)
	c.wait(many)
	require.True(c, many.Err == io.EOF)
	c.send(h, []byte("still here"))
	c.expect(peer, []byte("still here"))
}

func shutdownGone(c *world) {
	h, peer := c.pair()
	require.NoError(c, peer.SetLinger(0))
	require.NoError(c, peer.Close())
	r := c.op(runtime.OpRecv, h)
	r.Buf = c.room(1)
	c.try(r)
	r.Buf.Release()
	down := c.op(runtime.OpShutdown, h)
	down.Flags = runtime.DirRead | runtime.DirWrite
	c.do(down)
}

func shutdownFollows(c *world) {
	h, peer := c.pair()
	require.NoError(c, c.rt.SetOption(h, runtime.OptSendBuffer, 4096))
	p := c.pattern(1 << 20)
	s := c.op(runtime.OpSend, h)
	s.Buf = c.buffer(p)
	down := c.op(runtime.OpShutdown, h)
	down.Flags = runtime.DirWrite
	c.submit(s, down)
	got := make(chan int, 1)
	c.background(func() {
		n, _ := io.Copy(io.Discard, peer)
		got <- int(n)
	})
	c.wait(s, down)
	require.NoError(c, s.Err)
	require.NoError(c, down.Err)
	require.Equal(c, s.N, <-got, "the end overtook what was sent before it")
	s.Buf.Release()
}

func resetAfterData(c *world) {
	h, peer := c.pair()
	many := c.op(runtime.OpRecvMany, h)
	c.submit(many)
	c.write(peer, []byte("last words"))
	c.until("the last words", func() bool { return len(many.data) == 10 })
	require.NoError(c, peer.SetLinger(0))
	require.NoError(c, peer.Close())
	c.wait(many)
	require.ErrorIs(c, many.Err, syscall.ECONNRESET)
}

func checksums(c *world) {
	h, peer := c.pair()
	many := c.op(runtime.OpRecvMany, h)
	c.submit(many)
	want := c.pattern(2 << 20)
	cuts := make([]int, 0, 1000)
	for left := len(want); left > 0; {
		n := min(left, 1+c.rand.IntN(1<<c.rand.IntN(17)))
		cuts = append(cuts, n)
		left -= n
	}
	c.background(func() {
		p := want
		for _, n := range cuts {
			if _, err := peer.Write(p[:n]); err != nil {
				return
			}
			p = p[n:]
		}
		_ = peer.CloseWrite()
	})
	c.wait(many)
	require.True(c, bytes.Equal(want, many.data), "what arrived is not what was sent")
}

func errorsIsAny(err error, targets ...error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}
