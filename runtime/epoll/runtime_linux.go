package epoll

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/internal/list"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/runtime/internal/hot"
	"github.com/noria-go/noria/runtime/internal/sys"
	"github.com/noria-go/noria/runtime/internal/wake"
)

// Runtime is a runtime.Runtime on epoll: see New. Wake, Now and Info may be called
// from anywhere, all other methods only on the thread that called Start.
type Runtime struct {
	opts   Options
	pool   *runtime.Pool
	poller poller
	waker  wake.Waker
	fds    sys.Table[conn]
	hot    *hot.Set
	idle   []uint32 // free hot buffers; the one used last, and thus cached, is reused first

	turns   list.List[conn]  // handles with an operation to try
	parked  []runtime.Handle // handles whose receive waits for a hot buffer, in order
	retries []*conn          // connecting unix sockets whose peer's backlog is full
	done    opQueue          // operations whose results wait for Poll
	files   workers
	scratch vec
	peer    sys.RawAddr // the address for connect: not on a stack, which can move

	live      int // operations in flight
	delivered int // completions of this Poll
	returned  int // hot buffers released since receivers last had priority
	skipped   bool
	started   bool
	closing   bool
	closed    bool
}

var _ runtime.Runtime = (*Runtime)(nil)

// New makes a Runtime. It fails if the options are invalid or epoll is unavailable.
func New(opts Options) (*Runtime, error) {
	opts.Buffers = max(opts.Buffers, 0)
	if opts.BufferSize <= 0 {
		opts.BufferSize = hot.DefaultSize
	}
	if opts.Workers <= 0 {
		opts.Workers = DefaultWorkers
	}
	if opts.Budget <= 0 {
		opts.Budget = DefaultBudget
	}
	if opts.BufferSize <= hot.Headroom {
		return nil, fmt.Errorf("epoll: receive buffers of %d bytes: want more than %d", opts.BufferSize, hot.Headroom)
	}
	r := &Runtime{opts: opts}
	if err := r.poller.open(slices.Contains(opts.Off, FeaturePwait2)); err != nil {
		return nil, err
	}
	if err := r.waker.Open(); err != nil {
		return nil, errors.Join(fmt.Errorf("eventfd: %w", err), r.poller.close())
	}
	if err := r.poller.addWaker(&r.waker); err != nil {
		return nil, errors.Join(fmt.Errorf("epoll_ctl: %w", err), r.waker.Close(), r.poller.close())
	}
	r.files.init(opts.Workers, r.Wake)
	return r, nil
}

// Start makes the calling thread the owner and allocates the receive buffers.
func (r *Runtime) Start(pool *runtime.Pool) error {
	if r.started || r.closed {
		return &runtime.OpError{Op: "start", Err: runtime.ErrBusy}
	}
	set, err := hot.New(pool, r.opts.Buffers, r.opts.BufferSize, func(i uint32) {
		r.idle = append(r.idle, i)
		r.returned++
	})
	if err != nil {
		return err
	}
	r.pool, r.hot, r.started = pool, set, true
	r.idle = make([]uint32, 0, set.Count())
	for i := range uint32(set.Count()) {
		r.idle = append(r.idle, i)
	}
	return nil
}

// Now returns the nanoseconds since the process started. It may be called from
// anywhere.
func (r *Runtime) Now() int64 { return sys.Now() }

// Wake makes Poll return. It may be called from anywhere.
func (r *Runtime) Wake() { r.waker.Wake() }

// Info describes the Runtime. It may be called from anywhere.
func (r *Runtime) Info() runtime.Info {
	return runtime.Info{Backend: "epoll", Kernel: sys.Kernel(), Features: []runtime.Feature{
		{Name: FeaturePwait2, On: r.poller.pwait2, Why: r.poller.why, Since: "5.11"},
	}}
}

func opErr(op string, h runtime.Handle, err error) error {
	if err == nil {
		return nil
	}
	return &runtime.OpError{Op: op, Handle: h, Err: err}
}

