package conformance

import (
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/conformance/internal/require"
	"github.com/noria-go/noria/runtime"
)

func socketCases() []testCase {
	return []testCase{
		{Name: "rule07/cloexec", Run: cloexec},
		{Name: "rule07/descriptor-flags", Run: foreignFlags},
		{Name: "rule07/lengths-are-cut", Run: lengthsAreCut},
		{Name: "rule11/second-program", Run: secondProgram},
		{Name: "sockets/accept-out-of-descriptors", Run: outOfDescriptors},
		{Name: "sockets/connect-cancelled", Run: connectCancelled},
		{Name: "sockets/options", Run: options},
		{Name: "sockets/unix", Run: unixSockets},
		{Name: "sockets/urgent-data", Run: urgentData},
		{Name: "sockets/descriptors-in-messages", Run: descriptorsInMessages},
		{Name: "sockets/adopt-and-detach", Run: adoptDetach},
		{Name: "files/pipes-are-cancelled", Run: openPipes},
	}
}

// detach takes h's descriptor, and closes it when the case ends.
func (c *world) detach(h runtime.Handle) int {
	fd, err := c.rt.Detach(h)
	require.NoError(c, err)
	c.Defer(func() { _ = unix.Close(fd) })
	return fd
}

func cloexec(c *world) {
	ln, addr := c.listen(runtime.ListenOptions{})
	one, many := c.op(runtime.OpAccept, ln), c.op(runtime.OpAcceptMany, ln)
	c.submit(one)
	first := c.connect(addr)
	c.submit(first)
	c.wait(one, first)
	c.submit(many)
	second := c.do(c.connect(addr))
	c.until("a connection", func() bool { return len(many.got) == 1 })
	c.rt.Cancel(&many.Op)
	c.wait(many)
	file := c.open(filepath.Join(c.tempDir(), "file"), openCreate)
	for _, h := range []runtime.Handle{ln, one.Got, first.Got, second.Got, many.got[0], file} {
		flags, err := unix.FcntlInt(uintptr(c.detach(h)), unix.F_GETFD, 0)
		require.NoError(c, err)
		require.NotZero(c, flags&unix.FD_CLOEXEC, "a child would inherit a descriptor")
	}
}

// foreignFlags adopts blocking and non-blocking sockets. The first must not stall the
// loop, the second must not show EAGAIN.
func foreignFlags(c *world) {
	for _, nonblock := range []bool{false, true} {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(c, err)
		require.NoError(c, unix.SetNonblock(fds[0], nonblock))
		require.NoError(c, unix.SetNonblock(fds[1], nonblock))
		a, err := c.rt.Adopt(fds[0])
		require.NoError(c, err)
		b, err := c.rt.Adopt(fds[1])
		require.NoError(c, err)
		one, many := c.op(runtime.OpRecv, a), c.op(runtime.OpRecvMany, b)
		one.Buf = c.room(10)
		c.submit(one, many)
		c.idle()
		require.True(c, one.InFlight() && many.InFlight(), "EAGAIN shows: %v %v", one.Err, many.Err)
		c.send(a, []byte("to b"))
		c.send(b, []byte("to a"))
		c.wait(one)
		c.until("bytes", func() bool { return len(many.data) == 4 })
		require.Equal(c, "to a", string(one.Buf.Bytes()))
		one.Buf.Release()
		// A send that the peer does not read must wait, and must not stall the loop.
		s := c.op(runtime.OpSend, a)
		s.Buf = c.buffer(make([]byte, 4<<20))
		c.rt.Cancel(&many.Op)
		c.wait(many)
		for sent := 0; sent < s.Buf.Len(); sent += s.N {
			c.submit(s)
			c.idle()
			if s.InFlight() {
				break
			}
			require.NoError(c, s.Err)
		}
		require.True(c, s.InFlight(), "4 MiB went to a peer that does not read")
		c.rt.Cancel(&s.Op)
		c.wait(s)
		s.Buf.Release()

		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(c, err)
		file, err := ln.(*net.TCPListener).File()
		require.NoError(c, err)
		fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		require.NoError(c, err)
		require.NoError(c, unix.SetNonblock(fd, nonblock))
		h, err := c.rt.Adopt(fd)
		require.NoError(c, err)
		accept := c.op(runtime.OpAcceptMany, h)
		c.submit(accept)
		c.idle()
		require.True(c, accept.InFlight(), "%v", accept.Err)
		c.dial(runtime.Addr{AddrPort: ln.Addr().(*net.TCPAddr).AddrPort()})
		c.until("a connection", func() bool { return len(accept.got) == 1 })
		require.NoError(c, file.Close())
		require.NoError(c, ln.Close())
	}
}

