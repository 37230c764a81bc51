package broken

import (
	"slices"

	"github.com/noria-go/noria/runtime"
)

func closeFaults() []Fault {
	return []Fault{
		{Name: "does not say what became of operations", Case: "close/everything-comes-back", Wrap: func(good runtime.Runtime) runtime.Runtime {
			return &mute{newShim(good)}
		}},
		{Name: "listens after Close", Case: "close/submissions-are-refused", Wrap: func(good runtime.Runtime) runtime.Runtime {
			return &undead{shim: newShim(good)}
		}},
		{Name: "cannot be closed before Start", Case: "close/before-start", Wrap: func(good runtime.Runtime) runtime.Runtime {
			return &needsStart{shim: newShim(good)}
		}},
		{Name: "keeps what is submitted after Close", Case: "close/what-comes-later-comes-back", Wrap: func(good runtime.Runtime) runtime.Runtime {
			return &keeper{shim: newShim(good)}
		}},
		{Name: "closes as often as one likes", Case: "close/twice", Wrap: func(good runtime.Runtime) runtime.Runtime {
			return &undead{shim: newShim(good)}
		}},
		{Name: "does not say why", Case: "info", Wrap: func(good runtime.Runtime) runtime.Runtime {
			return secretive{newShim(good)}
		}},
		{Name: "leaves a goroutine", Case: "info", Wrap: func(good runtime.Runtime) runtime.Runtime {
			return &leavesGoroutine{shim: newShim(good)}
		}},
		{Name: "leaves a buffer", Case: "info", Wrap: func(good runtime.Runtime) runtime.Runtime {
			return leavesBuffer{newShim(good)}
		}},
	}
}

type mute struct{ *shim }

func (m *mute) Close() error {
	m.done = func(*runtime.Op) bool { return false }
	return m.shim.Close()
}

// undead still works after Close.
type undead struct {
	*shim
	closed bool
}

func (u *undead) Close() error {
	if u.closed {
		return nil
	}
	u.closed = true
	return u.shim.Close()
}

func (u *undead) Listen(addr runtime.Addr, opts runtime.ListenOptions) (runtime.Handle, error) {
	if u.closed {
		return runtime.MakeHandle(1, 1), nil
	}
	return u.shim.Listen(addr, opts)
}

// keeper delivers no completion after Close.
type keeper struct {
	*shim
	closed bool
}

func (k *keeper) Close() error {
	k.closed = true
	return k.shim.Close()
}

func (k *keeper) Submit(op *runtime.Op) {
	if k.closed {
		_ = op.Begin()
		return
	}
	k.shim.Submit(op)
}

type needsStart struct {
	*shim
	started bool
}

func (n *needsStart) Start(pool *runtime.Pool) error {
	n.started = true
	return n.shim.Start(pool)
}

func (n *needsStart) Close() error {
	err := n.shim.Close()
	if !n.started {
		return runtime.ErrClosed
	}
	return err
}

type secretive struct{ *shim }

func (s secretive) Info() runtime.Info {
	i := s.shim.Info()
	i.Features = slices.Clone(i.Features)
	for k := range i.Features {
		i.Features[k].Why = ""
	}
	return i
}

// leavesGoroutine leaves goroutines for good. There are several of them, because a
// goroutine of an earlier case that ends meanwhile hides one.
type leavesGoroutine struct{ *shim }

func (l *leavesGoroutine) Start(pool *runtime.Pool) error {
	for range 10 {
		go func() { select {} }()
	}
	return l.shim.Start(pool)
}

type leavesBuffer struct{ *shim }

func (l leavesBuffer) Close() error {
	_, err := l.pool.Get(1000)
	if err != nil {
		return err
	}
	return l.shim.Close()
}
