//go:build linux && !386 && !arm && !mips && !mipsle

package uring

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	stdruntime "runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
)

// Many more operations than either queue has room for, and cancellations among
// them: every one completes.
func TestFullQueues(t *testing.T) {
	everywhere(t, Options{Entries: 4, CQEntries: 4, Budget: 3}, func(t *testing.T, w *world) {
		const conns = 64
		var many, polls []*call
		var peers []int
		for range conns {
			h, peer := w.pair()
			peers = append(peers, peer)
			many = append(many, w.submit(runtime.Op{Code: runtime.OpRecvMany, Handle: h}))
			polls = append(polls, w.submit(runtime.Op{Code: runtime.OpPoll, Handle: h, Flags: runtime.DirRead}))
		}
		for round := range 3 {
			for _, peer := range peers {
				w.write(peer, "noria")
			}
			for _, c := range many {
				w.until(func() bool { return len(c.data) == 5*(round+1) })
			}
		}
		for _, c := range polls {
			w.until(func() bool { return c.over })
			require.Equal(t, runtime.DirRead, c.N)
		}
		for _, c := range many {
			w.r.Cancel(&c.Op)
		}
		for _, c := range many {
			w.until(func() bool { return c.over })
			require.ErrorIs(t, c.Err, runtime.ErrCanceled)
			require.Equal(t, 1+3, c.times)
		}
	})
}

// One turn submits everything, in several calls. Nothing waits for another turn.
func TestManyAtOnce(t *testing.T) {
	everywhere(t, Options{Entries: 8 * rawBatch}, func(t *testing.T, w *world) {
		require.NoError(t, w.r.Poll(0)) // submits the runtime's own entries
		h, _ := w.pair()
		var calls []*call
		for range 3*rawBatch + 1 {
			calls = append(calls, w.submit(runtime.Op{Code: runtime.OpPoll, Handle: h, Flags: runtime.DirRead}))
		}
		require.EqualValues(t, len(calls), w.r.ring.pending())
		require.Zero(t, w.r.ring.turn())
		require.Zero(t, w.r.ring.pending())
		for _, c := range calls {
			w.r.Cancel(&c.Op)
			w.until(func() bool { return c.over })
			require.ErrorIs(t, c.Err, runtime.ErrCanceled)
		}
	})
}

// A kernel that takes nothing for a while (EBUSY, simulated by hiding the ring's
// descriptor) loses nothing: operations and cancellations wait in order.
func TestBacklog(t *testing.T) {
	everywhere(t, Options{Entries: 4}, func(t *testing.T, w *world) {
		require.NoError(t, w.r.Poll(0))
		fd := w.r.ring.fd
		w.r.ring.fd = -1
		var calls []*call
		for range 20 {
			h, peer := w.pair()
			w.write(peer, "noria")
			calls = append(calls, w.submit(runtime.Op{Code: runtime.OpRecvMany, Handle: h}))
		}
		require.Positive(t, w.r.backlog.Len())
		for _, c := range calls[:10] { // some are in the queue, others behind it
			w.r.Cancel(&c.Op)
		}
		w.r.ring.fd = fd
		for i, c := range calls {
			w.until(func() bool { return i < 10 && c.over || string(c.data) == "noria" })
		}
		for _, c := range calls {
			w.r.Cancel(&c.Op)
			w.until(func() bool { return c.over })
			require.ErrorIs(t, c.Err, runtime.ErrCanceled)
		}
	})
}

// More connections have bytes than there are buffers. The kernel ends some receives
// with ENOBUFS, and every byte is still delivered.
func TestFewBuffers(t *testing.T) {
	everywhere(t, Options{Buffers: 2, BufferSize: 4096}, func(t *testing.T, w *world) {
		var many []*call
		var peers []int
		for range 30 {
			h, peer := w.pair()
			peers = append(peers, peer)
			many = append(many, w.submit(runtime.Op{Code: runtime.OpRecvMany, Handle: h}))
		}
		require.NoError(t, w.r.Poll(0))
		want := ""
		for round := range 5 {
			text := strings.Repeat(fmt.Sprint(round), 5000)
			want += text
			for _, peer := range peers {
				w.write(peer, text)
			}
			for _, c := range many {
				w.until(func() bool { return len(c.data) == len(want) })
				require.Equal(t, want, string(c.data))
			}
		}
		require.Equal(t, 2, w.free())
	})
}