// lengthsAreCut reads and writes with buffers longer than a call can take. The buffers
// are mapped, and only the bytes that move are touched.
func lengthsAreCut(c *world) {
	sizes := []uint64{1 << 32, 1<<32 + 1<<16} // cut to 32 bits, these are 0, which is the end, and 64 KiB
	if math.MaxInt < 1<<32 {
		sizes = []uint64{math.MaxInt32} // a call takes a page less
	}
	mem, err := unix.Mmap(-1, 0, int(sizes[len(sizes)-1]), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	require.NoError(c, err)
	c.Defer(func() { _ = unix.Munmap(mem) })
	for _, size := range sizes {
		n := int(size)
		h, peer := c.pair()
		r := c.op(runtime.OpRecv, h)
		r.Buf = runtime.NewBuffer(c.pool, mem[:n], func(*runtime.Buffer) {}).Hand(0, 0)
		c.submit(r)
		c.write(peer, []byte("hello"))
		c.wait(r)
		require.NoError(c, r.Err)
		require.Equal(c, 5, r.N)
		r.Buf.Release()
		s := c.op(runtime.OpSend, h)
		s.Buf = runtime.NewBuffer(c.pool, mem[:n], func(*runtime.Buffer) {}).Hand(0, n)
		c.do(s)
		require.Positive(c, s.N)
		require.LessOrEqual(c, s.N, runtime.MaxBytes)
		s.Buf.Release()
		_ = peer.Close()
		c.close(h)
	}
}

func secondProgram(c *world) {
	for _, joinable := range []bool{false, true} {
		ln, addr := c.listen(runtime.ListenOptions{Joinable: joinable})
		joined := 0
		if joinable {
			_, err := c.rt.Listen(addr, runtime.ListenOptions{Join: true})
			require.NoError(c, err, "another loop of this program")
			joined++
		} else {
			_, err := c.rt.Listen(addr, runtime.ListenOptions{Join: true})
			require.ErrorIs(c, err, syscall.EADDRINUSE)
		}
		for _, second := range []bool{false, true} {
			_, err := c.rt.Listen(addr, runtime.ListenOptions{Joinable: second})
			require.ErrorIs(c, err, syscall.EADDRINUSE, "a second program binds silently, beside %d listeners", 1+joined)
		}
		c.close(ln)
	}
	// Connections in TIME_WAIT that a program left do not make an address in use.
	ln, addr := c.listen(runtime.ListenOptions{})
	accept := c.op(runtime.OpAccept, ln)
	c.submit(accept)
	nc := c.dial(addr)
	c.wait(accept)
	c.close(accept.Got) // the side that closes first has the TIME_WAIT
	_ = nc.Close()
	c.close(ln)
	again, err := c.rt.Listen(addr, runtime.ListenOptions{})
	require.NoError(c, err)
	c.close(again)
}

// outOfDescriptors takes all descriptors away. The accept must fail with EMFILE, and
// work again when there are descriptors.
func outOfDescriptors(c *world) {
	ln, addr := c.listen(runtime.ListenOptions{})
	a, err := net.Dial("tcp", addr.String())
	require.NoError(c, err)
	defer a.Close()
	var old unix.Rlimit
	require.NoError(c, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	spare, err := os.Open("/dev/null")
	require.NoError(c, err)
	limit := old
	limit.Cur = uint64(spare.Fd()) // all lower numbers are or will be taken
	require.NoError(c, spare.Close())
	var fill []*os.File
	for {
		f, err := os.Open("/dev/null")
		require.NoError(c, err)
		if uint64(f.Fd()) >= limit.Cur {
			limit.Cur = uint64(f.Fd())
			require.NoError(c, f.Close())
			break
		}
		fill = append(fill, f)
	}
	require.NoError(c, unix.Prlimit(0, unix.RLIMIT_NOFILE, &limit, nil))
	accept := c.op(runtime.OpAcceptMany, ln)
	c.submit(accept)
	c.wait(accept)
	require.NoError(c, unix.Prlimit(0, unix.RLIMIT_NOFILE, &old, nil))
	for _, f := range fill {
		_ = f.Close()
	}
	require.ErrorIs(c, accept.Err, syscall.EMFILE)
	c.submit(accept)
	c.until("the connection that waited", func() bool { return len(accept.got) == 1 })
}

// connectCancelled connects to a listener whose backlog is full, so that no answer
// arrives.
func connectCancelled(c *world) {
	_, addr := c.listen(runtime.ListenOptions{Backlog: 1})
	var ops []*rec
	for range 10 {
		r := c.connect(addr)
		c.submit(r)
		ops = append(ops, r)
	}
	c.idle()
	waiting := 0
	for _, r := range ops {
		if r.InFlight() {
			waiting++
			c.rt.Cancel(&r.Op)
		}
	}
	require.NotZero(c, waiting, "no connect had to wait: the case shows nothing")
	c.wait(ops...)
	for _, r := range ops {
		if r.Err != nil {
			require.ErrorIs(c, r.Err, runtime.ErrCanceled)
		}
	}
}

func options(c *world) {
	ln, addr := c.listen(runtime.ListenOptions{})
	accept, dial := c.op(runtime.OpAccept, ln), c.connect(addr)
	c.submit(accept, dial)
	c.wait(accept, dial)
	local, err := c.rt.LocalAddr(accept.Got)
	require.NoError(c, err)
	peer, err := c.rt.PeerAddr(dial.Got)
	require.NoError(c, err)
	require.Equal(c, addr, local)
	require.Equal(c, addr, peer)
	h := accept.Got
	for opt, v := range map[runtime.Option]int{runtime.OptNoDelay: 0, runtime.OptKeepAlive: 7, runtime.OptUserTimeout: 4000,
		runtime.OptSendBuffer: 10_000, runtime.OptRecvBuffer: 10_000, runtime.OptResetOnClose: 1} {
		require.NoError(c, c.rt.SetOption(h, opt, v))
	}
	require.Error(c, c.rt.SetOption(h, 99, 1))
	get := func(fd, level, opt int) int {
		v, err := unix.GetsockoptInt(fd, level, opt)
		require.NoError(c, err)
		return v
	}
	fd := c.detach(h)
	require.Zero(c, get(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY))
	require.Equal(c, 7, get(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE))
	require.Equal(c, 4000, get(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT))
	require.Equal(c, 20_000, get(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)) // the kernel doubles it: socket(7)
	require.NotZero(c, get(c.detach(dial.Got), unix.IPPROTO_TCP, unix.TCP_NODELAY), "TCP_NODELAY is not the default of what connects")
	accept, dial = c.op(runtime.OpAccept, ln), c.connect(addr)
	c.submit(accept, dial)
	c.wait(dial)
	c.send(dial.Got, []byte("x")) // a deferred accept waits for it
	c.wait(accept)
	require.NotZero(c, get(c.detach(accept.Got), unix.IPPROTO_TCP, unix.TCP_NODELAY), "TCP_NODELAY is not the default of what is accepted")
	c.close(dial.Got)
}

func unixSockets(c *world) {
	path := filepath.Join(c.tempDir(), "socket")
	for _, addr := range []runtime.Addr{runtime.Addr{Path: path}, runtime.Addr{Path: "@noria-conformance-" + path}} {
		for range 2 { // the second time, the first listener has left its socket behind
			ln, err := c.rt.Listen(addr, runtime.ListenOptions{})
			require.NoError(c, err)
			_, err = c.rt.Listen(addr, runtime.ListenOptions{})
			require.ErrorIs(c, err, syscall.EADDRINUSE)
			accept, dial := c.op(runtime.OpAccept, ln), c.connect(addr)
			c.submit(accept, dial)
			c.wait(accept, dial)
			require.NoError(c, dial.Err)
			require.NoError(c, accept.Err)
			got, err := c.rt.PeerAddr(dial.Got)
			require.NoError(c, err)
			require.Equal(c, addr, got)
			c.send(dial.Got, []byte("hello"))
			r := c.op(runtime.OpRecvMany, accept.Got)
			c.submit(r)
			c.until("hello", func() bool { return string(r.data) == "hello" })
			c.close(dial.Got)
			c.wait(r)
			c.close(ln)
		}
	}
	long := make([]byte, 200)
	for i := range long {
		long[i] = 'x'
	}
	_, err := c.rt.Listen(runtime.Addr{Path: string(long)}, runtime.ListenOptions{})
	require.ErrorIs(c, err, syscall.ENAMETOOLONG)
	require.ErrorIs(c, c.try(c.connect(runtime.Addr{Path: string(long)})).Err, syscall.ENAMETOOLONG)
	require.ErrorIs(c, c.try(c.connect(runtime.Addr{Path: path + "none"})).Err, syscall.ENOENT)
	v6, err := c.rt.Listen(runtime.Addr{AddrPort: netip.MustParseAddrPort("[::]:0")}, runtime.ListenOptions{})
	require.NoError(c, err)
	addr, err := c.rt.LocalAddr(v6)
	require.NoError(c, err)
	c.dial(runtime.Addr{AddrPort: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), addr.AddrPort.Port())})
}

