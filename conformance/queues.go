package conformance

import (
	"time"

	"github.com/noria-go/noria/conformance/internal/require"
	"github.com/noria-go/noria/runtime"
)

func queueCases() []testCase {
	small := Wishes{QueueEntries: 4}
	return []testCase{
		{Name: "rule06/full-submission-queue", Wishes: small, Run: fullQueue},
		{Name: "rule06/cancels-in-a-full-queue", Wishes: small, Run: fullOfCancels},
		{Name: "rule06/completion-flood", Wishes: small, Run: flood},
		{Name: "rule06/accept-goes-on", Run: acceptGoesOn},
	}
}

func fullQueue(c *world) {
	h, peer := c.pair()
	var ops []*rec
	var want []byte
	for i := range 3000 {
		if i%3 == 0 {
			r := c.op(runtime.OpSend, h)
			r.Buf = runtime.NewShared([]byte{byte(i)})
			ops, want = append(ops, r), append(want, byte(i))
			continue
		}
		ops = append(ops, c.op(runtime.OpNop, 0))
	}
	c.submit(ops...)
	c.wait(ops...)
	for _, r := range ops {
		require.NoError(c, r.Err)
		require.Equal(c, 1, r.ends)
	}
	c.expect(peer, want)
}

func fullOfCancels(c *world) {
	var ops []*rec
	for range 100 {
		h, _ := c.pair()
		r := c.op(runtime.OpRecv, h)
		r.Buf = c.room(1)
		ops = append(ops, r)
	}
	for _, polled := range []bool{false, true} {
		c.submit(ops...)
		if polled {
			c.idle()
		}
		for _, r := range ops {
			c.rt.Cancel(&r.Op)
		}
		c.wait(ops...)
		for _, r := range ops {
			require.ErrorIs(c, r.Err, runtime.ErrCanceled)
		}
	}
	for _, r := range ops {
		r.Buf.Release()
	}
}

// flood completes far more operations at once than a completion queue holds.
func flood(c *world) {
	const n = 300
	var ops []*rec
	var writes []func()
	for range n {
		h, peer := c.pair()
		r := c.op(runtime.OpRecvMany, h)
		c.submit(r)
		ops = append(ops, r)
		writes = append(writes, func() { c.write(peer, []byte("now")) })
	}
	c.idle()
	for round := 1; round <= 5; round++ {
		for _, w := range writes {
			w()
		}
		for _, r := range ops {
			c.until("every connection's bytes", func() bool { return len(r.data) == 3*round })
		}
	}
}

func acceptGoesOn(c *world) {
	ln, addr := c.listen(runtime.ListenOptions{})
	accept := c.op(runtime.OpAcceptMany, ln)
	c.submit(accept)
	const n = 300
	for i := range n {
		nc := c.dial(addr)
		if i%10 == 0 {
			c.until("the connections so far", func() bool { return len(accept.got) == i+1 })
		}
		c.write(nc, []byte{byte(i)})
	}
	c.until("all connections", func() bool { return len(accept.got) == n })
	seen := map[runtime.Handle]bool{}
	for _, h := range accept.got {
		require.False(c, seen[h], "one handle twice")
		seen[h] = true
		r := c.op(runtime.OpRecv, h)
		r.Buf = c.room(1)
		c.do(r)
		r.Buf.Release()
		c.close(h)
	}
	require.Zero(c, accept.ends)
	c.rt.Cancel(&accept.Op)
	c.wait(accept)
	require.ErrorIs(c, accept.Err, runtime.ErrCanceled)
}

func pollCases() []testCase {
	return []testCase{
		{Name: "poll/deadline", Run: pollDeadline},
		{Name: "poll/without-waiting-delivers", Run: pollWithoutWaiting},
		{Name: "poll/once", Run: pollOnce},
		{Name: "rule07/eintr", Run: eintr},
		{Name: "wake/counts-before-poll", Run: wakeBefore},
		{Name: "wake/never-lost", Run: wakeNeverLost},
	}
}