// Receivers hold every buffer and the pool has no memory for copies. A receive is
// parked, can be cancelled while parked, and continues when a buffer is free.
func TestParked(t *testing.T) {
	for name, off := range map[string][]string{"ring": nil, "single": {FeatureMultishotRecv}, "no ring": {FeatureBufferRing}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Options{Buffers: 2, BufferSize: 4096, Off: off})
			w.exhaust()
			var held []*runtime.Buffer
			take := func(h runtime.Handle) *runtime.Op {
				op := &runtime.Op{Code: runtime.OpRecvMany, Handle: h}
				op.Done = func(op *runtime.Op) {
					if op.More {
						held = append(held, op.Buf)
					}
				}
				w.r.Submit(op)
				return op
			}
			var ops []*runtime.Op
			for range 4 {
				h, peer := w.pair()
				ops = append(ops, take(h))
				w.write(peer, "noria")
			}
			w.settle()
			require.Equal(t, 2, w.r.parked.Len())
			require.Len(t, held, 2)
			before := w.r.Now()
			require.NoError(t, w.r.Poll(before+int64(time.Millisecond)))
			require.Len(t, held, 2)
			require.GreaterOrEqual(t, w.r.Now()-before, int64(time.Millisecond), "parked, not spinning")

			parked := slices.Collect(w.r.parked.All())
			last := parked[1].op
			w.r.Cancel(last)
			w.until(func() bool { return !last.InFlight() })
			require.ErrorIs(t, last.Err, runtime.ErrCanceled)
			held[0].Release()
			w.until(func() bool { return len(held) == 3 })
			require.Equal(t, "noria", string(held[2].Bytes()))
			for _, b := range held[1:] {
				b.Release()
			}
			require.NoError(t, w.r.Close())
			for _, op := range ops {
				require.ErrorIs(t, op.Err, runtime.ErrCanceled)
			}
		})
	}
}

// A peer that does not read makes a send wait, and a waiting send holds no receive
// buffer: its bytes move to the pool, unnoticed by the sender.
func TestWaitingSendLeavesHotBuffer(t *testing.T) {
	everywhere(t, Options{Buffers: 4}, func(t *testing.T, w *world) {
		from, source := w.pair()
		to, sink := w.pair()
		submitted, completed := 0, 0
		over := func(op *runtime.Op) {
			require.NoError(t, op.Err)
			for _, b := range append(op.Bufs, op.Buf) {
				if b != nil {
					require.Equal(t, b.Len(), op.N, "a unix socket takes all or nothing below its limit")
					b.Release()
				}
			}
			completed++
		}
		recv := &runtime.Op{Code: runtime.OpRecvMany, Handle: from}
		var sent strings.Builder
		recv.Done = func(op *runtime.Op) {
			if !op.More {
				return
			}
			sent.Write(op.Buf.Bytes())
			submitted++
			if submitted%2 == 0 {
				w.r.Submit(&runtime.Op{Code: runtime.OpSend, Handle: to, Buf: op.Buf, Done: over})
			} else {
				w.r.Submit(&runtime.Op{Code: runtime.OpSendVec, Handle: to, Bufs: []*runtime.Buffer{op.Buf}, Done: over})
			}
		}
		w.r.Submit(recv)
		chunk := strings.Repeat("noria!", 3000)
		for i := range 60 {
			w.write(source, fmt.Sprint(i)+chunk)
			size := sent.Len()
			w.until(func() bool { return sent.Len() > size })
		}
		w.until(func() bool { return w.r.buffers.set.Held() == 0 })
		require.Less(t, completed, submitted, "some sends wait")
		var got strings.Builder
		p := make([]byte, 1<<16)
		for completed < submitted || got.Len() < sent.Len() {
			require.NoError(t, w.r.Poll(0))
			if n, _, _ := unix.Recvfrom(sink, p, unix.MSG_DONTWAIT); n > 0 {
				got.Write(p[:n])
			}
		}
		require.Equal(t, sent.String(), got.String())
	})
}

