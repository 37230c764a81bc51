package ws_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws"
)

// TestStress lets both ends of connections do everything at once, at random: send from
// tasks and goroutines in every way, receive in every way, ping, run out of memory, and end
// in one of seven ways. Each message has its sender, its number and its content encoded, so
// that the test sees messages that are lost, changed or out of order. After each round
// nothing may be left: no buffer, task, descriptor, goroutine or byte of a Budget.
func TestStress(t *testing.T) {
	seed := backendtest.Seed(t)
	rounds := 30
	if testing.Short() {
		rounds = 3
	}
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for round := range rounds {
			t.Run(strconv.Itoa(round), func(t *testing.T) { newStress(seed+uint64(round)).run(t, v) })
		}
	})
}

// A stress is one round.
type stress struct {
	seed   uint64
	srv    *ws.Server
	client ws.DialOptions
	scheme string
	starve bool
	end    int           // the way in which the round ends
	after  time.Duration // when it ends
	budget *ws.Budget
	seen   arrivals
	gos    sync.WaitGroup // goroutines that send and ping
}

func (s *stress) rand(salt uint64) *rand.Rand { return rand.New(rand.NewPCG(s.seed, salt)) }

func newStress(seed uint64) *stress {
	s := &stress{seed: seed, srv: echoServer(), budget: ws.NewBudget(500_000), scheme: "ws://", seen: arrivals{next: map[int]int{}}}
	r := s.rand(0)
	srv := s.srv
	srv.Budget, srv.MaxMessage, srv.PingInterval, srv.PongTimeout = s.budget, 8<<20, 5*time.Second, 5*time.Second
	srv.CloseTimeout, srv.DrainTime, srv.DrainSpread = 300*time.Millisecond, 2*time.Second, -1
	srv.SendQueue = []int{1, 20_000, 0}[r.IntN(3)]
	srv.Policy = []ws.Policy{ws.PolicyWait, ws.PolicyWait, ws.PolicyDisconnect}[r.IntN(3)]
	srv.OnGoroutine = r.IntN(3) == 0
	if r.IntN(2) == 0 {
		srv.Compression = &ws.Compression{}
	}
	s.client.Options = ws.Options{CloseTimeout: srv.CloseTimeout, Logger: srv.Logger, Budget: s.budget, MaxMessage: srv.MaxMessage, Compression: srv.Compression}
	if r.IntN(2) == 0 {
		s.scheme = "wss://"
		srv.TLS, s.client.TLS = tlsConfigs()
	}
	s.starve, s.end, s.after = r.IntN(3) == 0, r.IntN(7), time.Duration(30+r.IntN(100))*time.Millisecond
	return s
}

func (s *stress) run(t *testing.T, v backendtest.Variant) {
	about := fmt.Sprintf("seed %d, %s, end %d, starve %v, policy %d, queue %d, compression %v, OnGoroutine %v",
		s.seed, s.scheme, s.end, s.starve, s.srv.Policy, s.srv.SendQueue, s.srv.Compression != nil, s.srv.OnGoroutine)
	g := backendtest.Group(t, v, 2)
	conns := make(chan *ws.Conn, 1)
	s.srv.Handler = func(ctx context.Context, c *ws.Conn) error {
		conns <- c
		return s.drive(ctx, c, 1000, !s.srv.OnGoroutine)
	}
	addr, stop := serveUntil(t, g, s.srv)
	var rerr error
	err := g.Loops()[1].Call(context.Background(), "client", func(ctx context.Context) error {
		c, err := ws.Dial(ctx, s.scheme+addr, s.client)
		if err != nil {
			return err
		}
		defer time.AfterFunc(s.after, func() { s.finish(<-conns, c, stop) }).Stop()
		rerr = s.drive(ctx, c, 2000, true)
		_ = c.Close(ws.StatusNormalClosure, "") // it may be closed already
		return nil
	})
	if !s.starve { // the handshake needs memory too
		require.NoError(t, err, about)
	}
	all := make(chan struct{})
	go func() { s.gos.Wait(); close(all) }()
	select {
	case <-all:
	case <-time.After(patience):
		t.Fatalf("%s: a call still waits; the client has ended with %v", about, rerr)
	}
	require.Eventually(t, func() bool { return s.srv.Stats().Active == 0 && s.budget.Used() == 0 }, patience, time.Millisecond,
		"%s: %d bytes are left in the Budget", about, s.budget.Used())
	require.Empty(t, s.seen.errs, about)
}

