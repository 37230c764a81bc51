package conformance

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/noria-go/noria/conformance/internal/require"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

func loopServeCases() []testCase {
	return []testCase{
		{Name: "serve/echo", RunLoops: loopEcho},
		{Name: "serve/spread-is-even", RunLoops: loopSpread},
		{Name: "serve/unix", RunLoops: loopUnix},
		{Name: "serve/adopted-listener", RunLoops: loopAdopted},
		{Name: "rule11/second-group-refused", RunLoops: loopSecondGroup},
		{Name: "serve/drain-and-kill", RunLoops: loopDrain},
		{Name: "serve/listener-limit", RunLoops: loopUnaccepted},
		{Name: "serve/start-fails", RunLoops: loopStartFails},
		{Name: "dial/outcomes", RunLoops: loopDial},
		{Name: "file/all", RunLoops: loopFile},
		{Name: "trap/peers-that-stall", Wishes: Wishes{ReceiveBuffers: 16}, RunLoops: loopStalledPeers},
	}
}

// handlers is the smallest Service: a task for each connection. The end of ctx drains
// them.
type handlers struct {
	handle func(ctx context.Context, s *loop.Stream) error
	drain  time.Duration
	served atomic.Int64
}

func (h *handlers) Serve(ctx context.Context, ln *loop.Listener) error {
	var tasks []*loop.Task
	for {
		s, err := ln.Accept(ctx)
		if err != nil {
			break
		}
		h.served.Add(1)
		t, err := loop.Go(ctx, "connection", func(ctx context.Context) error {
			return errors.Join(h.handle(ctx, s), s.Close())
		})
		if err != nil {
			return err
		}
		tasks = append(tasks, t)
	}
	wctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.drain)
	defer cancel()
	for _, t := range tasks {
		if t.Wait(wctx) != nil && wctx.Err() != nil {
			break // the rest is killed
		}
	}
	return ctx.Err()
}

func echoHandler(_ context.Context, s *loop.Stream) error {
	_, err := io.Copy(s, s)
	return err
}

// serve starts svc on a listener. It returns the listener's address and a function that
// ends svc.
func (l *loopWorld) serve(g *loop.Group, address string, opts loop.ListenOptions, svc loop.Service) (addr net.Addr, stop func() error) {
	ls, err := g.Listen(address, opts)
	require.NoError(l, err)
	return ls.Addr(), l.serveOn(g, ls, svc)
}

func (l *loopWorld) serveOn(g *loop.Group, ls *loop.Listeners, svc loop.Service) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, ls, svc) }()
	return sync.OnceValue(func() error {
		cancel()
		return <-done
	})
}

// echo sends p to addr and requires p back.
func (l *loopWorld) echo(addr net.Addr, p []byte) {
	nc, err := net.Dial(addr.Network(), addr.String())
	require.NoError(l, err)
	defer nc.Close()
	require.NoError(l, nc.SetDeadline(time.Now().Add(l.limits.Wait)))
	_, err = nc.Write(p)
	require.NoError(l, err)
	l.expect(nc, p)
}

func loopEcho(l *loopWorld) {
	g := l.group(2)
	h := &handlers{handle: echoHandler, drain: time.Second}
	addr, stop := l.serve(g, "127.0.0.1:0", loop.ListenOptions{}, h)
	var wg sync.WaitGroup
	for i := range 50 {
		p := l.pattern(1 + i*1000)
		l.bg(&wg, func() { l.echo(addr, p) })
	}
	wg.Wait()
	require.NoError(l, stop())
	require.Equal(l, 50, h.served.Load())
	_, err := net.Dial("tcp", addr.String())
	require.ErrorIs(l, err, syscall.ECONNREFUSED, "the listeners are closed")
}

func loopSpread(l *loopWorld) {
	g := l.group(3)
	var mu sync.Mutex
	counts := map[*loop.Loop]int{}
	h := &handlers{drain: time.Second, handle: func(ctx context.Context, s *loop.Stream) error {
		mu.Lock()
		counts[s.Loop()]++
		mu.Unlock()
		return echoHandler(ctx, s)
	}}
	addr, stop := l.serve(g, "127.0.0.1:0", loop.ListenOptions{Spread: true}, h)
	for range 30 {
		l.echo(addr, []byte("x"))
	}
	require.NoError(l, stop())
	for _, lp := range g.Loops() {
		require.Equal(l, 10, counts[lp], "of each loop")
	}
}

func (l *loopWorld) tempDir() string {
	dir, err := os.MkdirTemp("", "noria")
	require.NoError(l, err)
	l.Defer(func() { _ = os.RemoveAll(dir) })
	return dir
}