// io_uring answers EAGAIN for non-blocking descriptors.
func TestNonBlockingDescriptor(t *testing.T) {
	everywhere(t, Options{}, func(t *testing.T, w *world) {
		h, peer := w.pair()
		require.NoError(t, unix.SetNonblock(int(w.r.conn(h).fd), true))
		many := w.submit(runtime.Op{Code: runtime.OpRecvMany, Handle: h})
		next := w.submit(runtime.Op{Code: runtime.OpRecv, Handle: h, Buf: w.room(10)})
		require.NoError(t, w.r.Poll(0))
		require.NoError(t, w.r.Poll(0))
		w.write(peer, "noria")
		w.until(func() bool { return string(many.data) == "noria" })
		w.r.Cancel(&many.Op)
		w.until(func() bool { return many.over })
		require.False(t, next.over)
		w.write(peer, "wheel")
		w.until(func() bool { return next.over })
		require.Equal(t, "wheel", string(next.Buf.Bytes()))
		next.Buf.Release()

		var sends []*call
		for range 20 {
			sends = append(sends, w.submit(runtime.Op{Code: runtime.OpSend, Handle: h, Buf: w.buffer(strings.Repeat("x", 50000))}))
		}
		total := 0
		p := make([]byte, 1<<16)
		for _, c := range sends {
			for !c.over {
				require.NoError(t, w.r.Poll(0))
				if n, _, _ := unix.Recvfrom(peer, p, unix.MSG_DONTWAIT); n > 0 {
					total += n
				}
			}
			require.NoError(t, c.Err)
			c.Buf.Release()
		}
		require.Positive(t, total)
	})
}

// An accept that succeeds while its listener is being closed leaks no descriptor.
func TestUnwantedAccept(t *testing.T) {
	everywhere(t, Options{}, func(t *testing.T, w *world) {
		for _, code := range []runtime.OpCode{runtime.OpAccept, runtime.OpAcceptMany} {
			l, addr := w.listen()
			accept := w.submit(runtime.Op{Code: code, Handle: l})
			require.NoError(t, w.r.Poll(0))
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			require.NoError(t, err)
			require.NoError(t, unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(addr.AddrPort.Port())}))
			closing := w.submit(runtime.Op{Code: runtime.OpClose, Handle: l})
			w.until(func() bool { return closing.over })
			require.True(t, accept.over)
			require.ErrorIs(t, accept.Err, runtime.ErrCanceled)
			require.Empty(t, accept.got)
			n, err := unix.Read(fd, make([]byte, 1))
			require.True(t, n == 0 || errors.Is(err, unix.ECONNRESET), "the peer sees the end: %d %v", n, err)
			require.NoError(t, unix.Close(fd))
		}
	})
}

// Running out of descriptors ends an accept with the error, and a later accept
// works.
func TestAcceptOutOfDescriptors(t *testing.T) {
	w := newWorld(t, Options{})
	l, addr := w.listen()
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer closeAll(client)
	var old unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	// io_uring reads the limit when the accept is submitted.
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: old.Max}))
	many := w.submit(runtime.Op{Code: runtime.OpAcceptMany, Handle: l})
	err = w.r.Poll(0)
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &old))
	require.NoError(t, err)
	require.NoError(t, unix.Connect(client, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(addr.AddrPort.Port())}))
	w.until(func() bool { return many.over })
	require.ErrorIs(t, many.Err, unix.EMFILE)
	again := w.do(runtime.Op{Code: runtime.OpAccept, Handle: l})
	require.NoError(t, again.Err)
}