// urgentData: a receive stops where TCP's urgent byte was, although there are more
// bytes behind it. So a receive that returns less than it has room for does not mean
// that there is no more. (The urgent byte itself is delivered in another way, which no
// operation asks for.)
// If a signal is pending at that moment, such as Go's own to preempt a goroutine, the
// kernel returns EAGAIN even if there are bytes (tcp_recvmsg_locked). A multishot
// receive gets this EAGAIN inside the kernel, where the runtime cannot try again, so
// the bytes arrive with those that follow. That may happen now and then, and must not
// be the rule.
func urgentData(c *world) {
	for _, code := range []runtime.OpCode{runtime.OpRecvMany, runtime.OpRecv} {
		for _, early := range []bool{true, false} { // whether all of it has arrived before the first receive
			const rounds = 10
			late := 0
			for range rounds {
				if c.urgentDataIsLate(code, early) {
					late++
				}
			}
			require.Less(c, late, rounds/2, "%v: the bytes behind an urgent byte are not seen until more arrive", code)
		}
	}
}

func (c *world) urgentDataIsLate(code runtime.OpCode, early bool) (late bool) {
	h, peer := c.pair()
	got := c.receiver(code, h)
	if !early {
		c.write(peer, []byte("x"))
		c.until("a first byte", func() bool { return string(got()) == "x" })
		c.idle()
	}
	raw, err := peer.SyscallConn()
	require.NoError(c, err)
	c.write(peer, []byte("abc"))
	var sent error
	require.NoError(c, raw.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), []byte("!"), unix.MSG_OOB, nil)
		return true
	}))
	require.NoError(c, sent)
	c.write(peer, []byte("efg"))
	want := "abcefg"
	all := func() bool { return strings.HasSuffix(string(got()), want) }
	for polls := 0; polls < 100 && !all(); polls++ {
		c.poll()
	}
	if late = !all(); late {
		c.write(peer, []byte("more"))
		want += "more"
		c.until("everything", all)
	}
	c.close(h)
	_ = peer.Close()
	return late
}

