package compat_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

const (
	idleMessage = 1 << 20
	idleAtOnce  = 16 // clients that dial, or send, at once
)

// TestMain runs the clients of TestIdleConnections in a process of their own: both ends are
// too many open files for one.
func TestMain(m *testing.M) {
	if clients := os.Getenv("NORIA_IDLE_CLIENTS"); clients != "" {
		if err := idleClients(clients); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// idleClients opens connections ("address number") and prints "ready". For each number that
// it reads, it sends a message on so many of them, waits for the answers, and prints "ready".
// It returns at the end of its input.
func idleClients(what string) error {
	var address string
	var number int
	if _, err := fmt.Sscan(what, &address, &number); err != nil {
		return err
	}
	conns := make([]net.Conn, number)
	if err := inTurns(number, func(i int) (err error) {
		conns[i], err = net.Dial("tcp", address)
		return err
	}); err != nil {
		return err
	}
	message := frame(make([]byte, idleMessage))
	for in := bufio.NewScanner(os.Stdin); ; {
		fmt.Println("ready")
		if !in.Scan() {
			return in.Err()
		}
		senders, err := strconv.Atoi(in.Text())
		if err != nil {
			return err
		}
		if err := inTurns(senders, func(i int) error {
			_, werr := conns[i].Write(message)
			_, rerr := io.ReadFull(conns[i], make([]byte, 1))
			return errors.Join(werr, rerr)
		}); err != nil {
			return err
		}
	}
}

// inTurns calls f for each number below n, on a few goroutines.
func inTurns(n int, f func(i int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, idleAtOnce)
	for g := range idleAtOnce {
		wg.Go(func() {
			for i := g; i < n && errs[g] == nil; i += idleAtOnce {
				errs[g] = f(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Idle connections that have carried a large message hold no buffer, and hardly more memory
// than before it.
func TestIdleConnections(t *testing.T) {
	number := 8000
	if testing.Short() {
		number = 400
	}
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		lp := g.Loops()[0]
		var ln *loop.Listener
		require.NoError(t, lp.Call(context.Background(), "listen", func(context.Context) (err error) {
			ln, err = lp.Friend(key).Listen(runtime.Addr{AddrPort: netip.MustParseAddrPort("127.0.0.1:0")}, runtime.ListenOptions{}, loop.StreamOptions{})
			return err
		}))
		served := make(chan error, 1)
		require.NoError(t, lp.Go("server", func(ctx context.Context) error { return serveIdle(ctx, ln, number) }, func(err error) { served <- err }))

		clients := exec.Command(os.Args[0], "-test.run=^$")
		clients.Env = append(os.Environ(), fmt.Sprintf("NORIA_IDLE_CLIENTS=%s %d", ln.Addr(), number))
		clients.Stderr = os.Stderr
		say, err := clients.StdinPipe()
		require.NoError(t, err)
		out, err := clients.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, clients.Start())
		hear := bufio.NewScanner(out)

		require.True(t, hear.Scan())
		send := func(connections int) int64 {
			_, err := fmt.Fprintln(say, connections)
			require.NoError(t, err)
			require.True(t, hear.Scan())
			return idleMemory(t, lp, number)
		}
		// A few first, as many at once as later, for the memory that the loop and Go keep
		// whatever the number.
		const warm = 2 * idleAtOnce
		before := send(warm)
		for range 2 { // a second time costs nothing more either
			grown := send(number) - before
			t.Logf("%d connections of %d: %d bytes in all, %d each", number, before, grown, grown/int64(number-warm))
			if !raceEnabled {
				require.LessOrEqual(t, grown, 4096*int64(number-warm))
			}
		}
		require.NoError(t, say.Close())
		require.NoError(t, clients.Wait())
		require.NoError(t, <-served)
	})
}

// idleMemory waits until all connections are idle and hold no buffer, collects garbage, and
// returns the resident memory without what the pool keeps for all of them, which it checks to
// be little.
func idleMemory(t *testing.T, lp *loop.Loop, number int) int64 {
	t.Helper()
	var st loop.LoopStats
	for st.Streams != number || st.Pool.Outstanding != 0 {
		var err error
		st, err = lp.Friend(key).Stats()
		require.NoError(t, err)
	}
	require.LessOrEqual(t, st.Pool.Mapped, int64(24<<20))
	debug.FreeOSMemory() // it collects first
	debug.FreeOSMemory() // stacks shrink in a collection, and are free in the next
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); f[0] == "VmRSS:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			require.NoError(t, err)
			return kib<<10 - st.Pool.Mapped
		}
	}
	require.FailNow(t, "no VmRSS")
	return 0
}

// serveIdle answers each message with a byte, until all peers have closed.
func serveIdle(ctx context.Context, ln *loop.Listener, number int) error {
	scratch := make([]byte, idleMessage) // nobody is suspended while using it
	cr := &crew{ctx: ctx}
	for range number {
		s, err := ln.Accept(ctx)
		if err != nil {
			return err
		}
		cr.run("connection", func(context.Context) error {
			gs, err := compat.NewGrowableSyncStream(s, compat.Options{Exact: true})
			if err != nil {
				return err
			}
			for err == nil {
				err = gs.Run(func(rw io.ReadWriter) error {
					var head [4]byte
					if _, err := io.ReadFull(rw, head[:]); err != nil {
						return err
					}
					if _, err := io.ReadFull(rw, scratch); err != nil {
						return err
					}
					_, err := rw.Write([]byte{1})
					return err
				})
			}
			if err == io.EOF {
				err = nil
			}
			return errors.Join(err, gs.Close())
		})
	}
	return errors.Join(cr.wait(), ln.Close())
}
