// Package broken wraps a good runtime.Runtime into faulty ones, so that conformance can
// be seen to fail: each Fault breaks one promise and names the case that must notice.
//
// A fault stands between the caller and the good runtime. It sees each Submit and,
// because it replaces Op.Done while the operation is in flight, each completion. It
// changes, drops, repeats or reorders some of them.
package broken

import (
	"slices"

	"github.com/noria-go/noria/runtime"
)

// A Fault is one way to break the contract.
type Fault struct {
	Name string                                     // the broken promise
	Case string                                     // the case of the suite that must notice
	Wrap func(good runtime.Runtime) runtime.Runtime // makes a faulty Runtime of a good one
}

// All returns the faults for the cases of conformance.TestRuntime; Loops returns those
// for the cases of conformance.TestLoop.
func All() []Fault {
	return slices.Concat(operationFaults(), streamFaults(), handleFaults(), queueFaults(), pollFaults(), bufferFaults(), socketFaults(), closeFaults())
}

// A shim passes every call on, unless one of its hooks takes the call.
type shim struct {
	runtime.Runtime
	pool     *runtime.Pool
	owners   map[*runtime.Op]func(*runtime.Op)
	canceled map[*runtime.Op]bool
	inDone   int
	count    int // for the hooks

	submit func(op *runtime.Op) bool // reports whether it took op
	done   func(op *runtime.Op) bool // reports whether to call the owner's Done
	cancel func(op *runtime.Op) bool // reports whether it took the request
	poll   func(deadline int64) error
}

func newShim(good runtime.Runtime) *shim {
	return &shim{Runtime: good, owners: map[*runtime.Op]func(*runtime.Op){}, canceled: map[*runtime.Op]bool{}}
}

// hooked returns a fault that hook makes out of a shim's hooks alone.
func hooked(name, cs string, hook func(s *shim)) Fault {
	return Fault{Name: name, Case: cs, Wrap: func(good runtime.Runtime) runtime.Runtime {
		s := newShim(good)
		hook(s)
		return s
	}}
}

// onDone returns a fault in how completions are delivered.
func onDone(name, cs string, done func(s *shim, op *runtime.Op) bool) Fault {
	return hooked(name, cs, func(s *shim) { s.done = func(op *runtime.Op) bool { return done(s, op) } })
}

// onSubmit returns a fault in how operations are accepted.
func onSubmit(name, cs string, submit func(s *shim, op *runtime.Op) bool) Fault {
	return hooked(name, cs, func(s *shim) { s.submit = func(op *runtime.Op) bool { return submit(s, op) } })
}

func (s *shim) Start(pool *runtime.Pool) error {
	s.pool = pool
	return s.Runtime.Start(pool)
}

func (s *shim) Submit(op *runtime.Op) {
	if s.submit == nil || !s.submit(op) {
		s.pass(op)
	}
}

// pass submits op to the good runtime.
func (s *shim) pass(op *runtime.Op) {
	delete(s.canceled, op)
	s.owners[op] = op.Done
	op.Done = s.completed
	s.Runtime.Submit(op)
}

func (s *shim) completed(op *runtime.Op) {
	owner := s.owners[op]
	if !op.More {
		op.Done = owner
		delete(s.owners, op)
	}
	s.inDone++
	defer func() { s.inDone-- }()
	if s.done == nil || s.done(op) {
		owner(op)
	}
}

// every reports true on each n-th call.
func (s *shim) every(n int) bool {
	s.count++
	return s.count%n == 0
}

// answer completes op, from a Poll, without the good runtime.
func (s *shim) answer(op *runtime.Op, n int, err error) {
	op.Begin()
	s.after(func() { op.Complete(n, 0, err) })
}

// after calls f from a Poll.
func (s *shim) after(f func()) {
	s.Runtime.Submit(&runtime.Op{Code: runtime.OpNop, Done: func(*runtime.Op) { f() }})
}

func (s *shim) Cancel(op *runtime.Op) {
	s.canceled[op] = true
	if s.cancel == nil || !s.cancel(op) {
		s.Runtime.Cancel(op)
	}
}

func (s *shim) Poll(deadline int64) error {
	if s.poll != nil {
		return s.poll(deadline)
	}
	return s.Runtime.Poll(deadline)
}

// fail gives op an error as a backend would report it.
func fail(op *runtime.Op, err error) {
	op.N, op.Got = 0, 0
	op.Err = &runtime.OpError{Op: op.Code.String(), Handle: op.Handle, Err: err}
}