// descriptorsInMessages: a receive on a unix socket also stops at messages that carry
// descriptors. No operation takes these descriptors, and they must not leak.
func descriptorsInMessages(c *world) {
	for _, code := range []runtime.OpCode{runtime.OpRecvMany, runtime.OpRecv} {
		for _, early := range []bool{true, false} {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			require.NoError(c, err)
			h, err := c.rt.Adopt(fds[0])
			require.NoError(c, err)
			got := c.receiver(code, h)
			want := "onetwothree"
			if !early {
				require.NoError(c, unix.Sendto(fds[1], []byte("x"), 0, nil))
				c.until("a first byte", func() bool { return string(got()) == "x" })
				c.idle()
				want = "x" + want
			}
			rights := unix.UnixRights(fds[1])
			require.NoError(c, unix.Sendmsg(fds[1], []byte("one"), rights, nil, 0))
			require.NoError(c, unix.Sendmsg(fds[1], []byte("two"), rights, nil, 0))
			require.NoError(c, unix.Sendto(fds[1], []byte("three"), 0, nil))
			c.until("the messages behind the first", func() bool { return string(got()) == want })
			c.close(h)
			require.NoError(c, unix.Close(fds[1]))
		}
	}
}

// receiver receives from h with operations of this code until h is closed. The function
// that it returns returns all bytes that have arrived.
func (c *world) receiver(code runtime.OpCode, h runtime.Handle) func() []byte {
	r := c.op(code, h)
	if code == runtime.OpRecvMany {
		c.submit(r)
		return func() []byte { return r.data }
	}
	var data []byte
	r.Buf = c.room(1000)
	r.then = func() {
		if r.Err != nil {
			r.Buf.Release()
			return
		}
		data = append(data, r.Buf.Bytes()...)
		r.Buf.Reset(0)
		r.again()
	}
	c.submit(r)
	return func() []byte { return data }
}

