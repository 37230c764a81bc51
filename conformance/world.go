package conformance

import (
	"io"
	"net"
	"net/netip"
	goruntime "runtime"
	"syscall"
	"time"

	"github.com/noria-go/noria/conformance/internal/require"
	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/runtime"
)

var key friend.Key // opens what only this module may call: see internal/friend

// A world is what a case works with: one Runtime, with a pool and peers. Only the
// case's goroutine may call its own methods; any goroutine may call those of the
// harness.
type world struct {
	*harness
	rt     runtime.Runtime
	pool   *runtime.Pool
	closed bool
}

// runOnRuntime starts a Runtime on a locked thread, runs a case with it, and closes it.
func runOnRuntime(h *harness, run func(c *world)) {
	goruntime.LockOSThread() // never unlocked: the thread ends with the case
	c := &world{harness: h}
	h.contain(func() {
		c.start()
		run(c)
	})
	h.cleanUp()
	h.contain(c.stop)
}

func (c *world) start() {
	rt, err := c.factory(c.wishes)
	require.NoError(c, err, "the factory")
	c.rt, c.pool = rt, runtime.NewPool(0)
	require.NoError(c, c.rt.Start(c.pool), "Start")
}

// stop closes what start has made, and looks for buffers that were not released.
func (c *world) stop() {
	if c.rt != nil && !c.closed {
		if err := c.closeRuntime(); err != nil {
			c.Errorf("Close: %v", err)
		}
	}
	if c.pool != nil {
		if err := c.pool.Close(); err != nil {
			c.Errorf("leak: %v", err)
		}
	}
}

// closeRuntime closes the Runtime before the case ends.
func (c *world) closeRuntime() error {
	c.closed = true
	return c.rt.Close()
}

// A rec is an operation that records its completions.
type rec struct {
	runtime.Op
	c         *world
	ends      int  // terminal completions, over all its submissions
	over      bool // the last submission has had its terminal completion
	delivered int
	data      []byte            // bytes that OpRecvMany delivered
	held      []*runtime.Buffer // the buffers of data, if keep is set
	keep      bool
	got       []runtime.Handle
	then      func() // called after each completion
}

// op makes an operation on h.
func (c *world) op(code runtime.OpCode, h runtime.Handle) *rec {
	r := &rec{c: c}
	r.Code, r.Handle = code, h
	r.Done = r.done
	return r
}

func (r *rec) done(op *runtime.Op) {
	if op != &r.Op {
		r.c.Errorf("%s: Done is called with another Op", r.Code)
	}
	switch {
	case r.over:
		r.c.Errorf("%s: a completion after the terminal one", r.Code)
	case op.More && op.Code == runtime.OpRecvMany:
		r.delivered++
		r.data = append(r.data, op.Buf.Bytes()...)
		if op.N != op.Buf.Len() || op.N == 0 {
			r.c.Errorf("recv-many delivers N %d with a buffer of %d bytes", op.N, op.Buf.Len())
		}
		if r.keep {
			r.held = append(r.held, op.Buf)
		} else {
			op.Buf.Release()
		}
	case op.More:
		r.delivered++
		r.got = append(r.got, op.Got)
	default:
		r.ends++
		r.over = true
		if op.Got != 0 {
			r.got = append(r.got, op.Got)
		}
	}
	if r.then != nil {
		r.then()
	}
}

// again submits r from r's own Done.
func (r *rec) again() {
	r.over = false
	r.c.rt.Submit(&r.Op)
}

// release releases the buffers that were kept.
func (r *rec) release() {
	for _, b := range r.held {
		b.Release()
	}
	r.held = nil
}

func (c *world) submit(ops ...*rec) {
	for _, r := range ops {
		before := r.ends
		r.over = false
		c.rt.Submit(&r.Op)
		require.Equal(c, before, r.ends, "Submit called Done")
		require.True(c, r.InFlight(), "the operation is not in flight after Submit")
	}
}

// poll polls once, and waits a millisecond at most.
func (c *world) poll() { require.NoError(c, c.rt.Poll(c.rt.Now()+int64(time.Millisecond)), "Poll") }

// until polls until ok.
func (c *world) until(what string, ok func() bool) {
	for deadline := time.Now().Add(c.limits.Wait); !ok(); c.poll() {
		require.True(c, time.Now().Before(deadline), "timed out waiting for %s", what)
	}
}

