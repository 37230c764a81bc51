package conformance

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	goruntime "runtime"
	"syscall"

	"github.com/noria-go/noria/conformance/internal/require"
	"github.com/noria-go/noria/runtime"
)

func submitCases() []testCase {
	return []testCase{
		{Name: "rule01/submit-never-completes", Run: submitNeverCompletes},
		{Name: "rule01/what-is-wrong-becomes-the-result", Run: wrongArguments},
		{Name: "rule01/one-terminal-completion", Run: oneTerminal},
		{Name: "rule01/buffer-is-lent-and-comes-back", Run: bufferLent},
		{Name: "rule01/op-is-reused-from-done", Run: reuseFromDone},
		{Name: "rule01/cancel-of-what-is-not-in-flight", Run: cancelIdle},
		{Name: "rule01/cancel-ends-once", Run: cancelOnce},
		{Name: "rule10/errors", Run: errorsWrap},
		{Name: "rule09/garbage-collector", Run: collector},
	}
}

func submitNeverCompletes(c *world) {
	h, _ := c.pair()
	var ops []*rec
	for _, code := range []runtime.OpCode{runtime.OpNop, runtime.OpRecv, runtime.OpSend, runtime.OpShutdown, runtime.OpPoll} {
		r := c.op(code, h)
		switch code {
		case runtime.OpRecv:
			r.Buf = c.room(10)
		case runtime.OpSend:
			r.Buf = c.buffer([]byte("x"))
		case runtime.OpShutdown:
			r.Flags = runtime.DirWrite
		case runtime.OpPoll:
			r.Flags = runtime.DirWrite
		}
		c.submit(r) // submit checks this
		ops = append(ops, r)
	}
	for _, r := range ops {
		c.rt.Cancel(&r.Op)
		require.True(c, r.InFlight() && r.ends == 0, "Cancel called Done")
	}
	c.wait(ops...)
	for _, r := range ops {
		if r.Buf != nil {
			r.Buf.Release()
		}
	}
}

func wrongArguments(c *world) {
	h, _ := c.pair()
	full := c.room(512)
	full.Extend(full.Friend(key).Cap())
	defer full.Release()
	short := c.buffer([]byte("abc"))
	defer short.Release()
	many := make([]*runtime.Buffer, runtime.MaxVec+1)
	shared := runtime.NewShared([]byte("x"))
	for i := range many {
		many[i] = shared
	}
	for name, make := range map[string]func() *rec{
		"no room":         func() *rec { r := c.op(runtime.OpRecv, h); r.Buf = full; return r },
		"no buffer":       func() *rec { return c.op(runtime.OpSend, h) },
		"skip too far":    func() *rec { r := c.op(runtime.OpSend, h); r.Buf, r.Skip = short, 4; return r },
		"no buffers":      func() *rec { return c.op(runtime.OpSendVec, h) },
		"too many":        func() *rec { r := c.op(runtime.OpSendVec, h); r.Bufs = many; return r },
		"no address":      func() *rec { return c.op(runtime.OpConnect, 0) },
		"no path":         func() *rec { return c.op(runtime.OpOpen, 0) },
		"negative offset": func() *rec { r := c.op(runtime.OpWriteAt, h); r.Buf, r.Off = short, -1; return r },
		"no code":         func() *rec { return c.op(0, h) },
		"unknown code":    func() *rec { return c.op(200, h) },
	} {
		r := c.try(make())
		require.Error(c, r.Err, name)
		require.Equal(c, 1, r.ends, name)
	}
	for _, code := range []runtime.OpCode{runtime.OpAccept, runtime.OpAcceptMany, runtime.OpRecvMany, runtime.OpShutdown, runtime.OpClose, runtime.OpFsync, runtime.OpPoll} {
		for _, bad := range []runtime.Handle{0, runtime.MakeHandle(7777, 1), h + 1<<33} {
			r := c.op(code, bad)
			r.Flags = runtime.DirRead
			require.ErrorIs(c, c.try(r).Err, runtime.ErrClosed, "%s of an invalid handle", code)
		}
	}
}

func oneTerminal(c *world) {
	h, peer := c.pair()
	recv := c.op(runtime.OpRecv, h)
	recv.Buf = c.room(10)
	c.submit(recv)
	c.write(peer, []byte("hello"))
	c.wait(recv)
	require.Equal(c, "hello", string(recv.Buf.Bytes()))
	c.idle()
	require.Equal(c, 1, recv.ends)
	recv.Buf.Release()
	c.send(h, []byte("hello"))
	c.expect(peer, []byte("hello"))
}

func bufferLent(c *world) {
	h, peer := c.pair()
	r := c.op(runtime.OpRecv, h)
	b := c.room(10)
	r.Buf = b
	touch := func() (said any) {
		defer func() { said = recover() }()
		b.Bytes()
		return nil
	}
	c.submit(r)
	require.Contains(c, fmt.Sprint(touch()), "recv")
	c.rt.Cancel(&r.Op)
	require.Contains(c, fmt.Sprint(touch()), "recv", "Cancel frees nothing")
	c.wait(r)
	require.Same(c, b, r.Buf, "the buffer does not come back with its operation")
	require.Zero(c, touch())

	c.submit(r)
	require.NoError(c, peer.Close())
	c.wait(r)
	require.Same(c, b, r.Buf)
	require.Zero(c, touch(), "the buffer of a failed operation belongs to its owner again")
	b.Release()

	// An operation that is refused at once comes back too.
	s := c.op(runtime.OpSend, 0)
	s.Buf = c.buffer([]byte("x"))
	c.try(s)
	require.Equal(c, "x", string(s.Buf.Bytes()))
	s.Buf.Release()
}