func loopUnix(l *loopWorld) {
	path := filepath.Join(l.tempDir(), "s")
	g := l.group(2)
	for _, address := range []string{"unix:" + path, "unix:@noria-" + filepath.Base(filepath.Dir(path))} {
		addr, stop := l.serve(g, address, loop.ListenOptions{}, &handlers{handle: echoHandler, drain: time.Second})
		l.echo(addr, l.pattern(100000))
		lp := g.Loops()[1]
		l.call(lp, func(ctx context.Context) {
			s, err := lp.Friend(key).Dial(ctx, address, loop.DialOptions{})
			require.NoError(l, err)
			defer s.Close()
			_, err = s.Write([]byte("hello"))
			require.NoError(l, err)
			l.expect(s, []byte("hello"))
		})
		_, err := g.Listen(address, loop.ListenOptions{})
		require.ErrorIs(l, err, syscall.EADDRINUSE)
		require.NoError(l, stop())
	}
}

func loopAdopted(l *loopWorld) {
	g := l.group(2)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(l, err)
	ls, err := g.AdoptListener(ln, loop.ListenOptions{})
	require.NoError(l, err)
	require.Equal(l, ln.Addr().String(), ls.Addr().String())
	stop := l.serveOn(g, ls, &handlers{handle: echoHandler, drain: time.Second})
	for range 4 {
		l.echo(ls.Addr(), l.pattern(5000))
	}
	require.NoError(l, stop())
	_, err = g.AdoptListener(struct{ net.Listener }{}, loop.ListenOptions{})
	require.ErrorIs(l, err, errors.ErrUnsupported)
}

func loopSecondGroup(l *loopWorld) {
	for _, loops := range []int{1, 2} {
		first, second := l.group(loops), l.group(loops)
		ls, err := first.Listen("127.0.0.1:0", loop.ListenOptions{})
		require.NoError(l, err)
		_, err = second.Listen(ls.Addr().String(), loop.ListenOptions{})
		require.ErrorIs(l, err, syscall.EADDRINUSE, "%d loops", loops)
		require.ErrorContains(l, err, ls.Addr().String())
		require.NoError(l, ls.Close())

		ls, err = first.Listen("127.0.0.1:0", loop.ListenOptions{Share: true})
		require.NoError(l, err)
		also, err := second.Listen(ls.Addr().String(), loop.ListenOptions{Share: true})
		require.NoError(l, err, "the options ask for sharing")
		require.NoError(l, also.Close())
		require.NoError(l, ls.Close())
	}
}

// loopDrain: handlers that end in time end well; the rest are killed.
func loopDrain(l *loopWorld) {
	g := l.group(2)
	var started sync.WaitGroup
	var finished, killed atomic.Int32
	started.Add(2)
	h := &handlers{drain: 300 * time.Millisecond, handle: func(ctx context.Context, s *loop.Stream) error {
		kind := make([]byte, 1)
		if _, err := io.ReadFull(s, kind); err != nil {
			return err
		}
		started.Done()
		if kind[0] == 'w' { // works for a while after the end of ctx, and then says goodbye
			for ctx.Err() == nil {
				_ = loop.Sleep(ctx, time.Millisecond)
			}
			_, err := s.Write([]byte("goodbye"))
			finished.Add(1)
			return err
		}
		_, err := s.Read(kind)
		if errors.Is(err, runtime.ErrCanceled) {
			killed.Add(1)
		}
		return err
	}}
	addr, stop := l.serve(g, "127.0.0.1:0", loop.ListenOptions{Spread: true}, h)
	var peers []net.Conn
	for _, kind := range []string{"w", "h"} {
		nc, err := net.Dial("tcp", addr.String())
		require.NoError(l, err)
		defer nc.Close()
		require.NoError(l, nc.SetDeadline(time.Now().Add(l.limits.Wait)))
		_, err = nc.Write([]byte(kind))
		require.NoError(l, err)
		peers = append(peers, nc)
	}
	started.Wait()
	start := time.Now()
	require.NoError(l, stop())
	require.GreaterOrEqual(l, time.Since(start), 300*time.Millisecond)
	l.expect(peers[0], []byte("goodbye"))
	require.Equal(l, 1, finished.Load())
	require.Equal(l, 1, killed.Load())
}

// loopUnaccepted: connections that no task accepts wait, first in the listener and then
// in the kernel. None is lost.
func loopUnaccepted(l *loopWorld) {
	const n = 400 // more than the listener takes in advance
	lp := l.loop()
	var peers []net.Conn
	l.Defer(func() {
		for _, p := range peers {
			_ = p.Close()
		}
	})
	l.call(lp, func(ctx context.Context) {
		ln, err := lp.Friend(key).Listen(loopback, runtime.ListenOptions{}, loop.StreamOptions{})
		require.NoError(l, err)
		defer ln.Close()
		accept := func() {
			s, err := ln.Accept(ctx)
			require.NoError(l, err)
			require.NoError(l, s.Close())
		}
		l.off(ctx, func() {
			for range n {
				nc, err := net.Dial("tcp", ln.Addr().String())
				require.NoError(l, err)
				peers = append(peers, nc)
			}
		})
		accept()
		require.NoError(l, loop.Sleep(ctx, 10*time.Millisecond))
		for range n - 11 {
			accept()
		}
	}) // Close has to close the last ten
}