func adoptDetach(c *world) {
	_, err := c.rt.Adopt(1 << 20)
	require.ErrorIs(c, err, syscall.EBADF)
	h, peer := c.pair()
	r := c.op(runtime.OpRecvMany, h)
	c.submit(r)
	_, err = c.rt.Detach(h)
	require.ErrorIs(c, err, runtime.ErrBusy)
	c.write(peer, []byte("one"))
	c.until("one", func() bool { return len(r.data) == 3 })
	c.rt.Cancel(&r.Op)
	c.wait(r)
	fd, err := c.rt.Detach(h)
	require.NoError(c, err)
	require.ErrorIs(c, c.try(c.op(runtime.OpRecvMany, h)).Err, runtime.ErrClosed)
	c.write(peer, []byte("two"))
	c.idle() // an event for a descriptor that this program has closed
	again, err := c.rt.Adopt(fd)
	require.NoError(c, err)
	require.NotEqual(c, h, again)
	r = c.op(runtime.OpRecvMany, again)
	c.submit(r)
	c.until("two", func() bool { return string(r.data) == "two" })
	c.close(again)
	c.expectEOF(peer)
}

// openPipes opens named pipes that have no other end. The open may wait, but a cancel
// ends it, and Close does not wait for it.
func openPipes(c *world) {
	path := filepath.Join(c.tempDir(), "fifo")
	require.NoError(c, unix.Mkfifo(path, 0o600))
	before := countFDs()
	open := func(flags int) *rec {
		r := c.op(runtime.OpOpen, 0)
		r.Path, r.Flags = path, flags
		c.submit(r)
		return r
	}
	for range 2 {
		var ops []*rec
		for range 20 {
			ops = append(ops, open(unix.O_RDONLY))
		}
		c.idle()
		for _, r := range ops {
			c.rt.Cancel(&r.Op)
		}
		c.wait(ops...)
		for _, r := range ops {
			if r.Err == nil {
				c.close(r.Got)
			} else {
				require.ErrorIs(c, r.Err, runtime.ErrCanceled)
			}
		}
		w := open(unix.O_WRONLY)
		c.idle()
		c.rt.Cancel(&w.Op)
		c.wait(w)
		require.Error(c, w.Err, "there is no reader")
	}
	require.LessOrEqual(c, countFDs(), before, "descriptors without a handle: %s", listFDs())
	last := open(unix.O_RDONLY)
	c.idle()
	require.NoError(c, c.closeRuntime())
	require.False(c, last.InFlight())
}

// eintr makes signals arrive on this thread all the time.
func eintr(c *world) {
	goruntime.LockOSThread()
	pid, tid := unix.Getpid(), unix.Gettid()
	stop := make(chan struct{})
	c.background(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Tgkill(pid, tid, unix.SIGURG) // Go's own signal for preemption; it is ignored
			}
		}
	})
	defer close(stop)
	h, peer := c.pair()
	many := c.op(runtime.OpRecvMany, h)
	c.submit(many)
	for i := range 200 {
		deadline := c.rt.Now() + int64(time.Millisecond)
		require.NoError(c, c.rt.Poll(deadline), "EINTR shows")
		c.write(peer, []byte{byte(i)})
		c.until("a byte", func() bool { return len(many.data) == i+1 })
		c.send(h, []byte{byte(i)})
		c.expect(peer, []byte{byte(i)})
	}
	require.NoError(c, many.Err)
}
