//go:build !386 && !arm && !mips && !mipsle

package uring

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/godzie44/go-uring/uring"
	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/runtime/internal/hot"
	"github.com/noria-go/noria/runtime/internal/sys"
	"github.com/noria-go/noria/runtime/internal/wake"
)

// Defaults and limits of Options.
const (
	defaultEntries = 512
	cqFactor       = 8
	defaultBudget  = 256
	maxEntries     = 1 << 15 // the kernel's limit, and go-uring refuses more
	maxBuffers     = 1 << 15 // the longest ring of provided buffers
	minBufferSize  = 2 * hot.Headroom
	maxBufferSize  = 1 << 30
	batchSize      = 64 // completions copied from the queue at once
)

// A Runtime is an io_uring runtime: see New. Wake, Now and Info may be called from
// anywhere, all other methods only on the thread that called Start.
type Runtime struct {
	opts  Options
	can   abilities
	ring  *ring
	pool  *runtime.Pool
	table table
	conns sys.Table[conn]

	backlog queue // flights that wait for room in the submission queue
	parked  queue // receives that have bytes and wait for a buffer
	done    queue // flights that ended without the kernel

	events      [batchSize]uring.CQEvent // copied from the queue
	scratch     [batchSize]*uring.CQEvent
	event, evts int // the next of events, and how many there are

	delivered int // completions of this Poll
	waker     wake.Waker
	wakeArmed bool // its poll is in the kernel
	timer     timer
	buffers   buffers

	multiAccept, multiRecv bool // features that the hot path checks

	started, closing, closed bool

	infoMu sync.Mutex
	info   runtime.Info
}

var _ runtime.Runtime = (*Runtime)(nil)

// New makes an io_uring runtime. It fails if the kernel, or its configuration, does
// not permit one: the error wraps errors.ErrUnsupported and the kernel's error, and
// says what to do.
func New(opts Options) (runtime.Runtime, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	can, err := probe()
	if err != nil {
		return nil, err
	}
	if can, err = can.without(opts.Off); err != nil {
		return nil, err
	}
	r := &Runtime{opts: opts, can: can}
	r.info = runtime.Info{Backend: "io_uring", Kernel: sys.Kernel(), Features: can.list()}
	if err := r.openRing(); err != nil {
		return nil, err
	}
	// Without R_DISABLED a single-issuer ring belongs to the thread that made it. So
	// this ring only showed that one can be made, and Start makes another.
	if !can.has(FeatureRDisabled) {
		err = r.ring.close()
		r.ring = nil
	}
	if err == nil {
		err = r.waker.Open()
	}
	if err != nil {
		if r.ring != nil {
			_ = r.ring.close()
		}
		return nil, fmt.Errorf("io_uring: %w", err)
	}
	return r, nil
}

// complete fills in the defaults and checks the options.
func (o *Options) complete() error {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.Entries, defaultEntries)
	def(&o.CQEntries, cqFactor*o.Entries)
	def(&o.BufferSize, hot.DefaultSize)
	def(&o.Budget, defaultBudget)
	switch {
	case o.Entries < 1 || o.Entries > maxEntries:
		return fmt.Errorf("io_uring: Entries is %d, want 1 to %d", o.Entries, maxEntries)
	case o.CQEntries < o.Entries:
		return fmt.Errorf("io_uring: CQEntries is %d, fewer than Entries (%d)", o.CQEntries, o.Entries)
	case o.Buffers < 0 || o.Buffers > maxBuffers:
		return fmt.Errorf("io_uring: Buffers is %d, want at most %d", o.Buffers, maxBuffers)
	case o.BufferSize < minBufferSize || o.BufferSize > maxBufferSize:
		return fmt.Errorf("io_uring: BufferSize is %d, want %d to %d", o.BufferSize, minBufferSize, maxBufferSize)
	case o.Budget < 1:
		return fmt.Errorf("io_uring: Budget is %d, want at least 1", o.Budget)
	}
	return nil
}

// openRing makes the ring with all flags that the kernel supports. Each was tried
// on its own. If the kernel refuses the combination, openRing tries fewer.
func (r *Runtime) openRing() error {
	flags := r.can.flags()
	for _, fewer := range []uint32{0, setupDeferTaskrun, setupCoopTaskrun | setupTaskrunFlag, setupSingleIssuer | setupSubmitAll} {
		flags &^= fewer
		ring, err := newRing(uint32(r.opts.Entries), uint32(r.opts.CQEntries), flags)
		if errors.Is(err, syscall.EINVAL) {
			continue
		}
		if err != nil {
			return explain(err)
		}
		r.ring = ring
		r.tune(flags)
		return nil
	}
	return explain(syscall.EINVAL)
}

// tune configures the ring for the flags that it got, and drops the features of the
// others.
func (r *Runtime) tune(flags uint32) {
	for name, flag := range setupFlags {
		if r.can.has(name) && flags&flag == 0 {
			r.lose(name, "the kernel refuses it in combination with the others")
		}
	}
	r.ring.extArg = r.can.has(FeatureExtArg)
	if r.can.has(FeatureNoIowait) {
		r.ring.noIowait = enterNoIowait
	}
	if flags&setupTaskrunFlag != 0 {
		r.ring.taskrun = sqTaskrun
	}
	r.ring.deferred = flags&(setupDeferTaskrun|setupTaskrunFlag) == setupDeferTaskrun
}