// A wait ends at its deadline and not before, even if the garbage collector runs.
// go-uring's own timeout fired at once in 50 of 50 runs.
func TestDeadlineSurvivesCollection(t *testing.T) {
	for name, opts := range map[string]Options{"ext-arg": {}, "timeout": {Off: []string{FeatureExtArg}}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, opts)
			var stop atomic.Bool
			stopped := make(chan struct{})
			go func() {
				defer close(stopped)
				for !stop.Load() {
					stdruntime.GC()
				}
			}()
			for i := range 50 {
				// First later, then earlier than the timer that the kernel has.
				wait := int64(4-i%3) * int64(time.Millisecond)
				deadline := w.r.Now() + wait
				require.NoError(t, w.r.Poll(deadline))
				require.GreaterOrEqual(t, w.r.Now(), deadline)
			}
			stop.Store(true)
			<-stopped
		})
	}
}

// No Wake is lost, at any moment of a Poll.
func TestWakeRaces(t *testing.T) {
	everywhere(t, Options{}, func(t *testing.T, w *world) {
		const rounds, wakers = 500, 3
		var asked, seen atomic.Int64
		finished := make(chan struct{}, wakers)
		for range wakers {
			go func() {
				defer func() { finished <- struct{}{} }()
				for range rounds {
					n := asked.Add(1)
					w.r.Wake()
					for seen.Load() < n {
						stdruntime.Gosched()
					}
				}
			}()
		}
		for seen.Load() < rounds*wakers {
			limit := w.r.Now() + int64(patience)
			require.NoError(t, w.r.Poll(limit))
			require.Less(t, w.r.Now(), limit, "a Wake was lost")
			seen.Store(asked.Load())
		}
		for range wakers {
			<-finished
		}
		w.r.Wake()
		require.NoError(t, w.r.Poll(runtime.Forever)) // a Wake before Poll counts
	})
}

// An operation allocates nothing.
func TestNoAllocation(t *testing.T) {
	w := newWorld(t, Options{})
	a, b := w.pair()
	peer, err := w.r.Adopt(b)
	require.NoError(t, err)
	got := 0
	echo := &runtime.Op{Code: runtime.OpSend, Handle: a, Done: func(op *runtime.Op) { op.Buf.Release() }}
	many := &runtime.Op{Code: runtime.OpRecvMany, Handle: a, Done: func(op *runtime.Op) {
		if op.More {
			echo.Buf = op.Buf
			w.r.Submit(echo)
		}
	}}
	w.r.Submit(many)
	in := &runtime.Op{Code: runtime.OpRecv, Handle: peer, Buf: w.room(100), Done: func(op *runtime.Op) { got += op.N; op.Buf.Reset(0) }}
	out := &runtime.Op{Code: runtime.OpSendVec, Handle: peer, Bufs: []*runtime.Buffer{w.buffer("nor"), w.buffer("ia")}, Done: func(*runtime.Op) {}}
	round := func() {
		want := got + 5
		w.r.Submit(in)
		w.r.Submit(out)
		for got < want {
			if err := w.r.Poll(runtime.Forever); err != nil {
				t.Fatal(err)
			}
		}
	}
	round()
	require.Zero(t, testing.AllocsPerRun(200, round))
	for _, b := range out.Bufs {
		b.Release()
	}
	in.Buf.Release()
	dup, err := w.r.Detach(peer)
	require.NoError(t, err)
	require.Equal(t, b, dup)
	_, err = w.r.Detach(a)
	require.ErrorIs(t, err, runtime.ErrBusy)
}

// Features that are switched off say so, and so do those that need them.
func TestFeatures(t *testing.T) {
	for _, name := range Features() {
		r, err := New(Options{Off: []string{name}})
		require.NoError(t, err)
		info := r.Info()
		require.Len(t, info.Features, len(Features()))
		for i, f := range info.Features {
			require.Equal(t, Features()[i], f.Name)
			require.NotEmpty(t, f.Why)
			require.NotEmpty(t, f.Since)
			if f.Name == name {
				require.False(t, f.On)
				require.Equal(t, "switched off", f.Why)
			}
		}
		require.NoError(t, r.Close())
	}
	r, err := New(Options{Off: []string{FeatureSingleIssuer, FeatureBufferRing}})
	require.NoError(t, err)
	require.False(t, inUse(r, FeatureDeferTaskrun))
	require.False(t, inUse(r, FeatureMultishotRecv))
	require.NoError(t, r.Close())
}

