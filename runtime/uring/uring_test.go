//go:build linux && !386 && !arm && !mips && !mipsle

package uring

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	stdruntime "runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
)

func TestStream(t *testing.T) {
	everywhere(t, Options{}, func(t *testing.T, w *world) {
		l, addr := w.listen()
		many := w.submit(runtime.Op{Code: runtime.OpAcceptMany, Handle: l})
		dial := w.do(runtime.Op{Code: runtime.OpConnect, Addr: addr})
		require.NoError(t, dial.Err)
		dial2 := w.do(runtime.Op{Code: runtime.OpConnect, Addr: addr})
		require.NoError(t, dial2.Err)
		w.until(func() bool { return len(many.got) == 2 })
		server, client := many.got[0], dial.Got

		recv := w.submit(runtime.Op{Code: runtime.OpRecvMany, Handle: server})
		for _, text := range []string{"hello", "wheel"} {
			send := w.do(runtime.Op{Code: runtime.OpSend, Handle: client, Buf: w.buffer("x" + text), Skip: 1})
			require.Equal(t, len(text), send.N)
			send.Buf.Release()
			w.until(func() bool { return strings.HasSuffix(string(recv.data), text) })
		}
		require.Equal(t, "hellowheel", string(recv.data))

		bufs := []*runtime.Buffer{w.buffer("a"), w.buffer(""), w.buffer("bc"), w.buffer("def")}
		vec := w.do(runtime.Op{Code: runtime.OpSendVec, Handle: server, Bufs: bufs})
		require.Equal(t, 6, vec.N)
		for _, b := range bufs {
			b.Release()
		}
		in := w.do(runtime.Op{Code: runtime.OpRecv, Handle: client, Buf: w.room(100)})
		require.Equal(t, "abcdef", string(in.Buf.Bytes()))
		in.Buf.Release()

		require.NoError(t, w.do(runtime.Op{Code: runtime.OpShutdown, Handle: client, Flags: runtime.DirWrite}).Err)
		w.until(func() bool { return recv.over })
		require.Equal(t, io.EOF, recv.Err)
		require.NoError(t, w.do(runtime.Op{Code: runtime.OpClose, Handle: server}).Err)
		eof := w.do(runtime.Op{Code: runtime.OpRecv, Handle: client, Buf: w.room(100)})
		require.Equal(t, io.EOF, eof.Err)
		eof.Buf.Release()
		stale := w.do(runtime.Op{Code: runtime.OpRecvMany, Handle: server})
		require.ErrorIs(t, stale.Err, runtime.ErrClosed)

		w.r.Cancel(&many.Op)
		w.until(func() bool { return many.over })
		require.ErrorIs(t, many.Err, runtime.ErrCanceled)
	})
}

func TestFiles(t *testing.T) {
	everywhere(t, Options{}, func(t *testing.T, w *world) {
		path := filepath.Join(t.TempDir(), "file")
		f := w.do(runtime.Op{Code: runtime.OpOpen, Path: path, Flags: os.O_RDWR | os.O_CREATE, Mode: 0o600})
		require.NoError(t, f.Err)
		out := w.do(runtime.Op{Code: runtime.OpWriteAt, Handle: f.Got, Buf: w.buffer("noria"), Off: 3})
		require.Equal(t, 5, out.N)
		out.Buf.Release()
		for _, code := range []runtime.OpCode{runtime.OpFsync, runtime.OpFdatasync} {
			require.NoError(t, w.do(runtime.Op{Code: code, Handle: f.Got}).Err)
		}
		require.NoError(t, w.do(runtime.Op{Code: runtime.OpAllocate, Handle: f.Got, Len: 100}).Err)
		in := w.do(runtime.Op{Code: runtime.OpReadAt, Handle: f.Got, Buf: w.room(1000), Off: 3})
		require.Equal(t, "noria"+strings.Repeat("\x00", 92), string(in.Buf.Bytes()))
		in.Buf.Release()
		end := w.do(runtime.Op{Code: runtime.OpReadAt, Handle: f.Got, Buf: w.room(10), Off: 100})
		require.Equal(t, io.EOF, end.Err)
		end.Buf.Release()
		require.NoError(t, w.do(runtime.Op{Code: runtime.OpClose, Handle: f.Got}).Err)
		none := w.do(runtime.Op{Code: runtime.OpOpen, Path: path + "/x"})
		require.ErrorIs(t, none.Err, unix.ENOTDIR)
		require.ErrorIs(t, w.do(runtime.Op{Code: runtime.OpOpen, Path: "a\x00b"}).Err, unix.EINVAL)
	})
}

// A cancelled operation completes, whatever it was doing.
func TestCancel(t *testing.T) {
	everywhere(t, Options{}, func(t *testing.T, w *world) {
		h, _ := w.pair()
		l, _ := w.listen()
		calls := []*call{
			w.submit(runtime.Op{Code: runtime.OpRecvMany, Handle: h}),
			w.submit(runtime.Op{Code: runtime.OpRecv, Handle: h, Buf: w.room(10)}),
			w.submit(runtime.Op{Code: runtime.OpPoll, Handle: h, Flags: runtime.DirRead}),
			w.submit(runtime.Op{Code: runtime.OpAccept, Handle: l}),
			w.submit(runtime.Op{Code: runtime.OpAcceptMany, Handle: l}),
		}
		require.NoError(t, w.r.Poll(0))
		for _, c := range calls {
			w.r.Cancel(&c.Op)
			w.r.Cancel(&c.Op)
		}
		for _, c := range calls {
			w.until(func() bool { return c.over })
			require.ErrorIs(t, c.Err, runtime.ErrCanceled)
			w.r.Cancel(&c.Op)
		}
		calls[1].Buf.Release()
		w.until(func() bool { return w.r.table.live == 0 })
	})
}

