package conformance

import (
	"io"
	"os"
	"path/filepath"

	"github.com/noria-go/noria/conformance/internal/require"
	"github.com/noria-go/noria/runtime"
)

const openCreate = os.O_RDWR | os.O_CREATE

func fileCases() []testCase {
	return []testCase{
		{Name: "files/write-read-sync", Run: files},
		{Name: "files/many-at-once", Run: manyFiles},
		{Name: "files/cancel", Run: cancelFiles},
	}
}

// tempDir returns a directory that is removed when the case ends.
func (c *world) tempDir() string {
	dir, err := os.MkdirTemp("", "noria-conformance-")
	require.NoError(c, err)
	c.Defer(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (c *world) open(path string, flags int) runtime.Handle {
	r := c.op(runtime.OpOpen, 0)
	r.Path, r.Flags, r.Mode = path, flags, 0o600
	return c.do(r).Got
}

func files(c *world) {
	h := c.open(filepath.Join(c.tempDir(), "file"), openCreate)
	alloc := c.op(runtime.OpAllocate, h)
	alloc.Off, alloc.Len = 0, 100_000
	c.do(alloc)
	p := c.pattern(50_000)
	w := c.op(runtime.OpWriteAt, h)
	w.Buf, w.Off, w.Skip = c.buffer(p), 10_000, 100
	defer w.Buf.Release()
	require.Equal(c, len(p)-100, c.do(w).N)
	c.do(c.op(runtime.OpFdatasync, h))
	c.do(c.op(runtime.OpFsync, h))

	r := c.op(runtime.OpReadAt, h)
	r.Buf, r.Off = c.room(1<<16), 10_000
	defer r.Buf.Release()
	r.Buf.Append([]byte("before"))
	c.do(r)
	require.Equal(c, "before", string(r.Buf.Bytes()[:6]), "a read appends to the buffer's bytes")
	require.Equal(c, p[100:], r.Buf.Bytes()[6:6+len(p)-100])
	r.Buf.Reset(0)
	r.Off = 100_000
	c.try(r)
	require.Zero(c, r.N)
	require.True(c, r.Err == io.EOF, "the end of a file is %v", r.Err)

	fsync := c.op(runtime.OpFsync, h)
	end := c.op(runtime.OpClose, h)
	c.submit(fsync, end)
	c.wait(fsync, end)
	require.NoError(c, end.Err)
	require.ErrorIs(c, c.try(c.op(runtime.OpFsync, h)).Err, runtime.ErrClosed)
}

func manyFiles(c *world) {
	dir := c.tempDir()
	h := c.open(filepath.Join(dir, "file"), openCreate)
	const n, size = 300, 4096
	want := c.pattern(n * size)
	var writes, reads []*rec
	for i := range n {
		w := c.op(runtime.OpWriteAt, h)
		w.Buf, w.Off = c.buffer(want[i*size:(i+1)*size]), int64(i*size)
		writes = append(writes, w)
	}
	c.submit(writes...)
	c.do(c.op(runtime.OpNop, 0)) // the loop runs meanwhile
	c.wait(writes...)
	for i, w := range writes {
		require.NoError(c, w.Err)
		require.Equal(c, size, w.N)
		w.Buf.Release()
		r := c.op(runtime.OpReadAt, h)
		r.Buf, r.Off = c.room(size), int64(i*size)
		reads = append(reads, r)
	}
	c.submit(reads...)
	c.wait(reads...)
	for i, r := range reads {
		require.NoError(c, r.Err)
		require.Equal(c, want[i*size:(i+1)*size], r.Buf.Bytes())
		r.Buf.Release()
	}
	c.close(h)
}

// cancelFiles cancels opens: each ends once, with its real result or with
// ErrCanceled, and an open that succeeded is delivered or leaves no descriptor.
func cancelFiles(c *world) {
	dir := c.tempDir()
	before := countFDs()
	for range 10 {
		var ops []*rec
		for range 30 {
			r := c.op(runtime.OpOpen, 0)
			r.Path, r.Flags, r.Mode = filepath.Join(dir, "file"), openCreate, 0o600
			ops = append(ops, r)
		}
		c.submit(ops...)
		if c.rand.IntN(2) == 0 {
			c.poll()
		}
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
	}
	require.LessOrEqual(c, countFDs(), before, "descriptors without a handle: %s", listFDs())
}
