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
	maxEntries     = 1 << 15 // the kernel clamps to it, and go-uring refuses more
	maxBuffers     = 1 << 15 // as long as a ring of provided buffers can be
	minBufferSize  = 2 * hot.Headroom
	maxBufferSize  = 1 << 30
	batchSize      = 64 // completions copied out of the queue at once
)

// A Runtime is an io_uring runtime: see New. Except for Wake, Now and Info it
// belongs to the thread that called Start.
type Runtime struct {
	opts  Options
	can   abilities
	ring  *ring
	pool  *runtime.Pool
	table table
	conns sys.Table[conn]

	backlog queue // the submission queue was full
	parked  queue // receives that wait for a buffer
	done    queue // results that need no kernel

	events      [batchSize]uring.CQEvent // read and not handled yet
	scratch     [batchSize]*uring.CQEvent
	event, evts int // the next of them, and how many there are

	delivered int // completions of this Poll
	waker     wake.Waker
	wakeArmed bool // its poll is in the kernel
	timer     timer
	buffers   buffers

	multiAccept, multiRecv bool // features, for the hot path

	started, closing, closed bool

	infoMu sync.Mutex
	info   runtime.Info
}

var _ runtime.Runtime = (*Runtime)(nil)

// New makes an io_uring runtime, or says why there is none: an error that
// wraps errors.ErrUnsupported, and the kernel's own, and says what to do.
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
	// Without R_DISABLED, a single-issuer ring belongs to the thread that made
	// it. So this one only showed that it can be made; Start makes another.
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

// complete fills in the defaults and refuses what cannot be.
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

// openRing makes the ring with all flags that the kernel is known to have.
// Each was tried by itself; should it refuse them together, it gets fewer.
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

// tune tells the ring and the world which flags it got.
func (r *Runtime) tune(flags uint32) {
	for name, flag := range setupFlags {
		if r.can.has(name) && flags&flag == 0 {
			r.lose(name, "the kernel refuses it together with the others")
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

// lose notes that a feature cannot be had after all.
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

// Info describes the runtime.
func (r *Runtime) Info() runtime.Info {
	r.infoMu.Lock()
	defer r.infoMu.Unlock()
	return r.info
}

// Now is the time since the process started.
func (r *Runtime) Now() int64 { return sys.Now() }

// Start enables the ring on this thread and gives it its receive buffers.
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

// open makes a handle of a descriptor.
func (r *Runtime) open(fd int) runtime.Handle {
	h, slot := r.conns.Add(fd)
	slot.Data.handle, slot.Data.fd = h, int32(fd)
	return h
}

// Adopt takes over a descriptor. It may be non-blocking: what then answers
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

// conn returns what h names, or nil if it is closed or being closed.
func (r *Runtime) conn(h runtime.Handle) *conn {
	slot := r.conns.Get(h)
	if slot == nil || slot.Data.closer != nil {
		return nil
	}
	return &slot.Data
}

// Detach gives the descriptor of a handle back to the caller.
func (r *Runtime) Detach(h runtime.Handle) (int, error) {
	c := r.conn(h)
	if c == nil {
		return -1, &runtime.OpError{Op: "detach", Handle: h, Err: runtime.ErrClosed}
	}
	if c.count > 0 {
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

// LocalAddr returns the socket's own address.
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