// finish ends the round.
func (s *stress) finish(server, client *ws.Conn, stop func()) {
	switch s.end {
	case 0:
		_ = server.Close(4001, "server")
	case 1:
		_ = server.CloseNow()
	case 2:
		stop()
	case 3:
		_ = client.Close(4002, "client")
	case 4:
		_ = client.CloseNow()
	case 5:
		s.gos.Go(func() { _ = server.Close(4001, "server") })
		_ = client.Close(4002, "client")
	case 6:
		s.gos.Go(func() { _ = server.Close(4001, "server") })
		stop()
	}
}

// drive does everything at once on one end, until nothing more can be received.
func (s *stress) drive(ctx context.Context, c *ws.Conn, id int, onLoop bool) error {
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	if s.starve {
		r := s.rand(uint64(id) + 1)
		s.gos.Go(func() {
			_ = c.Loop().Call(own, "starves", func(ctx context.Context) error {
				for pause(ctx, 200) == nil {
					restore := exhaust(c.Loop().Pool())
					_ = pause(ctx, 1+r.IntN(5))
					restore()
				}
				return nil
			})
		})
	}
	for i := range 4 {
		r := s.rand(uint64(id + 10 + i))
		send := func(ctx context.Context) error { return stressSend(ctx, c, r, id+i) }
		if i < 2 && onLoop {
			_, _ = loop.Go(ctx, "sends", send) // fails if the connection is ending
		} else {
			s.gos.Go(func() { _ = send(context.Background()) })
		}
	}
	r := s.rand(uint64(id + 20))
	if onLoop {
		_, _ = loop.Go(ctx, "pings", func(ctx context.Context) error { return stressPing(ctx, c, r) })
	}
	r2 := s.rand(uint64(id + 21))
	s.gos.Go(func() { _ = stressPing(context.Background(), c, r2) })
	return s.seen.receive(own, c, s.rand(uint64(id+30)), onLoop)
}

// pause lets other tasks run for some turns, if it is called in a task.
func pause(ctx context.Context, turns int) error {
	for range turns {
		if loop.TaskOf(ctx) == nil {
			return nil
		}
		if err := loop.Yield(ctx); err != nil {
			return err
		}
	}
	return nil
}

func stressMessage(sender, seq, n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d:%d:%d:", sender, seq, n)
	for i := range n {
		b.WriteByte(byte('a' + (sender+seq+i/7)%26))
	}
	return b.String()
}

func stressSize(r *rand.Rand) int {
	switch r.IntN(60) {
	case 0:
		return 1_000_000 + r.IntN(2_000_000)
	case 1, 2, 3, 4, 5, 6:
		return r.IntN(250_000)
	case 7, 8, 9, 10, 11, 12, 13, 14, 15, 16:
		return r.IntN(20_000)
	}
	return r.IntN(600)
}

// stressSend sends in all ways, until that fails.
func stressSend(ctx context.Context, c *ws.Conn, r *rand.Rand, sender int) error {
	for seq := 0; ; seq++ {
		msg := stressMessage(sender, seq, stressSize(r))
		var err error
		switch r.IntN(5) {
		case 0:
			err = c.Send(ctx, ws.NewMessage(ws.TypeText, []byte(msg)))
		case 1:
			err = c.SendPrepared(ctx, ws.Prepare(ws.TypeText, []byte(msg)))
		case 2:
			err = stressWrite(ctx, c, r, []byte(msg))
		default:
			err = c.SendText(ctx, msg)
		}
		if err == nil && r.IntN(20) == 0 {
			err = pause(ctx, r.IntN(50))
		}
		if err != nil {
			return err
		}
	}
}

