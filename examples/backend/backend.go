// Package backend is a backend for Noria in a module of its own: all of runtime.Runtime
// on poll(2), with only what package runtime exports. Its test shows with package
// conformance that it keeps the contract. It is made to be read: io_uring and epoll are
// faster.
//
// Each handle has one queue of operations to receive and one to send. Poll asks the
// kernel which handles are ready and tries the first operation of each queue. Every
// result goes into one queue, done, and only Poll's delivery from there calls Op.Done.
// So no Done runs while the tables are being walked, results keep their order, and an
// operation that is refused at once is completed like any other. Files go to
// goroutines, since poll(2) reports a file as ready however slow its disk is.
package backend

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
)

const (
	budget     = 256      // results that one Poll delivers
	bufferSize = 16 << 10 // size of the buffers of OpRecvMany
	workers    = 4        // file operations that run at once
)

// Runtime is a runtime.Runtime on poll(2).
type Runtime struct {
	pool    *runtime.Pool
	slots   []slot
	free    []uint32
	done    []result
	live    int // operations in flight
	started bool
	closing bool

	fds   []unix.PollFd // the arguments of poll(2); the first is eventFD
	asked []*conn       // the owner of each element of fds; nil for eventFD

	files    sync.WaitGroup
	atOnce   chan struct{}
	mu       sync.Mutex
	fromFile []result // results that files has delivered
	eventFD  int      // Wake writes to it; -1: closed
}

var _ runtime.Runtime = (*Runtime)(nil)

// A slot is an entry of the table of handles. Its generation changes with every new
// owner, so a stale handle finds nothing.
type slot struct {
	gen uint32
	c   *conn // nil: free
}

// A conn is an open descriptor and the operations on it.
type conn struct {
	h       runtime.Handle
	fd      int
	in, out []*runtime.Op // queues of operations, first in, first out
	polls   []*runtime.Op // OpPolls
	files   int           // operations that goroutines carry out
	retryAt int64         // the first operation of in or out is not tried before this time
	closer  *runtime.Op   // OpClose, which waits for file operations
}

// A result waits until Poll delivers it.
type result struct {
	op   *runtime.Op
	more bool
	n    int
	buf  *runtime.Buffer
	got  runtime.Handle
	err  error
	fd   int // a file that OpOpen has opened; -1: none
}

// New makes a Runtime. It may be called from any thread.
func New() (*Runtime, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return &Runtime{eventFD: fd, atOnce: make(chan struct{}, workers)}, nil
}

// Start makes the calling thread the owner of the Runtime.
func (r *Runtime) Start(pool *runtime.Pool) error {
	if r.started || r.closing {
		return opErr("start", 0, runtime.ErrBusy)
	}
	r.pool, r.started = pool, true
	return nil
}

// Wake makes Poll return. It holds the lock so that it never writes to a number that
// Close has closed and that belongs to another file by now.
func (r *Runtime) Wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.eventFD >= 0 {
		_, _ = unix.Write(r.eventFD, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // EAGAIN: Poll is going to return anyway
	}
}

// start is when the program started.
var start = time.Now()

// Now returns the monotonic clock.
func (r *Runtime) Now() int64 { return int64(time.Since(start)) + 1 }

// Info names the backend.
func (r *Runtime) Info() runtime.Info {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return runtime.Info{Backend: "poll", Kernel: unix.ByteSliceToString(u.Release[:])}
}

func opErr(op string, h runtime.Handle, err error) error {
	if err == nil {
		return nil
	}
	return &runtime.OpError{Op: op, Handle: h, Err: err}
}

// open makes a handle of fd.
func (r *Runtime) open(fd int) *conn {
	if len(r.free) == 0 {
		r.free = append(r.free, uint32(len(r.slots)))
		r.slots = append(r.slots, slot{})
	}
	i := r.free[len(r.free)-1]
	r.free = r.free[:len(r.free)-1]
	s := &r.slots[i]
	s.gen = max(s.gen+1, 1) // generation 0 is never used
	s.c = &conn{h: runtime.MakeHandle(i, s.gen), fd: fd}
	return s.c
}

