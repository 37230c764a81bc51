package broken

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
)

func socketFaults() []Fault {
	return []Fault{
		{Name: "lets children inherit descriptors", Case: "rule07/cloexec", Wrap: func(good runtime.Runtime) runtime.Runtime {
			return inherits{newShim(good)}
		}},
		{Name: "shows EAGAIN of an adopted socket", Case: "rule07/descriptor-flags", Wrap: func(good runtime.Runtime) runtime.Runtime {
			return &shows{shim: newShim(good), adopted: map[runtime.Handle]bool{}}
		}},
		onDone("counts in 32 bits", "rule07/lengths-are-cut", func(_ *shim, op *runtime.Op) bool {
			if op.Code == runtime.OpSend && op.Buf.Len() > runtime.MaxBytes {
				op.N = int(uint32(op.Buf.Len()))
			}
			return true
		}),
		{Name: "lets a second program in", Case: "rule11/second-program", Wrap: func(good runtime.Runtime) runtime.Runtime {
			return welcoming{newShim(good)}
		}},
		onDone("keeps quiet about missing descriptors", "sockets/accept-out-of-descriptors", hideEMFILE),
		hooked("does not cancel connects", "sockets/connect-cancelled", func(s *shim) {
			s.cancel = func(op *runtime.Op) bool { return op.Code == runtime.OpConnect }
		}),
		{Name: "ignores options", Case: "sockets/options", Wrap: func(good runtime.Runtime) runtime.Runtime {
			return stubborn{newShim(good)}
		}},
		{Name: "does not know who a unix socket's peer is", Case: "sockets/unix", Wrap: func(good runtime.Runtime) runtime.Runtime {
			return forgetful{newShim(good)}
		}},
		stopsShort("stops at urgent data", "sockets/urgent-data"),
		stopsShort("stops at a message with descriptors", "sockets/descriptors-in-messages"),
		{Name: "detaches what is busy", Case: "sockets/adopt-and-detach", Wrap: func(good runtime.Runtime) runtime.Runtime {
			return hasty{newShim(good)}
		}},
		onSubmit("waits for the other end of a pipe for ever", "files/pipes-are-cancelled", func(_ *shim, op *runtime.Op) bool {
			if op.Code != runtime.OpOpen {
				return false
			}
			op.Begin()
			return true
		}),
		{Name: "leaves a descriptor", Case: "info", Wrap: func(good runtime.Runtime) runtime.Runtime {
			return leavesFD{newShim(good)}
		}},
	}
}

// stopsShort receives once and takes that for all there is.
func stopsShort(name, cs string) Fault {
	return onDone(name, cs, func(s *shim, op *runtime.Op) bool {
		if op.Code != runtime.OpRecvMany || !op.More {
			return true
		}
		if s.count++; s.count == 1 {
			return true
		}
		op.Buf.Release()
		return false
	})
}

// loopSocketFaults returns those of Loops that are about Linux's sockets.
func loopSocketFaults() []Fault {
	return []Fault{
		{Name: "lets a second program in", Case: "rule11/second-group-refused", Wrap: func(good runtime.Runtime) runtime.Runtime {
			return welcoming{newShim(good)}
		}},
		{Name: "takes a unix socket's address from who has it", Case: "serve/unix", Wrap: func(good runtime.Runtime) runtime.Runtime {
			return usurps{good}
		}},
		onDone("keeps quiet about missing descriptors", "trap/listener-survives-emfile", hideEMFILE),
		{Name: "leaves sockets open", Case: "hostile/goexit-in-posted-function", Wrap: func(good runtime.Runtime) runtime.Runtime {
			return duplicates{good}
		}},
	}
}

func hideEMFILE(_ *shim, op *runtime.Op) bool {
	if errors.Is(op.Err, syscall.EMFILE) {
		fail(op, runtime.ErrCanceled)
	}
	return true
}

type usurps struct{ runtime.Runtime }

func (u usurps) Listen(addr runtime.Addr, opts runtime.ListenOptions) (runtime.Handle, error) {
	if addr.Path != "" {
		_ = unix.Unlink(addr.Path)
	}
	return u.Runtime.Listen(addr, opts)
}

// duplicates duplicates each socket and closes only one of the two descriptors.
type duplicates struct{ runtime.Runtime }

func (d duplicates) Adopt(fd int) (runtime.Handle, error) {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return 0, err
	}
	return d.Runtime.Adopt(fd)
}

type inherits struct{ *shim }

func (i inherits) Detach(h runtime.Handle) (int, error) {
	fd, err := i.shim.Detach(h)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
	}
	return fd, err
}

type shows struct {
	*shim
	adopted map[runtime.Handle]bool
}

func (s *shows) Adopt(fd int) (runtime.Handle, error) {
	h, err := s.shim.Adopt(fd)
	s.adopted[h] = true
	return h, err
}

func (s *shows) Submit(op *runtime.Op) {
	if op.Code == runtime.OpRecv && s.adopted[op.Handle] {
		s.answer(op, 0, unix.EAGAIN)
		return
	}
	s.shim.Submit(op)
}

type welcoming struct{ *shim }

func (w welcoming) Listen(addr runtime.Addr, opts runtime.ListenOptions) (runtime.Handle, error) {
	opts.Join = opts.Join || opts.Joinable
	return w.shim.Listen(addr, opts)
}

type stubborn struct{ *shim }

func (s stubborn) SetOption(h runtime.Handle, opt runtime.Option, v int) error {
	if opt == runtime.OptUserTimeout {
		return nil
	}
	return s.shim.SetOption(h, opt, v)
}

type forgetful struct{ *shim }

func (f forgetful) PeerAddr(h runtime.Handle) (runtime.Addr, error) {
	a, err := f.shim.PeerAddr(h)
	if a.Path != "" {
		a = runtime.Addr{}
	}
	return a, err
}

type hasty struct{ *shim }

func (h hasty) Detach(handle runtime.Handle) (int, error) {
	fd, err := h.shim.Detach(handle)
	if errors.Is(err, runtime.ErrBusy) {
		err = nil
	}
	return fd, err
}

// leavesFD leaves a descriptor open for good. If it closed the descriptor later, it
// would be no leak.
type leavesFD struct{ *shim }

func (l leavesFD) Start(pool *runtime.Pool) error {
	if _, err := unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return err
	}
	return l.shim.Start(pool)
}
