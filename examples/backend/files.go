package backend

import (
	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
)

// toFiles gives op to a goroutine. It reads op's fields here, on the Runtime's thread;
// the goroutine delivers the result through fromFile.
func (r *Runtime) toFiles(c *conn, op *runtime.Op) {
	fd := -1
	if c != nil {
		fd = c.fd
		c.files++
	}
	do := fileCall(op, fd)
	r.files.Go(func() {
		r.atOnce <- struct{}{}
		res := do()
		<-r.atOnce
		r.mu.Lock()
		r.fromFile = append(r.fromFile, res)
		r.mu.Unlock()
		r.Wake()
	})
}

// fileCall returns the system call that op asks for.
func fileCall(op *runtime.Op, fd int) func() result {
	var call func() (int, error)
	switch op.Code {
	case runtime.OpOpen:
		// O_NONBLOCK, because nothing could interrupt an open that waits for a pipe's
		// other end.
		path, flags, mode := op.Path, op.Flags|unix.O_CLOEXEC|unix.O_NONBLOCK, op.Mode
		call = func() (int, error) { return unix.Open(path, flags, mode) }
	case runtime.OpReadAt:
		p, off := op.Target(), op.Off
		call = func() (int, error) { return unix.Pread(fd, p, off) }
	case runtime.OpWriteAt:
		p, off := op.Unsent(0), op.Off
		call = func() (int, error) { return unix.Pwrite(fd, p, off) }
	case runtime.OpAllocate:
		off, length := op.Off, op.Len
		call = func() (int, error) { return 0, unix.Fallocate(fd, 0, off, length) }
	case runtime.OpFdatasync:
		call = func() (int, error) { return 0, unix.Fdatasync(fd) }
	default:
		call = func() (int, error) { return 0, unix.Fsync(fd) }
	}
	return func() result {
		n, err := call()
		for err == unix.EINTR {
			n, err = call()
		}
		res := result{op: op, fd: -1, err: err}
		switch {
		case err != nil:
		case op.Code == runtime.OpOpen:
			res.fd = n
		default:
			res.n = n
		}
		return res
	}
}

// takeFiles takes the results that the goroutines have delivered.
func (r *Runtime) takeFiles() {
	r.mu.Lock()
	results := r.fromFile
	r.fromFile = nil
	r.mu.Unlock()
	for _, res := range results {
		if res.fd >= 0 {
			res.got = r.open(res.fd).h
		}
		r.done = append(r.done, res)
		if c := r.conn(res.op.Handle); c != nil && res.op.Code != runtime.OpOpen {
			c.files--
			r.closeIfDone(c)
		}
	}
}
