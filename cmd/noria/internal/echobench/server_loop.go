package echobench

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	goruntime "runtime"

	"github.com/noria-go/noria"
	"github.com/noria-go/noria/examples/gobwas/echo"
	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/tcp"
	"github.com/noria-go/noria/ws"
)

// startLoop starts one loop.
func startLoop(backend string) (*loop.Group, error) {
	return noria.Start(noria.Options{Backend: backend, Loops: 1})
}

func describe(g *loop.Group) string {
	return fmt.Sprintf("%s, one loop, GOMAXPROCS %d", g.Info().Backend, goruntime.GOMAXPROCS(0))
}

// serveTasks serves with a task for each connection, as a user of Noria does.
func serveTasks(backend string, service loop.Service) (hello, error) {
	g, err := startLoop(backend)
	if err != nil {
		return hello{}, err
	}
	ls, err := g.Listen(listenAddress, loop.ListenOptions{})
	if err != nil {
		return hello{}, err
	}
	go func() { giveUp(g.Serve(context.Background(), ls, service)) }()
	return hello{Address: ls.Addr().String(), Detail: describe(g)}, nil
}

// tcpEcho returns the server that a user of Noria writes.
func tcpEcho() loop.Service {
	return &tcp.Server{Handler: func(_ context.Context, c *loop.Stream) error {
		_, err := io.Copy(c, c)
		return err
	}}
}

// maxMessage is the largest WebSocket message in bytes.
const maxMessage = 64 << 20

// wsEcho returns the same for WebSocket.
func wsEcho() loop.Service {
	return &ws.Server{Options: ws.Options{MaxMessage: maxMessage}, Handler: func(ctx context.Context, c *ws.Conn) error {
		for {
			m, err := c.Receive(ctx)
			if err != nil {
				return err
			}
			if err := c.Send(ctx, m); err != nil {
				return err
			}
		}
	}}
}

// adapterEcho returns a server of gobwas/ws over compat.GrowableSyncStream.
func adapterEcho() loop.Service { return echo.Server(echo.Options{MaxMessage: maxMessage}) }

// giveUp ends the process after an error of the server.
func giveUp(err error) {
	fmt.Fprintln(os.Stderr, "bench-server:", err)
	os.Exit(1)
}

// serveCallbacks serves with the least that an echo on a Runtime can be. It uses no
// tasks and no streams, and not even the loop's turns: it posts a function that
// never returns and calls Poll itself. The difference between it and serveTasks is
// the cost of a task.
func serveCallbacks(backend string) (hello, error) {
	// The watchdog would report the posted function.
	g, err := noria.Start(noria.Options{Backend: backend, Loops: 1, Loop: loop.LoopOptions{StallAfter: -1}})
	if err != nil {
		return hello{}, err
	}
	type started struct {
		addr runtime.Addr
		err  error
	}
	ready := make(chan started, 1)
	rt := g.Loops()[0].Friend(friend.Key{}).Runtime()
	err = g.Loops()[0].Post(func() {
		s := &callbackServer{rt: rt}
		addr, err := s.listen()
		ready <- started{addr, err}
		for err == nil {
			err = rt.Poll(runtime.Forever)
		}
		giveUp(err)
	})
	if err != nil {
		return hello{}, err
	}
	st := <-ready
	return hello{Address: st.addr.String(), Detail: describe(g) + ", callbacks"}, st.err
}

type callbackServer struct {
	rt     runtime.Runtime
	accept runtime.Op
}

func (s *callbackServer) listen() (runtime.Addr, error) {
	h, err := s.rt.Listen(runtime.Addr{AddrPort: netip.MustParseAddrPort(listenAddress)}, runtime.ListenOptions{})
	if err != nil {
		return runtime.Addr{}, err
	}
	s.accept = runtime.Op{Code: runtime.OpAcceptMany, Handle: h, Done: s.accepted}
	s.rt.Submit(&s.accept)
	return s.rt.LocalAddr(h)
}

func (s *callbackServer) accepted(op *runtime.Op) {
	if !op.More {
		giveUp(op.Err)
	}
	c := &callbackConn{rt: s.rt}
	c.recv = runtime.Op{Code: runtime.OpRecvMany, Handle: op.Got, Done: c.received}
	c.send = runtime.Op{Code: runtime.OpSend, Handle: op.Got, Done: c.sent}
	s.rt.Submit(&c.recv)
}

// A callbackConn sends back each buffer that it receives, one at a time.
type callbackConn struct {
	rt      runtime.Runtime
	recv    runtime.Op
	send    runtime.Op
	closing runtime.Op
	waiting []*runtime.Buffer // to be sent after the current one
	ended   bool
}

func (c *callbackConn) received(op *runtime.Op) {
	switch {
	case !op.More:
		c.ended = true
		c.closeIfDone()
	case c.send.InFlight():
		c.waiting = append(c.waiting, op.Buf)
	default:
		c.start(op.Buf)
	}
}

func (c *callbackConn) start(b *runtime.Buffer) {
	c.send.Buf, c.send.Skip = b, 0
	c.rt.Submit(&c.send)
}

func (c *callbackConn) sent(op *runtime.Op) {
	if op.Err == nil {
		if op.Skip += op.N; op.Skip < op.Buf.Len() {
			c.rt.Submit(op)
			return
		}
	}
	op.Buf.Release()
	op.Buf = nil
	if op.Err != nil {
		for _, b := range c.waiting {
			b.Release()
		}
		c.waiting, c.ended = nil, true
	}
	if len(c.waiting) > 0 {
		next := c.waiting[0]
		c.waiting = append(c.waiting[:0], c.waiting[1:]...)
		c.start(next)
		return
	}
	c.closeIfDone()
}

func (c *callbackConn) closeIfDone() {
	if c.ended && !c.send.InFlight() && c.closing.Code == 0 {
		c.closing = runtime.Op{Code: runtime.OpClose, Handle: c.recv.Handle, Done: func(*runtime.Op) {}}
		c.rt.Submit(&c.closing)
	}
}
