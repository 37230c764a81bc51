package conformance_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	goruntime "runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/conformance"
	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/tcp"
)

// How a connection of the stress test ends.
const (
	faultNone   = iota // everything is echoed, then close
	faultHalf          // CloseWrite, and the echo is still read to its end
	faultReset         // RST at any moment
	faultCancel        // the task that reads is killed
	faultLate          // a read deadline passes, and then the rest comes
	faults
)

var faultNames = [faults]string{"none", "half-close", "reset", "cancel", "timeout"}

// A tally is what one end has seen of a connection's bytes.
type tally struct {
	bytes int
	sum   uint32
}

func (t *tally) add(p []byte) {
	t.bytes += len(p)
	t.sum = crc32.Update(t.sum, crc32.IEEETable, p)
}

// A message is its length, a command, the number of its connection, and bytes.
const (
	headSize = 12
	doEcho   = 0
	doHold   = 1 // echo it together with the next one
)

type stress struct {
	seed    uint64
	resets  atomic.Int64 // seen by the server
	counted [faults]atomic.Int64
	ends    sync.Map // connection → tally of the server
	wrong   atomic.Pointer[error]
}

func (st *stress) fail(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	st.wrong.CompareAndSwap(nil, &err)
	return err
}

// serve echoes messages and records what arrived.
func (st *stress) serve(_ context.Context, c *loop.Stream) error {
	var (
		seen tally
		held []byte
		id   = -1
		head [headSize]byte
	)
	defer func() {
		if id >= 0 {
			st.ends.Store(id, seen)
		}
	}()
	for {
		if _, err := io.ReadFull(c, head[:]); err != nil {
			if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
				st.resets.Add(1)
			}
			return err
		}
		p := make([]byte, binary.BigEndian.Uint32(head[:]))
		id = int(binary.BigEndian.Uint32(head[8:]))
		if _, err := io.ReadFull(c, p); err != nil {
			if errors.Is(err, syscall.ECONNRESET) {
				st.resets.Add(1)
			}
			return err
		}
		seen.add(p)
		held = append(held, p...)
		if head[4] == doHold {
			continue
		}
		if _, err := c.Write(held); err != nil {
			if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
				st.resets.Add(1)
			}
			return err
		}
		held = held[:0]
	}
}

// A client is the client's side of a connection.
type client struct {
	st     *stress
	id     int
	rand   *rand.Rand
	s      *loop.Stream
	sent   tally
	queued []byte // sent and not echoed yet
	acked  int
}

func (c *client) send(do byte) error {
	p := make([]byte, headSize+c.rand.IntN(3000))
	if c.rand.IntN(50) == 0 {
		p = make([]byte, headSize+c.rand.IntN(200<<10))
	}
	for i := headSize; i < len(p); i++ {
		p[i] = byte(c.id + i + c.sent.bytes)
	}
	binary.BigEndian.PutUint32(p, uint32(len(p)-headSize))
	p[4] = do
	binary.BigEndian.PutUint32(p[8:], uint32(c.id))
	_, err := c.s.Write(p)
	c.sent.add(p[headSize:])
	c.queued = append(c.queued, p[headSize:]...)
	return err
}

// receive reads n echoed bytes and compares them.
func (c *client) receive(n int) error {
	p := make([]byte, n)
	n, err := io.ReadFull(c.s, p)
	if string(p[:n]) != string(c.queued[:n]) {
		return c.st.fail("connection %d: other bytes came back than were sent, after %d", c.id, c.acked)
	}
	c.queued = c.queued[n:]
	c.acked += n
	return err
}