func pollDeadline(c *world) {
	h, _ := c.pair()
	r := c.op(runtime.OpRecvMany, h)
	c.submit(r)
	for _, past := range []int64{0, 1, c.rt.Now() - 1} {
		require.NoError(c, c.rt.Poll(past))
	}
	for _, d := range []time.Duration{10 * time.Microsecond, time.Millisecond, 3*time.Millisecond + 7, 20 * time.Millisecond} {
		deadline := c.rt.Now() + int64(d)
		require.NoError(c, c.rt.Poll(deadline))
		require.GreaterOrEqual(c, c.rt.Now(), deadline, "Poll returned before its deadline, without a reason")
	}
	last := c.rt.Now()
	for range 1000 {
		now := c.rt.Now()
		require.GreaterOrEqual(c, now, last, "the clock ran backwards")
		last = now
	}
	// An operation that is ready does not wait for the deadline.
	c.submit(c.op(runtime.OpNop, 0))
	start := time.Now()
	require.NoError(c, c.rt.Poll(c.rt.Now()+int64(c.limits.Whole)))
	require.Less(c, time.Since(start), c.limits.Whole/2)
}

// pollWithoutWaiting: a loop that always has work must still see the kernel's
// completions, including those of deferred work.
func pollWithoutWaiting(c *world) {
	h, peer := c.pair()
	r := c.op(runtime.OpRecvMany, h)
	c.submit(r)
	for round := range 50 {
		c.write(peer, []byte("x"))
		deadline := time.Now().Add(c.limits.Wait)
		for len(r.data) <= round {
			require.NoError(c, c.rt.Poll(0))
			require.True(c, time.Now().Before(deadline), "Poll(0) never sees what has arrived")
		}
	}
}

func pollOnce(c *world) {
	h, peer := c.pair()
	w := c.op(runtime.OpPoll, h)
	w.Flags = runtime.DirWrite
	require.Equal(c, runtime.DirWrite, c.do(w).N)
	r := c.op(runtime.OpPoll, h)
	r.Flags = runtime.DirRead | runtime.DirWrite
	require.NotZero(c, c.do(r).N&runtime.DirWrite)
	r.Flags = runtime.DirRead
	c.submit(r)
	c.idle()
	require.True(c, r.InFlight(), "it was readable before anything arrived")
	c.write(peer, []byte("x"))
	c.wait(r)
	require.Equal(c, runtime.DirRead, r.N)
	require.Equal(c, runtime.DirRead, c.do(r).N, "a second poll finds it ready again")
	require.NoError(c, peer.Close())
	require.NotZero(c, c.do(r).N)
}

func wakeBefore(c *world) {
	for range 100 {
		c.rt.Wake()
		c.rt.Wake()
		start := time.Now()
		require.NoError(c, c.rt.Poll(runtime.Forever))
		require.Less(c, time.Since(start), c.limits.Wait/2, "a Wake before Poll counts")
	}
	// It counts once only: the next Poll waits.
	deadline := c.rt.Now() + int64(2*time.Millisecond)
	c.until("the deadline", func() bool { return c.rt.Now() >= deadline })
}

// wakeNeverLost has a goroutine call Wake each time after an event for which Poll must
// return.
func wakeNeverLost(c *world) {
	const rounds = 20_000
	to, from := make(chan struct{}), make(chan struct{}, 1)
	c.background(func() {
		for range to {
			from <- struct{}{}
			c.rt.Wake()
		}
	})
	defer close(to)
	stuck := time.AfterFunc(c.limits.Wait, func() {
		c.Errorf("a Wake was lost")
		for range 1000 { // so that the case ends even with a Runtime that loses every second Wake
			c.rt.Wake()
		}
	})
	defer stuck.Stop()
	for range rounds {
		to <- struct{}{}
		for got := false; !got; {
			require.NoError(c, c.rt.Poll(runtime.Forever))
			select {
			case <-from:
				got = true
			default:
			}
		}
	}
}