// loopStartFails: if one loop of a group cannot start, the group returns an error and
// stops its other loops.
func loopStartFails(l *loopWorld) {
	for _, broken := range []int{0, 2} {
		_, err := loop.StartGroup(loop.GroupOptions{Loops: 3, Loop: l.options(), New: func(i int) (runtime.Runtime, error) {
			rt, err := l.factory(l.wishes)
			if i == broken {
				rt = refusesStart{rt}
			}
			return rt, err
		}})
		require.ErrorIs(l, err, errRefused)
		_, err = loop.StartGroup(loop.GroupOptions{Loops: 3, Loop: l.options(), New: func(i int) (runtime.Runtime, error) {
			if i == broken {
				return nil, errRefused
			}
			return l.factory(l.wishes)
		}})
		require.ErrorIs(l, err, errRefused)
	}
}

var errRefused = errors.New("refused")

type refusesStart struct{ runtime.Runtime }

func (refusesStart) Start(*runtime.Pool) error { return errRefused }

func loopDial(l *loopWorld) {
	lp := l.loop()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(l, err)
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	require.NoError(l, err)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(l, err)
	require.NoError(l, gone.Close())
	l.call(lp, func(ctx context.Context) {
		// By number, and by names, which may also have an address without a listener.
		for _, host := range []string{"127.0.0.1", "localhost", ""} {
			s, err := lp.Friend(key).Dial(ctx, net.JoinHostPort(host, port), loop.DialOptions{Timeout: l.limits.Wait})
			require.NoError(l, err, "host %q", host)
			require.Equal(l, ln.Addr().String(), s.RemoteAddr().String())
			require.NoError(l, s.Close())
		}
		_, err := lp.Friend(key).Dial(ctx, gone.Addr().String(), loop.DialOptions{})
		require.ErrorIs(l, err, syscall.ECONNREFUSED)
		require.ErrorContains(l, err, "dial "+gone.Addr().String())
		for _, address := range []string{"", "nonsense", "1.2.3.4:99999", "unix:", "unix:/nowhere/at/all"} {
			_, err := lp.Friend(key).Dial(ctx, address, loop.DialOptions{Timeout: time.Second})
			require.Error(l, err, address)
		}
		failing := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errRefused }}
		_, err = lp.Friend(key).Dial(ctx, "some.name.invalid:80", loop.DialOptions{Resolver: failing})
		var dns *net.DNSError
		require.ErrorAs(l, err, &dns)
		hanging := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		_, err = lp.Friend(key).Dial(ctx, "some.name.invalid:80", loop.DialOptions{Resolver: hanging, Timeout: 20 * time.Millisecond})
		require.Error(l, err)
		loopDialFull(l, lp, ctx)
	})
	_, err = lp.Friend(key).Dial(context.Background(), ln.Addr().String(), loop.DialOptions{})
	require.ErrorIs(l, err, loop.ErrOffLoop)
}