// lose marks a feature, and those that need it, as unavailable.
func (r *Runtime) lose(name, why string) {
	r.infoMu.Lock()
	defer r.infoMu.Unlock()
	r.can[name] = why
	for _, f := range features {
		if f.needs == name && r.can.has(f.name) {
			r.can[f.name] = "needs " + name
		}
	}
	r.info.Features = r.can.list()
}

// Info describes the runtime. It may be called from anywhere.
func (r *Runtime) Info() runtime.Info {
	r.infoMu.Lock()
	defer r.infoMu.Unlock()
	return r.info
}

// Now returns the nanoseconds since the process started. It may be called from
// anywhere.
func (r *Runtime) Now() int64 { return sys.Now() }

// Start makes the calling thread the owner, enables the ring on it and provides its
// receive buffers.
func (r *Runtime) Start(pool *runtime.Pool) error {
	switch {
	case r.closed || r.closing:
		return &runtime.OpError{Op: "start", Err: runtime.ErrClosed}
	case r.started:
		return &runtime.OpError{Op: "start", Err: runtime.ErrBusy}
	}
	r.pool = pool
	if r.can.has(FeatureRDisabled) {
		if err := register(r.ring.fd, registerEnableRings, nil, 0); err != nil {
			return fmt.Errorf("io_uring: enable the ring: %w", err)
		}
	} else if err := r.openRing(); err != nil {
		return err
	}
	if err := r.openBuffers(); err != nil {
		return fmt.Errorf("io_uring: %w", err)
	}
	r.started = true
	return nil
}

// Listen opens a listening socket.
func (r *Runtime) Listen(addr runtime.Addr, opts runtime.ListenOptions) (runtime.Handle, error) {
	fd, err := -1, error(runtime.ErrClosed)
	if !r.closing {
		fd, err = sys.Listen(addr, opts, false)
	}
	if err != nil {
		return 0, &runtime.OpError{Op: "listen", Detail: addr.String(), Err: err}
	}
	return r.open(fd), nil
}

// open adds a descriptor to the table and returns its handle.
func (r *Runtime) open(fd int) runtime.Handle {
	h, slot := r.conns.Add(fd)
	slot.Data.handle, slot.Data.fd = h, int32(fd)
	return h
}

// Adopt takes over a descriptor, which may be non-blocking: an operation that gets
// EAGAIN waits for readiness and is tried again.
func (r *Runtime) Adopt(fd int) (runtime.Handle, error) {
	err := error(runtime.ErrClosed)
	if !r.closing {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC)
	}
	if err != nil {
		return 0, &runtime.OpError{Op: "adopt", Err: err}
	}
	return r.open(fd), nil
}

// conn returns the state of h, or nil if h is closed or being closed.
func (r *Runtime) conn(h runtime.Handle) *conn {
	slot := r.conns.Get(h)
	if slot == nil || slot.Data.closer != nil {
		return nil
	}
	return &slot.Data
}

// Detach closes a handle without closing its descriptor, which then belongs to the
// caller.
func (r *Runtime) Detach(h runtime.Handle) (int, error) {
	c := r.conn(h)
	if c == nil {
		return -1, &runtime.OpError{Op: "detach", Handle: h, Err: runtime.ErrClosed}
	}
	if c.ops.Len() > 0 {
		return -1, &runtime.OpError{Op: "detach", Handle: h, Err: runtime.ErrBusy}
	}
	fd := int(c.fd)
	r.conns.Remove(h)
	return fd, nil
}

// SetOption sets a socket option.
func (r *Runtime) SetOption(h runtime.Handle, opt runtime.Option, value int) error {
	err := error(runtime.ErrClosed)
	if c := r.conn(h); c != nil {
		err = sys.SetOption(int(c.fd), opt, value)
	}
	if err != nil {
		return &runtime.OpError{Op: "set option", Handle: h, Err: err}
	}
	return nil
}

// LocalAddr returns the socket's local address.
func (r *Runtime) LocalAddr(h runtime.Handle) (runtime.Addr, error) {
	return r.ask("local address", h, sys.LocalAddr)
}

// PeerAddr returns the address of the socket's peer.
func (r *Runtime) PeerAddr(h runtime.Handle) (runtime.Addr, error) {
	return r.ask("peer address", h, sys.PeerAddr)
}

func (r *Runtime) ask(what string, h runtime.Handle, get func(fd int) (runtime.Addr, error)) (runtime.Addr, error) {
	addr, err := runtime.Addr{}, error(runtime.ErrClosed)
	if c := r.conn(h); c != nil {
		addr, err = get(int(c.fd))
	}
	if err != nil {
		return runtime.Addr{}, &runtime.OpError{Op: what, Handle: h, Err: err}
	}
	return addr, nil
}