// run is one connection, from its dial to its end.
func (c *client) run(ctx context.Context, lp *loop.Loop, address string, fault int) (err error) {
	if c.s, err = lp.Friend(friend.Key{}).Dial(ctx, address, loop.DialOptions{Timeout: 30 * time.Second}); err != nil {
		return err
	}
	defer c.s.Close()
	if err := c.s.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	for range c.rand.IntN(4) {
		if err := c.send(doEcho); err != nil {
			return err
		}
		if c.rand.IntN(2) == 0 {
			if err := c.receive(c.rand.IntN(len(c.queued) + 1)); err != nil {
				return err
			}
		}
	}
	if err := c.end(ctx, fault); err != nil {
		return fmt.Errorf("%s: %w", faultNames[fault], err)
	}
	c.st.counted[fault].Add(1)
	return nil
}

func (c *client) end(ctx context.Context, fault int) error {
	switch fault {
	case faultReset:
		if c.id/faults%2 == 0 {
			// The server has nothing to send at this moment, so it must see the reset
			// when it reads. Otherwise a send might get the reset, and the read an end.
			if err := c.receive(len(c.queued)); err != nil {
				return err
			}
			return c.s.Friend(friend.Key{}).SetOption(runtime.OptResetOnClose, 1)
		}
		if err := c.send(doEcho); err != nil {
			return err
		}
		if c.rand.IntN(2) == 0 {
			if err := c.s.Flush(); err != nil {
				return err
			}
		}
		return c.s.Friend(friend.Key{}).SetOption(runtime.OptResetOnClose, 1)
	case faultHalf:
		if err := c.send(doEcho); err != nil {
			return err
		}
		if err := c.s.CloseWrite(); err != nil {
			return err
		}
		if err := c.receive(len(c.queued)); err != nil {
			return err
		}
		if n, err := c.s.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			return c.st.fail("connection %d: after the half-close: %d, %v", c.id, n, err)
		}
		return nil
	case faultCancel:
		return c.cancelled(ctx)
	case faultLate:
		return c.late()
	}
	return c.receive(len(c.queued))
}

// cancelled starts a reader for bytes that have not been sent yet, and kills it.
func (c *client) cancelled(ctx context.Context) error {
	if err := c.receive(len(c.queued)); err != nil {
		return err
	}
	t, err := loop.Go(ctx, "reader", func(context.Context) error {
		_, err := c.s.ReadBuf()
		return err
	})
	if err != nil {
		return err
	}
	if err := c.send(doHold); err != nil {
		return err
	}
	if c.rand.IntN(2) == 0 {
		if err := loop.Yield(ctx); err != nil {
			return err
		}
	}
	t.Cancel(true)
	if err := t.Wait(ctx); !errors.Is(err, runtime.ErrCanceled) {
		return c.st.fail("connection %d: the killed reader ended with %v", c.id, err)
	}
	if err := c.send(doEcho); err != nil { // the stream still works
		return err
	}
	return c.receive(len(c.queued))
}

// late lets a deadline pass while the server holds back a part of the echo, and then
// receives all of it.
func (c *client) late() error {
	if err := c.receive(len(c.queued)); err != nil {
		return err
	}
	if err := c.send(doHold); err != nil {
		return err
	}
	if err := c.s.SetReadDeadline(time.Now().Add(time.Duration(c.rand.IntN(2000)) * time.Microsecond)); err != nil {
		return err
	}
	if _, err := c.s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		return c.st.fail("connection %d: the late read ended with %v", c.id, err)
	}
	if err := c.s.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	if err := c.send(doEcho); err != nil {
		return err
	}
	return c.receive(len(c.queued))
}

// TestStress opens, half-closes, resets, cancels and times out connections at random,
// and compares what both ends saw of each. Only a reset may lose bytes, and only bytes
// whose echo did not arrive.
func TestStress(t *testing.T) {
	conns, least := 20000, int64(1000)
	if testing.Short() {
		conns, least = 1000, 20
	}
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) { stressOn(t, v.factory, conns, least) })
	}
}

