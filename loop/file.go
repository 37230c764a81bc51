package loop

import (
	"context"
	"fmt"
	"io"

	"github.com/noria-go/noria/runtime"
)

// A File is an open file of a loop. Only tasks of the loop may call its methods,
// which suspend the task and never the loop. When ctx ends, an operation is
// cancelled as far as the system can, and its end awaited.
//
// ReadAt and WriteAt move buffers, which stay the caller's. ReadAt puts the bytes
// behind those that the buffer holds.
type File struct {
	loop *Loop
	h    runtime.Handle
	path string
}

// Open opens the file at path with the flags and permissions of os.OpenFile, and
// waits until it is open. Only a task of the loop may call it.
func (l *Loop) Open(ctx context.Context, path string, flags int, mode uint32) (*File, error) {
	t := l.current()
	if t == nil {
		return nil, &runtime.OpError{Op: "open", Detail: path, Err: ErrOffLoop}
	}
	o := l.newOperation(t, runtime.OpOpen, 0)
	defer l.freeOperation(o)
	o.Path, o.Flags, o.Mode = path, flags, mode
	if err := o.do(ctx, runtime.Forever); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &File{loop: l, h: o.Got, path: path}, nil
}

func (f *File) do(ctx context.Context, code runtime.OpCode, set func(*runtime.Op)) (int, error) {
	t := f.loop.current()
	if t == nil {
		return 0, &runtime.OpError{Op: code.String(), Handle: f.h, Detail: f.path, Err: ErrOffLoop}
	}
	o := f.loop.newOperation(t, code, f.h)
	defer f.loop.freeOperation(o)
	if set != nil {
		set(&o.Op)
	}
	err := o.do(ctx, runtime.Forever)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%s: %w", f.path, err)
	}
	return o.N, err
}

// ReadAt reads once from offset off into the room of b. It returns the number of
// bytes, and io.EOF at the end of the file.
func (f *File) ReadAt(ctx context.Context, b *runtime.Buffer, off int64) (int, error) {
	return f.do(ctx, runtime.OpReadAt, func(op *runtime.Op) { op.Buf, op.Off = b, off })
}

// WriteAt writes all of b at offset off. It returns how many bytes it has written,
// also with an error.
func (f *File) WriteAt(ctx context.Context, b *runtime.Buffer, off int64) (int, error) {
	done := 0
	for done < b.Len() {
		n, err := f.do(ctx, runtime.OpWriteAt, func(op *runtime.Op) { op.Buf, op.Skip, op.Off = b, done, off+int64(done) })
		done += n
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return done, fmt.Errorf("after %d of %d bytes: %w", done, b.Len(), err)
		}
	}
	return done, nil
}

// Sync makes the file's bytes and its metadata durable (fsync).
func (f *File) Sync(ctx context.Context) error {
	_, err := f.do(ctx, runtime.OpFsync, nil)
	return err
}

// Datasync makes the file's bytes durable (fdatasync).
func (f *File) Datasync(ctx context.Context) error {
	_, err := f.do(ctx, runtime.OpFdatasync, nil)
	return err
}

// Allocate makes sure that the file has space for length bytes from off on. The file
// grows to it.
func (f *File) Allocate(ctx context.Context, off, length int64) error {
	_, err := f.do(ctx, runtime.OpAllocate, func(op *runtime.Op) { op.Off, op.Len = off, length })
	return err
}

// Close cancels the file's operations in flight, waits for their end, and closes the
// file. A killed task may call it too.
func (f *File) Close() error {
	_, err := f.do(noContext, runtime.OpClose, nil)
	return err
}
