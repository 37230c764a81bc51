//go:build linux && !386 && !arm && !mips && !mipsle

package uring

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
)

// An echoer serves one connection. From time to time it cancels its receive and
// starts it anew, or closes the connection in the middle.
type echoer struct {
	w          *world
	rnd        *rand.Rand
	handle     runtime.Handle
	recv, send runtime.Op
	queue      []*runtime.Buffer
	eof, gone  bool
	over       func()
}

func (e *echoer) start() {
	e.recv = runtime.Op{Code: runtime.OpRecvMany, Handle: e.handle, Done: e.received}
	e.send = runtime.Op{Code: runtime.OpSend, Handle: e.handle, Done: e.sent}
	e.w.r.Submit(&e.recv)
}

func (e *echoer) received(op *runtime.Op) {
	switch {
	case op.More:
		e.queue = append(e.queue, op.Buf)
		e.pump()
		switch e.rnd.IntN(100) {
		case 0:
			e.close()
		case 1, 2, 3, 4, 5:
			e.w.r.Cancel(op)
		}
	case errors.Is(op.Err, runtime.ErrCanceled) && !e.gone:
		e.w.r.Submit(op)
	default:
		e.eof = true
		e.pump()
	}
}

func (e *echoer) sent(op *runtime.Op) {
	op.Buf.Advance(op.N)
	if op.Err == nil && op.Buf.Len() > 0 {
		e.w.r.Submit(op)
		return
	}
	op.Buf.Release()
	if op.Err != nil {
		e.close()
	}
	e.pump()
}

func (e *echoer) pump() {
	switch {
	case e.send.InFlight():
	case e.gone:
		for _, b := range e.queue {
			b.Release()
		}
		e.queue = nil
	case len(e.queue) > 0:
		e.send.Buf, e.queue = e.queue[0], e.queue[1:]
		e.w.r.Submit(&e.send)
	case e.eof:
		e.close()
	}
}

func (e *echoer) close() {
	if e.gone {
		return
	}
	e.gone = true
	e.w.r.Submit(&runtime.Op{Code: runtime.OpClose, Handle: e.handle, Done: func(op *runtime.Op) {
		e.pump()
		e.over()
	}})
}

// errCut is the error of a client whose echo was cut short.
var errCut = errors.New("cut")

// client sends a random text in random pieces and reads its echo. Unless the
// connection is reset or closed by the server, every byte returns in order.
func client(addr string, rnd *rand.Rand) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	conn := c.(*net.TCPConn)
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	text := make([]byte, rnd.IntN(200_000))
	for i := range text {
		text[i] = byte(rnd.Uint32())
	}
	if rnd.IntN(10) == 0 {
		_, _ = conn.Write(text[:len(text)/2])
		return errors.Join(errCut, conn.SetLinger(0))
	}
	pieces := rand.New(rand.NewPCG(rnd.Uint64(), 0))
	go func() {
		for rest := text; len(rest) > 0; {
			n, err := conn.Write(rest[:min(len(rest), 1+pieces.IntN(20_000))])
			if err != nil {
				return
			}
			rest = rest[n:]
		}
		_ = conn.CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%d of %d bytes after %v: %w", len(got), len(text), patience, err)
	case !bytes.HasPrefix(text, got):
		return fmt.Errorf("the echo of %d bytes differs within the %d bytes received", len(text), len(got))
	case len(got) < len(text):
		return errCut
	}
	return nil
}

func TestStress(t *testing.T) {
	const clients, each = 8, 15
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	everywhere(t, Options{Entries: 16, CQEntries: 16, Buffers: 8, Budget: 10}, func(t *testing.T, w *world) {
		l, addr := w.listen()
		open := 0
		accept := &runtime.Op{Code: runtime.OpAcceptMany, Handle: l}
		serial := uint64(0)
		accept.Done = func(op *runtime.Op) {
			if op.More {
				open++
				serial++
				e := &echoer{w: w, rnd: rand.New(rand.NewPCG(seed, serial)), handle: op.Got, over: func() { open-- }}
				e.start()
			}
		}
		w.r.Submit(accept)
		var left, whole atomic.Int64
		failed := make(chan error, clients*each)
		left.Store(clients)
		for i := range clients {
			go func() {
				rnd := rand.New(rand.NewPCG(seed, 1<<32|uint64(i)))
				for range each {
					switch err := client(addr.String(), rnd); {
					case err == nil:
						whole.Add(1)
					case !errors.Is(err, errCut):
						failed <- err
					}
				}
				left.Add(-1)
				w.r.Wake()
			}()
		}
		defer func() {
			if t.Failed() { // this test did not end once: see docs/open.md
				t.Logf("%d clients left, %d whole, %d refused; %d of %d connections open, %d flights, %d buffers free",
					left.Load(), whole.Load(), len(failed), open, serial, w.r.table.live, w.free())
			}
		}()
		w.until(func() bool { return left.Load() == 0 && open == 0 })
		close(failed)
		for err := range failed {
			require.NoError(t, err)
		}
		require.Greater(t, int(whole.Load()), clients*each/3)
		require.Equal(t, 8, w.free())
	})
}

// An operation that is cancelled before the kernel has it completes.
func TestCancelBeforePoll(t *testing.T) {
	everywhere(t, Options{}, func(t *testing.T, w *world) {
		h, _ := w.pair()
		for _, code := range []runtime.OpCode{runtime.OpRecvMany, runtime.OpRecv, runtime.OpPoll} {
			op := runtime.Op{Code: code, Handle: h, Flags: runtime.DirRead}
			if code == runtime.OpRecv {
				op.Buf = w.room(10)
			}
			c := w.submit(op)
			w.r.Cancel(&c.Op)
			w.until(func() bool { return c.over })
			require.ErrorIs(t, c.Err, runtime.ErrCanceled)
			require.Equal(t, 1, c.times)
			if c.Buf != nil {
				c.Buf.Release()
			}
		}
	})
}

// A connect without an answer can be cancelled, and a runtime with such a connect
// can be closed.
func TestCancelConnect(t *testing.T) {
	everywhere(t, Options{}, func(t *testing.T, w *world) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		defer closeAll(fd)
		require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
		require.NoError(t, unix.Listen(fd, 0))
		l, err := w.r.Adopt(mustDup(t, fd))
		require.NoError(t, err)
		addr, err := w.r.LocalAddr(l)
		require.NoError(t, err)
		var calls []*call
		for range 5 { // a backlog of one, and no accept: the other connects hang
			calls = append(calls, w.submit(runtime.Op{Code: runtime.OpConnect, Addr: addr}))
		}
		w.until(func() bool { return calls[0].over })
		require.NoError(t, calls[0].Err)
		for _, c := range calls[1:4] {
			w.r.Cancel(&c.Op)
		}
		for _, c := range calls[1:4] {
			w.until(func() bool { return c.over })
			require.True(t, c.Err == nil || errors.Is(c.Err, runtime.ErrCanceled), c.Err)
			require.Equal(t, c.Err == nil, c.Got != 0)
		}
		require.NoError(t, w.r.Close())
		require.True(t, calls[4].over)
	})
}

func mustDup(t *testing.T, fd int) int {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	require.NoError(t, err)
	return dup
}