func stressOn(t *testing.T, factory conformance.Factory, conns int, least int64) {
	seed := rand.Uint64()
	if s, err := strconv.ParseUint(os.Getenv(conformance.SeedVariable), 10, 64); err == nil {
		seed = s
	}
	t.Logf("seed %d", seed)
	r, w, err := os.Pipe() // makes Go's own poller open its descriptors
	require.NoError(t, err)
	require.NoError(t, errors.Join(r.Close(), w.Close()))
	goroutines, fds := goruntime.NumGoroutine(), descriptors()
	st := &stress{seed: seed}
	start := func() *loop.Group {
		g, err := loop.StartGroup(loop.GroupOptions{Loops: 2, Loop: loop.LoopOptions{StallAfter: -1},
			New: func(int) (runtime.Runtime, error) { return factory(conformance.Wishes{}) }})
		require.NoError(t, err)
		return g
	}
	server, clients := start(), start()
	ls, err := server.Listen("127.0.0.1:0", loop.ListenOptions{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	srv := &tcp.Server{Handler: st.serve, Logger: slog.New(slog.DiscardHandler)}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, ls, srv) }()

	began := make([]client, conns)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 100 {
		lp := clients.Loop()
		wg.Go(func() {
			err := lp.Call(context.Background(), "client", func(ctx context.Context) error {
				for i := int(next.Add(1)) - 1; i < conns; i = int(next.Add(1)) - 1 {
					c := &began[i]
					*c = client{st: st, id: i, rand: rand.New(rand.NewPCG(seed, uint64(i)))}
					if err := c.run(ctx, lp, ls.Addr().String(), i%faults); err != nil {
						return fmt.Errorf("connection %d: %w", i, err)
					}
				}
				return nil
			})
			if err != nil {
				_ = st.fail("%w", err)
			}
		})
	}
	wg.Wait()
	cancel()
	require.NoError(t, <-served)
	require.NoError(t, clients.Stop())
	require.NoError(t, server.Stop(), "no buffer, task or mapping may be left")
	if err := st.wrong.Load(); err != nil {
		t.Fatal(*err)
	}
	st.compare(t, began)
	for f := range faults {
		require.GreaterOrEqual(t, st.counted[f].Load(), least, faultNames[f])
	}
	require.GreaterOrEqual(t, st.resets.Load(), least, "resets that the server saw")
	t.Logf("%d connections: %d half-closed, %d reset (%d seen by the server), %d cancelled, %d timed out", conns,
		st.counted[faultHalf].Load(), st.counted[faultReset].Load(), st.resets.Load(), st.counted[faultCancel].Load(), st.counted[faultLate].Load())
	require.EqualValues(t, conns, srv.Stats().Accepted)
	deadline := time.Now().Add(10 * time.Second)
	for goruntime.NumGoroutine() > goroutines || len(descriptors()) > len(fds) {
		if time.Now().After(deadline) {
			t.Fatalf("goroutines: %d before, now %d; descriptors: before %v, now %v", goroutines, goruntime.NumGoroutine(), fds, descriptors())
		}
		goruntime.Gosched()
	}
}

// compare compares what the server saw with what the clients sent.
func (st *stress) compare(t *testing.T, began []client) {
	for i := range began {
		c := &began[i]
		v, ok := st.ends.Load(c.id)
		if !ok && (i%faults == faultReset || c.sent.bytes == 0 && c.acked == 0) {
			require.Zero(t, c.acked)
			continue
		}
		require.True(t, ok, "connection %d (%s) never reached the server", i, faultNames[i%faults])
		if seen := v.(tally); i%faults == faultReset {
			require.GreaterOrEqual(t, seen.bytes, c.acked, "connection %d: acknowledged bytes are lost", i)
		} else {
			require.Equal(t, c.sent, seen, "connection %d (%s)", i, faultNames[i%faults])
		}
	}
}

// descriptors returns what each open descriptor refers to.
func descriptors() (open []string) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		to, _ := os.Readlink("/proc/self/fd/" + e.Name())
		open = append(open, e.Name()+"="+to)
	}
	return open
}