// loopDialFull dials a listener whose queue is full, so that no answer arrives. The
// dial ends by timeout, by a foreign context, and by a kill.
func loopDialFull(l *loopWorld, lp *loop.Loop, ctx context.Context) {
	ln, err := lp.Friend(key).Listen(loopback, runtime.ListenOptions{Backlog: 1}, loop.StreamOptions{})
	require.NoError(l, err)
	defer ln.Close()
	address := ln.Addr().String()
	var filled []*loop.Stream
	defer func() {
		for _, s := range filled {
			_ = s.Close()
		}
	}()
	for {
		s, err := lp.Friend(key).Dial(ctx, address, loop.DialOptions{Timeout: 50 * time.Millisecond})
		if err != nil {
			require.ErrorIs(l, err, os.ErrDeadlineExceeded)
			break
		}
		filled = append(filled, s)
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	_, err = lp.Friend(key).Dial(short, address, loop.DialOptions{})
	var ne net.Error
	require.True(l, errors.As(err, &ne) && ne.Timeout(), "%v", err)
	cctx, ccancel := context.WithCancel(context.Background())
	task, err := loop.Go(ctx, "dials", func(context.Context) error {
		_, err := lp.Friend(key).Dial(cctx, address, loop.DialOptions{})
		return err
	})
	require.NoError(l, err)
	require.NoError(l, loop.Sleep(ctx, time.Millisecond))
	ccancel()
	require.ErrorIs(l, task.Wait(ctx), context.Canceled, "a foreign context ends while the kernel connects")
	task, err = loop.Go(ctx, "dials", func(ctx context.Context) error {
		_, err := lp.Friend(key).Dial(ctx, address, loop.DialOptions{})
		_, again := lp.Friend(key).Dial(ctx, address, loop.DialOptions{})
		require.ErrorIs(l, again, runtime.ErrCanceled, "a dial that begins after the kill")
		return err
	})
	require.NoError(l, err)
	require.NoError(l, loop.Sleep(ctx, time.Millisecond))
	task.Cancel(true)
	require.ErrorIs(l, task.Wait(ctx), runtime.ErrCanceled)
}

func loopFile(l *loopWorld) {
	path := filepath.Join(l.tempDir(), "f")
	lp := l.loop()
	data := l.pattern(300 << 10)
	l.call(lp, func(ctx context.Context) {
		_, err := lp.Open(ctx, path, os.O_RDONLY, 0)
		require.ErrorIs(l, err, os.ErrNotExist)
		require.ErrorContains(l, err, path)
		f, err := lp.Open(ctx, path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o640)
		require.NoError(l, err)
		require.NoError(l, f.Allocate(ctx, 0, 1<<20))
		b, err := lp.Pool().Friend(key).Copy(0, data)
		require.NoError(l, err)
		n, err := f.WriteAt(ctx, b, 1000)
		require.NoError(l, err)
		require.Equal(l, len(data), n)
		require.NoError(l, f.Datasync(ctx))
		require.NoError(l, f.Sync(ctx))
		b.Reset(0)
		for b.Len() < len(data) {
			_, err := f.ReadAt(ctx, b, 1000+int64(b.Len()))
			require.NoError(l, err)
		}
		require.True(l, string(data) == string(b.Bytes()[:len(data)]))
		b.Reset(0)
		_, err = f.ReadAt(ctx, b, 1<<20)
		require.Equal(l, io.EOF, err)
		b.Release()
		require.NoError(l, f.Close())
		require.ErrorIs(l, f.Sync(ctx), net.ErrClosed)
	})
	st, err := os.Stat(path)
	require.NoError(l, err)
	require.Equal(l, 1<<20, st.Size())
}

// loopStalledPeers: a thousand peers never read, and a thousand stop in the middle of a
// message. Meanwhile another connection's echo works, with few receive buffers.
func loopStalledPeers(l *loopWorld) {
	const each = 1000
	g := l.group(2)
	h := &handlers{drain: 0, handle: func(ctx context.Context, s *loop.Stream) error {
		kind := make([]byte, 1)
		if _, err := io.ReadFull(s, kind); err != nil {
			return err
		}
		switch kind[0] {
		case 'e':
			return echoHandler(ctx, s)
		case 'h': // holds the bytes that have arrived, and waits for the rest
			b, err := s.ReadBuf()
			if err != nil {
				return err
			}
			defer b.Release()
			more, err := s.ReadBuf()
			if err == nil {
				more.Release()
			}
			return err
		default: // sends to a peer that does not read
			// Otherwise the kernel would take megabytes for each connection.
			if err := s.Friend(key).SetOption(runtime.OptSendBuffer, 16<<10); err != nil {
				return err
			}
			for {
				if _, err := s.Write(make([]byte, 64<<10)); err != nil {
					return err
				}
			}
		}
	}}
	addr, stop := l.serve(g, "127.0.0.1:0", loop.ListenOptions{Stream: loop.StreamOptions{Linger: -1}}, h)
	var peers []net.Conn
	defer func() {
		for _, p := range peers {
			_ = p.Close()
		}
		_ = stop()
	}()
	for i := range 2 * each {
		nc, err := net.Dial("tcp", addr.String())
		require.NoError(l, err)
		peers = append(peers, nc)
		_ = nc.(*net.TCPConn).SetReadBuffer(4 << 10)
		_, err = nc.Write([]byte([]string{"h...", "w"}[i%2]))
		require.NoError(l, err)
	}
	l.soon("the peers to be served", func() bool { return h.served.Load() == 2*each })
	nc, err := net.Dial("tcp", addr.String())
	require.NoError(l, err)
	defer nc.Close()
	_, err = nc.Write([]byte("e"))
	require.NoError(l, err)
	p := l.pattern(50 << 10)
	for i := range 200 {
		require.NoError(l, nc.SetDeadline(time.Now().Add(l.limits.Wait)))
		_, err := nc.Write(p)
		require.NoError(l, err)
		l.expect(nc, p)
		p[0] = byte(i)
	}
	for _, lp := range g.Loops() {
		st, err := lp.Friend(key).Stats()
		require.NoError(l, err)
		require.Less(l, st.Pool.Mapped, int64(512<<20), "of each loop")
	}
}
