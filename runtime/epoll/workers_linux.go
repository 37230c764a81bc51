package epoll

import (
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
)

// workers are goroutines that make the blocking calls: operations on files. The
// loop adds operations to todo and takes results from ready. It never waits for a
// worker, except in Close.
type workers struct {
	max  int
	wake func() // wakes the loop to take results

	mu      sync.Mutex
	work    sync.Cond
	results sync.Cond
	todo    []*fileOp
	ready   []*fileOp
	running int // number of workers that run an operation
	idle    int
	started int
	quit    bool
	all     sync.WaitGroup
	free    []*fileOp
}

// A fileOp is an operation, the descriptor that it is for, and its result.
type fileOp struct {
	op  *runtime.Op
	fd  int
	n   int
	err error
}

func (w *workers) init(limit int, wake func()) {
	w.max, w.wake = limit, wake
	w.work.L, w.results.L = &w.mu, &w.mu
}

// toWorkers passes op to the workers. c is nil if op opens a file.
func (r *Runtime) toWorkers(c *conn, op *runtime.Op) {
	if c != nil {
		c.ops++
		op.Sys.N = c.fd
	}
	r.files.add(op)
}

// add queues op, whose descriptor is in op.Sys.N.
func (w *workers) add(op *runtime.Op) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := &fileOp{}
	if n := len(w.free); n > 0 {
		f, w.free = w.free[n-1], w.free[:n-1]
	}
	*f = fileOp{op: op, fd: op.Sys.N}
	op.Sys.State = inWorkers
	w.todo = append(w.todo, f)
	if len(w.todo) > w.idle && w.started < w.max {
		w.started++
		w.all.Go(w.serve)
		return
	}
	w.work.Signal()
}

func (w *workers) serve() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for len(w.todo) == 0 {
			if w.quit {
				return
			}
			w.idle++
			w.work.Wait()
			w.idle--
		}
		f := w.todo[0]
		w.todo = slices.Delete(w.todo, 0, 1)
		w.running++
		w.mu.Unlock()
		f.n, f.err = f.do()
		w.mu.Lock()
		w.running--
		w.ready = append(w.ready, f)
		w.results.Signal()
		w.wake()
	}
}

// do makes the system call, and repeats it if a signal interrupts it.
func (f *fileOp) do() (n int, err error) {
	for {
		n, err = f.once()
		if err != unix.EINTR {
			return max(n, 0), err
		}
		if f.op.Code == runtime.OpClose {
			return 0, nil // the descriptor is closed even so: close(2)
		}
	}
}

func (f *fileOp) once() (int, error) {
	op := f.op
	switch op.Code {
	case runtime.OpOpen:
		return open(op)
	case runtime.OpReadAt:
		return unix.Pread(f.fd, op.Target(), op.Off)
	case runtime.OpWriteAt:
		return unix.Pwrite(f.fd, op.Unsent(0), op.Off)
	case runtime.OpFsync:
		return 0, unix.Fsync(f.fd)
	case runtime.OpFdatasync:
		return 0, unix.Fdatasync(f.fd)
	case runtime.OpAllocate:
		return 0, unix.Fallocate(f.fd, 0, op.Off, op.Len)
	case runtime.OpClose:
		return 0, unix.Close(f.fd)
	}
	return 0, unix.EINVAL
}

// open opens a file. The path may name something else, such as a named pipe, whose
// open would keep a worker, and Close, waiting for the pipe's other end. So open
// adds O_NONBLOCK, which has no effect on a file.
func open(op *runtime.Op) (int, error) {
	fd, err := unix.Open(op.Path, op.Flags|unix.O_CLOEXEC|unix.O_NONBLOCK, op.Mode)
	if err == nil && op.Flags&unix.O_NONBLOCK == 0 {
		err = unix.SetNonblock(fd, false)
		if err != nil {
			_ = unix.Close(fd) // it was never used
		}
	}
	return fd, err
}

// takeFiles takes the results of the workers.
func (r *Runtime) takeFiles() {
	w := &r.files
	w.mu.Lock()
	ready := w.ready
	w.ready = nil
	w.mu.Unlock()
	for _, f := range ready {
		op, c := f.op, r.connOf(f.op)
		n, got, err := f.n, runtime.Handle(0), f.err
		if op.Code == runtime.OpOpen && err == nil {
			if n = 0; r.closing {
				_ = unix.Close(f.n) // the runtime is closing
				err = runtime.ErrCanceled
			} else {
				got = r.open(f.n, true)
			}
		}
		if op.Code == runtime.OpClose {
			c = nil
		}
		r.finish(c, op, n, got, err)
		f.op = nil
	}
	if len(ready) > 0 {
		w.mu.Lock()
		w.free = append(w.free, ready[:min(len(ready), 64)]...)
		w.mu.Unlock()
	}
}

// cancel removes op from the queue, and reports false if a worker has taken it.
func (w *workers) cancel(op *runtime.Op) bool {
	return len(w.cancelIf(func(o *runtime.Op) bool { return o == op })) > 0
}

func (w *workers) cancelHandle(h runtime.Handle) []*runtime.Op {
	return w.cancelIf(func(o *runtime.Op) bool { return o.Handle == h && o.Code != runtime.OpOpen })
}

func (w *workers) cancelAll() []*runtime.Op {
	return w.cancelIf(func(*runtime.Op) bool { return true })
}

// cancelIf removes the matching operations from the queue and returns them. It
// leaves every close.
func (w *workers) cancelIf(match func(*runtime.Op) bool) (out []*runtime.Op) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.todo = slices.DeleteFunc(w.todo, func(f *fileOp) bool {
		if f.op.Code == runtime.OpClose || !match(f.op) {
			return false
		}
		out = append(out, f.op)
		return true
	})
	return out
}

// waitResult waits until a worker has a result.
func (w *workers) waitResult() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.ready) == 0 {
		w.results.Wait()
	}
}

// stop ends the workers.
func (w *workers) stop() {
	w.mu.Lock()
	w.quit = true
	w.work.Broadcast()
	w.mu.Unlock()
	w.all.Wait()
}