// The error of a failed setup says what to do.
func TestExplain(t *testing.T) {
	for errno, want := range map[syscall.Errno]string{
		syscall.ENOSYS: "built without", syscall.EPERM: "seccomp", syscall.ENOMEM: "memlock",
		syscall.EMFILE: "ulimit -n", syscall.EINVAL: "parameters",
	} {
		err := explain(errno)
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.ErrorIs(t, err, errno)
		require.ErrorContains(t, err, want)
	}
	sysctl := filepath.Join(t.TempDir(), "io_uring_disabled")
	require.Contains(t, whyNotPermitted(sysctl), "seccomp")
	for value, want := range map[string]string{"2\n": "=2", "1\n": "io_uring_group", "0\n": "seccomp"} {
		require.NoError(t, os.WriteFile(sysctl, []byte(value), 0o600))
		require.Contains(t, whyNotPermitted(sysctl), want)
	}
}

// A closed runtime leaves no ring, buffer or descriptor.
func TestNothingIsLeft(t *testing.T) {
	count := func() (mappings, fds int) {
		maps, err := os.ReadFile("/proc/self/maps")
		require.NoError(t, err)
		entries, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return strings.Count(string(maps), "io_uring"), len(entries)
	}
	_, err := probe()
	require.NoError(t, err)
	mappings, fds := count()
	for name, opts := range variants() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, opts)
			h, _ := w.listen()
			w.submit(runtime.Op{Code: runtime.OpAcceptMany, Handle: h})
			require.NoError(t, w.r.Poll(0))
		})
	}
	m, f := count()
	require.Equal(t, mappings, m)
	require.Equal(t, fds, f)
}

// inUse reports whether r uses the feature of that name.
func inUse(r runtime.Runtime, name string) bool {
	return slices.ContainsFunc(r.Info().Features, func(f runtime.Feature) bool { return f.Name == name && f.On })
}

// takeBoth has two receivers that hold both buffers of the world, and no memory for
// copies. It returns what releases one of them.
func (w *world) takeBoth() (release [2]func()) {
	w.exhaust()
	for i := range release {
		h, peer := w.pair()
		var held *runtime.Buffer
		w.r.Submit(&runtime.Op{Code: runtime.OpRecvMany, Handle: h, Done: func(op *runtime.Op) {
			if op.More {
				held = op.Buf
			}
		}})
		w.write(peer, "held")
		w.until(func() bool { return held != nil })
		release[i] = func() { held.Release() }
	}
	require.Zero(w.t, w.free())
	return release
}

// poll polls once and waits until there is a completion.
func (w *world) poll() {
	w.t.Helper()
	limit := w.r.Now() + int64(patience)
	require.NoError(w.t, w.r.Poll(limit))
	require.Less(w.t, w.r.Now(), limit, "Poll slept although it had work")
}

// settle polls until nothing is left to do.
func (w *world) settle() {
	for range 5 {
		require.NoError(w.t, w.r.Poll(0))
	}
}

// A receive that met no free buffer, and has no bytes, leaves the next buffer to one
// that has. Later it takes its own from the ring, and goes on as before.
func TestNoBytesNoBuffer(t *testing.T) {
	everywhere(t, Options{Buffers: 2, BufferSize: 4096}, func(t *testing.T, w *world) {
		release := w.takeBoth()
		idle, idlePeer := w.pair()
		waits := w.submit(runtime.Op{Code: runtime.OpRecvMany, Handle: idle})
		w.settle()
		busy, busyPeer := w.pair()
		w.write(busyPeer, "bytes")
		ready := w.submit(runtime.Op{Code: runtime.OpRecvMany, Handle: busy})
		w.settle()
		require.Equal(t, 1, w.r.parked.Len(), "only a receive with bytes is parked")
		release[0]()
		w.poll()
		require.Equal(t, "bytes", string(ready.data))
		release[1]()
		w.settle()
		for _, text := range []string{"a", "ab", "abc"} {
			w.write(idlePeer, text[len(text)-1:])
			w.poll()
			require.Equal(t, text, string(waits.data))
			w.settle()
		}
		require.Equal(t, 2, w.free())
		if w.r.buffers.ring != nil {
			require.Empty(t, w.r.buffers.idle, "the ring has the buffers again")
		}
	})
}