// Closing a handle first completes what is in flight on it. Then the peer sees the
// end.
func TestCloseJoins(t *testing.T) {
	everywhere(t, Options{}, func(t *testing.T, w *world) {
		h, peer := w.pair()
		big := strings.Repeat("x", 1<<20)
		calls := []*call{
			w.submit(runtime.Op{Code: runtime.OpRecvMany, Handle: h}),
			w.submit(runtime.Op{Code: runtime.OpSend, Handle: h, Buf: w.buffer(big)}),
			w.submit(runtime.Op{Code: runtime.OpSend, Handle: h, Buf: w.buffer(big)}),
			w.submit(runtime.Op{Code: runtime.OpShutdown, Handle: h, Flags: runtime.DirWrite}),
		}
		require.NoError(t, w.r.Poll(0))
		closing := w.submit(runtime.Op{Code: runtime.OpClose, Handle: h})
		require.ErrorIs(t, w.do(runtime.Op{Code: runtime.OpRecvMany, Handle: h}).Err, runtime.ErrClosed)
		w.until(func() bool { return closing.over })
		require.NoError(t, closing.Err)
		for i, c := range calls {
			require.True(t, c.over, i)
			if c.Buf != nil {
				c.Buf.Release()
			}
		}
		p := make([]byte, 1<<20)
		for {
			n, err := unix.Read(peer, p)
			require.NoError(t, err)
			if n == 0 {
				break
			}
		}
	})
}

// Close returns with every kind of operation pending, and each operation completes
// once.
func TestCloseWithPending(t *testing.T) {
	everywhere(t, Options{Entries: 8}, func(t *testing.T, w *world) {
		var calls []*call
		l, addr := w.listen()
		for range 40 {
			h, _ := w.pair()
			calls = append(calls,
				w.submit(runtime.Op{Code: runtime.OpRecvMany, Handle: h}),
				w.submit(runtime.Op{Code: runtime.OpRecv, Handle: h, Buf: w.room(10)}),
				w.submit(runtime.Op{Code: runtime.OpConnect, Addr: addr}))
		}
		calls = append(calls, w.submit(runtime.Op{Code: runtime.OpAcceptMany, Handle: l}))
		require.NoError(t, w.r.Poll(0))
		h, _ := w.pair()
		calls = append(calls, w.submit(runtime.Op{Code: runtime.OpClose, Handle: h}))
		require.NoError(t, w.r.Close())
		for i, c := range calls {
			require.True(t, c.over, i)
			if c.Buf != nil {
				c.Buf.Release()
			}
		}
		require.Error(t, w.r.Close())
		require.ErrorIs(t, w.r.Poll(0), runtime.ErrClosed)
		w.r.Wake()
	})
}

func TestCloseBeforeStart(t *testing.T) {
	for name, opts := range variants() {
		t.Run(name, func(t *testing.T) {
			r, err := New(opts)
			require.NoError(t, err)
			require.Equal(t, "io_uring", r.Info().Backend)
			require.NoError(t, r.Close())
			r.Wake()
			require.ErrorIs(t, r.Start(runtime.NewPool(0)), runtime.ErrClosed)
		})
	}
}

func TestOptions(t *testing.T) {
	for _, opts := range []Options{{Entries: -1}, {Entries: 1 << 20}, {CQEntries: 1}, {Buffers: -1}, {Buffers: 1 << 20},
		{BufferSize: 1}, {Budget: -1}, {Off: []string{"multishot-wish"}}} {
		_, err := New(opts)
		require.Error(t, err, "%+v", opts)
		require.False(t, errors.Is(err, errors.ErrUnsupported))
	}
}

// A pool too small for the buffer ring costs the feature, and one too small for the
// buffers fails Start. Both runtimes can be closed.
func TestStartWithLittleMemory(t *testing.T) {
	stdruntime.LockOSThread()
	defer stdruntime.UnlockOSThread()
	opts := Options{Buffers: 2, BufferSize: 4096}
	for limit, ok := range map[int64]bool{2 * 4096: true, 4096: false} {
		pool := runtime.NewPool(limit)
		r, err := New(opts)
		require.NoError(t, err)
		err = r.Start(pool)
		if ok {
			require.NoError(t, err)
			require.False(t, inUse(r, FeatureBufferRing))
			require.False(t, inUse(r, FeatureMultishotRecv))
			require.ErrorIs(t, r.Start(pool), runtime.ErrBusy)
		} else {
			require.ErrorIs(t, err, runtime.ErrNoBuffers)
		}
		require.NoError(t, r.Close())
		require.NoError(t, pool.Close())
	}
}

// A receiver may keep a buffer after Close. Close reports it, and the memory stays
// mapped until the buffer is released.
func TestBufferOutlivesRuntime(t *testing.T) {
	w := newWorld(t, Options{})
	h, peer := w.pair()
	var kept *runtime.Buffer
	w.r.Submit(&runtime.Op{Code: runtime.OpRecvMany, Handle: h, Done: func(op *runtime.Op) {
		if op.More {
			kept = op.Buf
		}
	}})
	w.write(peer, "noria")
	w.until(func() bool { return kept != nil })
	require.ErrorContains(t, w.r.Close(), "not released")
	require.Equal(t, "noria", string(kept.Bytes()))
	kept.Release()
}