func stressWrite(ctx context.Context, c *ws.Conn, r *rand.Rand, msg []byte) error {
	w, err := c.NextWriter(ctx, ws.TypeText)
	if err != nil {
		return err
	}
	for len(msg) > 0 && err == nil {
		n := min(len(msg), 1+r.IntN(30_000))
		_, err = w.Write(msg[:n])
		msg = msg[n:]
		if r.IntN(3) == 0 && err == nil {
			err = w.Flush()
		}
	}
	return errors.Join(err, w.Close())
}

func stressPing(ctx context.Context, c *ws.Conn, r *rand.Rand) error {
	for {
		pctx, cancel := context.WithTimeout(ctx, time.Duration(1+r.IntN(20))*time.Millisecond)
		_, err := c.Ping(pctx)
		cancel()
		passing := err == nil || errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil || errors.Is(err, runtime.ErrBusy) || errors.Is(err, runtime.ErrNoBuffers)
		if !passing || errors.Is(err, ws.ErrAbnormalClosure) {
			return err
		}
		if err := pause(ctx, r.IntN(50)); err != nil {
			return err
		}
	}
}

// arrivals record the messages that have arrived, at both ends.
type arrivals struct {
	mu   sync.Mutex
	next map[int]int // the next number of each sender
	errs []string
}

// got checks and records a message, or its beginning.
func (a *arrivals) got(p string, whole bool) {
	var sender, seq, n int
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, err := fmt.Sscanf(p, "%d:%d:%d:", &sender, &seq, &n); err != nil {
		a.errs = append(a.errs, fmt.Sprintf("%.60q: %v", p, err))
		return
	}
	if want := a.next[sender]; seq != want {
		a.errs = append(a.errs, fmt.Sprintf("sender %d: message %d, want %d", sender, seq, want))
	}
	a.next[sender] = seq + 1
	full := stressMessage(sender, seq, n)
	if whole && p != full || !strings.HasPrefix(full, p) {
		a.errs = append(a.errs, fmt.Sprintf("sender %d, message %d: %d bytes are not the %d that were sent", sender, seq, len(p), len(full)))
	}
}

// receive receives in all ways, until that fails.
func (a *arrivals) receive(ctx context.Context, c *ws.Conn, r *rand.Rand, onLoop bool) error {
	for {
		way := r.IntN(6)
		if way >= 4 && !onLoop {
			way = 0
		}
		if err := a.receiveOne(ctx, c, r, way); err != nil {
			switch ws.CloseStatus(err) { // codes with which one end says that the other is wrong
			case ws.StatusProtocolError, ws.StatusInvalidPayload, ws.StatusMessageTooBig:
				a.mu.Lock()
				defer a.mu.Unlock()
				a.errs = append(a.errs, err.Error())
			}
			return err
		}
	}
}

func (a *arrivals) receiveOne(ctx context.Context, c *ws.Conn, r *rand.Rand, way int) error {
	var m *ws.Message
	var rd *ws.Reader
	var err error
	switch way {
	case 0:
		m, err = c.Receive(ctx)
	case 1:
		rctx, cancel := context.WithTimeout(ctx, time.Duration(r.IntN(3))*time.Millisecond)
		m, err = c.Receive(rctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			err = nil
		}
	case 4:
		if _, err = loop.WaitAny(ctx, c.Readable()); err == nil {
			m, err = c.TryReceive()
		}
	case 5:
		if _, err = loop.WaitAny(ctx, c.Readable()); err != nil {
			return err
		}
		_, rd, err = c.NextReader(ctx)
	default:
		_, rd, err = c.NextReader(ctx)
	}
	switch {
	case m != nil:
		a.got(string(m.Bytes()), true)
		m.Release()
	case rd != nil && way == 3: // only its beginning
		p := make([]byte, 40)
		var n int
		if n, err = io.ReadFull(rd, p); err == nil || err == io.ErrUnexpectedEOF {
			a.got(string(p[:n]), err != nil)
			err = nil
		}
	case rd != nil:
		var b bytes.Buffer
		if _, err = io.Copy(writerFunc(func(p []byte) (int, error) {
			_ = pause(ctx, way&1)
			return b.Write(p)
		}), rd); err == nil {
			a.got(b.String(), true)
		}
	}
	return err
}