// wait polls until the operations have ended.
func (c *world) wait(ops ...*rec) {
	for _, r := range ops {
		c.until("the end of "+r.Code.String(), func() bool { return !r.InFlight() })
	}
}

// do submits r, waits for it and requires success.
func (c *world) do(r *rec) *rec {
	c.try(r)
	require.NoError(c, r.Err, r.Code.String())
	return r
}

// try submits r and waits for it.
func (c *world) try(r *rec) *rec {
	c.submit(r)
	c.wait(r)
	return r
}

// idle polls a few times, during which nothing more should happen.
func (c *world) idle() {
	for range 5 {
		c.poll()
	}
}

func (c *world) close(h runtime.Handle) { c.do(c.op(runtime.OpClose, h)) }

// buffer returns a buffer that holds p.
func (c *world) buffer(p []byte) *runtime.Buffer {
	b, err := c.pool.Get(max(1, len(p)))
	require.NoError(c, err)
	require.Equal(c, len(p), b.Append(p))
	return b
}

// room returns an empty buffer with room for n bytes.
func (c *world) room(n int) *runtime.Buffer {
	b, err := c.pool.Get(n)
	require.NoError(c, err)
	return b
}

var loopback = runtime.Addr{AddrPort: netip.MustParseAddrPort("127.0.0.1:0")}

// listen returns a listener and its address.
func (c *world) listen(opts runtime.ListenOptions) (runtime.Handle, runtime.Addr) {
	h, err := c.rt.Listen(loopback, opts)
	require.NoError(c, err)
	addr, err := c.rt.LocalAddr(h)
	require.NoError(c, err)
	require.NotZero(c, addr.AddrPort.Port())
	return h, addr
}

func (c *world) connect(addr runtime.Addr) *rec {
	r := c.op(runtime.OpConnect, 0)
	r.Addr = addr
	return r
}

// dial returns a plain connection to addr, which is closed when the case ends.
func (c *world) dial(addr runtime.Addr) *net.TCPConn {
	nc, err := net.Dial("tcp", addr.String())
	require.NoError(c, err)
	c.Defer(func() { _ = nc.Close() })
	return nc.(*net.TCPConn)
}

// pair returns a connection's handle and its peer, a plain connection.
func (c *world) pair() (runtime.Handle, *net.TCPConn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(c, err)
	defer ln.Close()
	h := c.do(c.connect(runtime.Addr{AddrPort: ln.Addr().(*net.TCPAddr).AddrPort()})).Got
	require.NotZero(c, h)
	peer, err := ln.Accept()
	require.NoError(c, err)
	c.Defer(func() { _ = peer.Close() })
	return h, peer.(*net.TCPConn)
}

// send sends all of p on h.
func (c *world) send(h runtime.Handle, p []byte) {
	b := c.buffer(p)
	defer b.Release()
	for skip := 0; skip < len(p); {
		r := c.op(runtime.OpSend, h)
		r.Buf, r.Skip = b, skip
		c.do(r)
		require.Positive(c, r.N)
		skip += r.N
	}
}

// write writes p to a peer.
func (c *world) write(peer io.Writer, p []byte) {
	_, err := peer.Write(p)
	require.NoError(c, err)
}

// expect reads p from a peer.
func (c *world) expect(peer net.Conn, p []byte) {
	require.NoError(c, peer.SetReadDeadline(time.Now().Add(c.limits.Wait)))
	got := make([]byte, len(p))
	_, err := io.ReadFull(peer, got)
	require.NoError(c, err)
	require.True(c, string(p) == string(got), "the peer got other bytes than were sent")
}

// expectEOF requires that the peer reads the end.
func (c *world) expectEOF(peer net.Conn) {
	require.NoError(c, peer.SetReadDeadline(time.Now().Add(c.limits.Wait)))
	n, err := peer.Read(make([]byte, 1))
	require.Zero(c, n)
	require.ErrorIs(c, err, io.EOF)
}

// expectEOFOrReset requires that the peer reads the end or a reset.
func (c *world) expectEOFOrReset(peer net.Conn) {
	require.NoError(c, peer.SetReadDeadline(time.Now().Add(c.limits.Wait)))
	_, err := peer.Read(make([]byte, 1))
	require.True(c, errorsIsAny(err, io.EOF, syscall.ECONNRESET), "%v", err)
}
