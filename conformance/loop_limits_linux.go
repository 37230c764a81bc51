package conformance

import (
	"context"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/conformance/internal/require"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

func loopLimitCases() []testCase {
	return []testCase{
		{Name: "trap/listener-survives-emfile", RunLoops: loopOutOfDescriptors},
		{Name: "faults/pinning-is-refused", RunLoops: loopNotPinned, LoopAlone: true},
	}
}

// countWriter counts the writes, which are a log's lines.
type countWriter struct{ atomic.Int64 }

func (w *countWriter) Write(p []byte) (int, error) {
	w.Add(1)
	return len(p), nil
}

// loopNotPinned: a loop that is not allowed to run on its CPU logs that and runs
// anyway. (The kernel refuses a CPU that does not exist like one that is not allowed.)
func loopNotPinned(l *loopWorld) {
	opts := l.options()
	var warned countWriter
	opts.Logger = slog.New(slog.NewTextHandler(&warned, nil))
	opts.CPUs = []int{1023}
	var before, after unix.CPUSet
	g := l.groupWith(1, opts)
	lp := g.Loops()[0]
	require.NoError(l, unix.SchedGetaffinity(0, &before))
	l.call(lp, func(context.Context) { require.NoError(l, unix.SchedGetaffinity(0, &after)) })
	require.Equal(l, before, after)
	require.Equal(l, 1, warned.Load(), "nothing was logged")
	require.NoError(l, g.Stop())

	opts.CPUs = nil
	for cpu := range 1024 {
		if before.IsSet(cpu) {
			opts.CPUs = []int{cpu}
			break
		}
	}
	g = l.groupWith(1, opts)
	l.call(g.Loops()[0], func(context.Context) { require.NoError(l, unix.SchedGetaffinity(0, &after)) })
	require.Equal(l, 1, after.Count())
	require.True(l, after.IsSet(opts.CPUs[0]))
	require.NoError(l, g.Stop())
	require.Equal(l, 1, warned.Load())
}

// loopOutOfDescriptors: accept fails for want of descriptors. The listener must survive
// this without spinning, and accept again when there are descriptors.
func loopOutOfDescriptors(l *loopWorld) {
	opts := l.options()
	var warned countWriter
	opts.Logger = slog.New(slog.NewTextHandler(&warned, nil))
	g := l.groupWith(1, opts)
	defer func() { require.NoError(l, g.Stop()) }()
	lp := g.Loops()[0]
	var old unix.Rlimit
	require.NoError(l, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	var fill []*os.File
	restore := func() {
		require.NoError(l, unix.Setrlimit(unix.RLIMIT_NOFILE, &old))
		for _, f := range fill {
			_ = f.Close()
		}
		fill = nil
	}
	defer restore()
	l.call(lp, func(ctx context.Context) {
		ln, err := lp.Friend(key).Listen(loopback, runtime.ListenOptions{}, loop.StreamOptions{})
		require.NoError(l, err)
		defer ln.Close()
		var peers []net.Conn
		for range 3 {
			nc, err := net.Dial("tcp", ln.Addr().String())
			require.NoError(l, err)
			defer nc.Close()
			peers = append(peers, nc)
		}
		limit := old
		limit.Cur = uint64(countFDs() + 50)
		require.NoError(l, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
		for {
			f, err := os.Open(os.DevNull)
			if err != nil {
				require.ErrorIs(l, err, unix.EMFILE)
				break
			}
			fill = append(fill, f)
		}
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		_, err = ln.Accept(short)
		require.ErrorIs(l, err, context.DeadlineExceeded)
		require.Positive(l, warned.Load(), "nothing was logged")
		require.LessOrEqual(l, warned.Load(), int64(3), "it spins")
		restore()
		for range peers {
			s, err := ln.Accept(ctx)
			require.NoError(l, err)
			require.NoError(l, s.Close())
		}
	})
}