// Parked receives get one buffer each, from the ring too, whatever their peers have
// sent.
func TestOneBufferEach(t *testing.T) {
	everywhere(t, Options{Buffers: 2, BufferSize: 4096}, func(t *testing.T, w *world) {
		release := w.takeBoth()
		much, muchPeer := w.pair()
		little, littlePeer := w.pair()
		flood := w.submit(runtime.Op{Code: runtime.OpRecvMany, Handle: much})
		quiet := w.submit(runtime.Op{Code: runtime.OpRecvMany, Handle: little})
		w.settle() // both wait for readiness, because no buffer is free
		release[0]()
		release[1]()
		want := strings.Repeat("much", 5000)
		w.write(muchPeer, want)
		w.write(littlePeer, "little")
		w.until(func() bool { return len(quiet.data) > 0 })
		require.Less(t, len(flood.data), 4096)
		w.until(func() bool { return len(flood.data) == len(want) })
	})
}

// Where the kernel takes buffers at any time, a parked receive that is to take one from
// the ring may find none. It stays ahead of those that were parked later.
func TestRingWasEmptied(t *testing.T) {
	everywhere(t, Options{Buffers: 2, BufferSize: 4096}, func(t *testing.T, w *world) {
		release := w.takeBoth()
		park := func(text string) *call {
			h, peer := w.pair()
			w.write(peer, text)
			c := w.submit(runtime.Op{Code: runtime.OpRecvMany, Handle: h})
			w.settle()
			return c
		}
		first, second := park("first"), park("second")
		if w.r.buffers.ring != nil {
			w.r.buffers.shown++ // a buffer that is no longer there
			w.settle()
			w.r.buffers.shown--
			w.settle()
		}
		require.Equal(t, 2, w.r.parked.Len())
		require.Same(t, &first.Op, w.r.parked.First().op)
		release[0]()
		w.poll()
		require.Equal(t, "first", string(first.data))
		w.poll()
		require.Equal(t, "second", string(second.data))
		release[1]()
	})
}

// Peers that send more than there are buffers for keep another from its bytes for a few
// turns only: to find the ring empty, to be found ready, and to get a buffer in order.
func TestFloods(t *testing.T) {
	everywhere(t, Options{Buffers: 8, BufferSize: 4096}, func(t *testing.T, w *world) {
		chunk := make([]byte, 8192)
		var floods []int
		var ops []*call
		for range 12 {
			h, peer := w.pair()
			floods = append(floods, peer)
			ops = append(ops, w.submit(runtime.Op{Code: runtime.OpRecvMany, Handle: h}))
		}
		turn := func() {
			for i, peer := range floods {
				for {
					if _, err := unix.SendmsgN(peer, chunk, nil, nil, unix.MSG_DONTWAIT); err != nil {
						require.ErrorIs(t, err, unix.EAGAIN)
						break
					}
				}
				ops[i].data = ops[i].data[:0]
			}
			require.NoError(t, w.r.Poll(0))
		}
		h, peer := w.pair()
		quiet := w.submit(runtime.Op{Code: runtime.OpRecvMany, Handle: h})
		for i := range 100 {
			for range i % 7 { // the byte comes at any moment of a round
				turn()
			}
			w.write(peer, "x")
			for turns := 0; len(quiet.data) == i; turns++ {
				require.Less(t, turns, 6)
				turn()
			}
		}
	})
}