func reuseFromDone(c *world) {
	r := c.op(runtime.OpNop, 0)
	left := 1000
	r.then = func() {
		if left--; left > 0 {
			r.again()
		}
	}
	c.submit(r)
	c.until("a thousand completions", func() bool { return left == 0 })
	require.Equal(c, 1000, r.ends)
}

func cancelIdle(c *world) {
	r := c.op(runtime.OpNop, 0)
	c.rt.Cancel(&r.Op)
	c.do(r)
	c.rt.Cancel(&r.Op)
	c.idle()
	require.Equal(c, 1, r.ends)
	// A late cancel must not hit the next operation in the same slot.
	h, peer := c.pair()
	first, second := c.op(runtime.OpRecv, h), c.op(runtime.OpRecv, h)
	first.Buf, second.Buf = c.room(4), c.room(4)
	c.submit(first)
	c.write(peer, []byte("one"))
	c.wait(first)
	c.submit(second)
	c.rt.Cancel(&first.Op)
	c.idle()
	require.True(c, second.InFlight(), "the cancel hit another operation")
	c.write(peer, []byte("two"))
	c.wait(second)
	require.Equal(c, "two", string(second.Buf.Bytes()))
	first.Buf.Release()
	second.Buf.Release()
}

func cancelOnce(c *world) {
	h, _ := c.pair()
	ln, _ := c.listen(runtime.ListenOptions{})
	ops := []*rec{c.op(runtime.OpRecv, h), c.op(runtime.OpRecvMany, h), c.op(runtime.OpAccept, ln), c.op(runtime.OpAcceptMany, ln), c.op(runtime.OpPoll, h)}
	ops[0].Buf = c.room(10)
	ops[4].Flags = runtime.DirRead
	for _, polled := range []bool{false, true} { // whether the kernel has it already
		c.submit(ops...)
		if polled {
			c.idle()
		}
		for _, r := range ops {
			c.rt.Cancel(&r.Op)
			c.rt.Cancel(&r.Op)
		}
		c.wait(ops...)
		c.idle()
		for _, r := range ops {
			require.ErrorIs(c, r.Err, runtime.ErrCanceled, r.Code.String())
		}
	}
	for _, r := range ops {
		require.Equal(c, 2, r.ends, r.Code.String())
	}
	ops[0].Buf.Release()
}

func errorsWrap(c *world) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(c, err)
	addr := runtime.Addr{AddrPort: ln.Addr().(*net.TCPAddr).AddrPort()}
	require.NoError(c, ln.Close())

	check := func(err, is error, op string) {
		require.ErrorIs(c, err, is)
		var oe *runtime.OpError
		require.ErrorAs(c, err, &oe)
		require.Equal(c, op, oe.Op)
		require.Contains(c, err.Error(), op+": ")
	}
	check(c.try(c.connect(addr)).Err, syscall.ECONNREFUSED, "connect")
	open := c.op(runtime.OpOpen, 0)
	open.Path = "/nowhere/at/all"
	check(c.try(open).Err, os.ErrNotExist, "open")
	check(c.try(c.op(runtime.OpRecvMany, 0)).Err, net.ErrClosed, "recv-many")
	_, err = c.rt.LocalAddr(0)
	require.ErrorIs(c, err, runtime.ErrClosed)

	h, peer := c.pair()
	r := c.op(runtime.OpRecv, h)
	r.Buf = c.room(1)
	defer r.Buf.Release()
	require.NoError(c, peer.Close())
	c.try(r)
	require.True(c, r.Err == io.EOF, "io.EOF must be itself, this is %#v", r.Err)

	h, peer = c.pair()
	require.NoError(c, peer.SetLinger(0))
	require.NoError(c, peer.Close())
	r.Handle = h
	check(c.try(r).Err, syscall.ECONNRESET, "recv")
	require.False(c, errors.Is(r.Err, io.EOF))
}

// collector runs the garbage collector and grows the stack while the kernel uses memory
// that operations point to.
func collector(c *world) {
	stop := make(chan struct{})
	c.Defer(func() { close(stop) })
	c.background(func() {
		for garbage := [][]byte(nil); ; {
			select {
			case <-stop:
				return
			default:
				garbage = append(garbage[:len(garbage)%64], make([]byte, 10_000))
				goruntime.GC()
			}
		}
	})
	ln, addr := c.listen(runtime.ListenOptions{})
	for range 20 {
		accept, dial := c.op(runtime.OpAccept, ln), c.connect(addr)
		c.submit(accept, dial)
		c.wait(accept, dial)
		require.NoError(c, accept.Err)
		require.NoError(c, dial.Err)
		grow(200)
		var bufs []*runtime.Buffer
		var all []byte
		for range runtime.MaxVec {
			p := c.pattern(100)
			all = append(all, p...)
			bufs = append(bufs, runtime.NewShared(p))
		}
		many := c.op(runtime.OpRecvMany, accept.Got)
		send := c.op(runtime.OpSendVec, dial.Got)
		send.Bufs = bufs
		c.submit(many, send)
		bufs = nil
		grow(500)
		c.wait(send)
		require.Equal(c, len(all), send.N)
		c.close(dial.Got)
		c.wait(many)
		require.Equal(c, all, many.data)
		c.close(accept.Got)
	}
}

// grow makes the runtime move the goroutine's stack.
func grow(depth int) int {
	var pad [256]byte
	if depth == 0 {
		return int(pad[0])
	}
	return grow(depth-1) + int(pad[len(pad)-1])
}