// conn returns the state of h, or nil if h is stale or not a handle.
func (r *Runtime) conn(h runtime.Handle) *conn {
	if i := int(h.Slot()); i < len(r.slots) && r.slots[i].gen == h.Gen() {
		return r.slots[i].c
	}
	return nil
}

// usable is conn for a new operation: it refuses a handle that is being closed.
func (r *Runtime) usable(h runtime.Handle) (*conn, error) {
	c := r.conn(h)
	if c == nil || c.closer != nil {
		return nil, runtime.ErrClosed
	}
	return c, nil
}

// forget frees the slot. The caller closes the descriptor.
func (r *Runtime) forget(c *conn) {
	r.slots[c.h.Slot()].c = nil
	r.free = append(r.free, c.h.Slot())
}

// closeFD closes the descriptor and frees the slot.
func (r *Runtime) closeFD(c *conn) error {
	r.forget(c)
	if err := unix.Close(c.fd); err != nil && err != unix.EINTR { // EINTR: it is closed anyway
		return err
	}
	return nil
}

// Listen opens a listening socket.
func (r *Runtime) Listen(addr runtime.Addr, opts runtime.ListenOptions) (runtime.Handle, error) {
	if r.closing {
		return 0, opErr("listen", 0, runtime.ErrClosed)
	}
	fd, err := listen(addr, opts)
	if err != nil {
		return 0, &runtime.OpError{Op: "listen", Detail: addr.String(), Err: err}
	}
	return r.open(fd).h, nil
}

// Adopt takes over fd. It makes fd non-blocking, since a descriptor that blocks would
// stop the loop.
func (r *Runtime) Adopt(fd int) (runtime.Handle, error) {
	if r.closing {
		return 0, opErr("adopt", 0, runtime.ErrClosed)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return 0, opErr("adopt", 0, err)
	}
	unix.CloseOnExec(fd)
	return r.open(fd).h, nil
}

// Detach returns the descriptor to the caller and forgets the handle.
func (r *Runtime) Detach(h runtime.Handle) (int, error) {
	c, err := r.usable(h)
	if err != nil {
		return -1, opErr("detach", h, err)
	}
	if len(c.in)+len(c.out)+len(c.polls)+c.files > 0 || slices.ContainsFunc(r.done, func(res result) bool { return res.op.Handle == h }) {
		return -1, opErr("detach", h, runtime.ErrBusy)
	}
	r.forget(c)
	return c.fd, nil
}

// SetOption sets a socket option.
func (r *Runtime) SetOption(h runtime.Handle, opt runtime.Option, value int) error {
	c, err := r.usable(h)
	if err == nil {
		err = setOption(c.fd, opt, value)
	}
	return opErr("set option", h, err)
}

// LocalAddr returns the socket's address.
func (r *Runtime) LocalAddr(h runtime.Handle) (runtime.Addr, error) {
	return r.addr("local address", h, unix.Getsockname)
}

// PeerAddr returns the address of the socket's peer.
func (r *Runtime) PeerAddr(h runtime.Handle) (runtime.Addr, error) {
	return r.addr("peer address", h, unix.Getpeername)
}

func (r *Runtime) addr(op string, h runtime.Handle, ask func(fd int) (unix.Sockaddr, error)) (runtime.Addr, error) {
	c, err := r.usable(h)
	if err != nil {
		return runtime.Addr{}, opErr(op, h, err)
	}
	sa, err := ask(c.fd)
	return fromSockaddr(sa), opErr(op, h, err)
}

// Close cancels everything, waits for the goroutines of file operations, delivers until
// nothing is in flight, and closes all descriptors. Operations that a Done submits
// meanwhile are refused, and come back too.
func (r *Runtime) Close() error {
	if r.closing {
		return opErr("close runtime", 0, runtime.ErrClosed)
	}
	r.closing = true
	for i := range r.slots {
		if c := r.slots[i].c; c != nil {
			r.cancelAll(c)
		}
	}
	r.files.Wait()
	for r.live > 0 {
		r.takeFiles()
		r.deliver()
	}
	var errs []error
	for i := range r.slots {
		if c := r.slots[i].c; c != nil {
			errs = append(errs, r.closeFD(c))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	errs = append(errs, unix.Close(r.eventFD))
	r.eventFD = -1
	return errors.Join(errs...)
}