// conn returns the handle's state, or ErrClosed if the handle is closed or being
// closed.
func (r *Runtime) conn(h runtime.Handle) (*conn, error) {
	s := r.fds.Get(h)
	if s == nil || s.Data.closer != nil {
		return nil, runtime.ErrClosed
	}
	return &s.Data, nil
}

// open adds fd to the table and returns its handle.
func (r *Runtime) open(fd int, file bool) runtime.Handle {
	h, s := r.fds.Add(fd)
	s.Data = conn{h: h, fd: fd, file: file}
	s.Data.in.ready, s.Data.out.ready = true, true // unknown, so try both
	return h
}

// openSocket is open for a socket that is known to be a unix socket or not.
func (r *Runtime) openSocket(fd int, unix bool) runtime.Handle {
	h := r.open(fd, false)
	r.fds.Get(h).Data.unix = unix
	return h
}

// Listen opens a listening socket.
func (r *Runtime) Listen(addr runtime.Addr, opts runtime.ListenOptions) (runtime.Handle, error) {
	if r.closing {
		return 0, opErr("listen", 0, runtime.ErrClosed)
	}
	fd, err := sys.Listen(addr, opts, true)
	if err != nil {
		return 0, &runtime.OpError{Op: "listen", Detail: addr.String(), Err: err}
	}
	return r.openSocket(fd, addr.Path != ""), nil
}

// Adopt takes over fd. It makes a socket non-blocking, also for all other
// users of it, because a blocking socket would stop the loop.
func (r *Runtime) Adopt(fd int) (runtime.Handle, error) {
	if r.closing {
		return 0, opErr("adopt", 0, runtime.ErrClosed)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, opErr("adopt", 0, err)
	}
	file := st.Mode&unix.S_IFMT == unix.S_IFREG
	if !file {
		if err := unix.SetNonblock(fd, true); err != nil {
			return 0, opErr("adopt", 0, err)
		}
	}
	unix.CloseOnExec(fd)
	h := r.open(fd, file)
	c := &r.fds.Get(h).Data
	c.adopted = true
	if domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err == nil { // otherwise fd is not a socket
		c.unix = domain == unix.AF_UNIX
	}
	return h, nil
}

// Detach closes a handle without closing its descriptor, which then belongs to the
// caller.
func (r *Runtime) Detach(h runtime.Handle) (int, error) {
	c, err := r.conn(h)
	if err != nil {
		return -1, opErr("detach", h, err)
	}
	if c.ops > 0 {
		return -1, opErr("detach", h, fmt.Errorf("%w: %d operations are in flight", runtime.ErrBusy, c.ops))
	}
	if c.registered {
		if err := r.poller.remove(c.fd); err != nil {
			return -1, opErr("detach", h, err)
		}
	}
	fd := c.fd
	r.forget(c)
	return fd, nil
}

// forget removes the handle. The caller owns the descriptor.
func (r *Runtime) forget(c *conn) {
	if c.turn.List() != nil {
		r.turns.Remove(&c.turn)
	}
	r.fds.Remove(c.h)
}

// SetOption sets a socket option.
func (r *Runtime) SetOption(h runtime.Handle, opt runtime.Option, value int) error {
	c, err := r.conn(h)
	if err == nil {
		err = sys.SetOption(c.fd, opt, value)
	}
	return opErr("set option", h, err)
}

// LocalAddr returns the socket's local address.
func (r *Runtime) LocalAddr(h runtime.Handle) (runtime.Addr, error) {
	return r.addr("local address", h, sys.LocalAddr)
}

// PeerAddr returns the address of the socket's peer.
func (r *Runtime) PeerAddr(h runtime.Handle) (runtime.Addr, error) {
	return r.addr("peer address", h, sys.PeerAddr)
}

func (r *Runtime) addr(op string, h runtime.Handle, ask func(int) (runtime.Addr, error)) (runtime.Addr, error) {
	c, err := r.conn(h)
	if err != nil {
		return runtime.Addr{}, opErr(op, h, err)
	}
	a, err := ask(c.fd)
	return a, opErr(op, h, err)
}
