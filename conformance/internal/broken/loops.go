package broken

import (
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/runtime"
)

var key friend.Key // opens what only this module may call: see internal/friend

// Loops returns the faults that show through loops, tasks and streams. Each names the
// case of conformance.TestLoop that must notice.
// Much of what a loop promises is the loop's alone: which task runs when, what a panic
// ends. No Runtime can break these promises. The fault of such a case only shows that
// the case fails, and ends, on a faulty Runtime.
func Loops() []Fault {
	return slices.Concat(wakeFaults(), clockFaults(), loopStreamFaults(), loopServeFaults(), loopSocketFaults())
}

// Late is how long a delaying fault delays: longer than the patience that a test should
// give the case. The delayed event does happen, so nothing hangs.
const Late = 600 * time.Millisecond

// each makes one fault for several cases.
func each(fault func(cs string) Fault, cases ...string) (all []Fault) {
	for _, cs := range cases {
		all = append(all, fault(cs))
	}
	return all
}

func wakeFaults() []Fault {
	return slices.Concat(
		each(drowsy("hears no Wake in time", 0),
			"task/go-call-post", "task/call-between-loops", "task/children", "trap/goexit-contained", "wait/yield",
			"wait/sleep-never-early", "wait/queue-limits-deadline-close", "wait/offload-many", "trap/used-off-loop", "faults/pinning-is-refused",
			"hostile/child-of-a-task-that-has-ended", "hostile/group-stopped-from-a-task", "hostile/loop-used-from-elsewhere",
			"hostile/acceptor-woken-and-killed", "misuse/one-of-thousands-blocks"),
		each(drowsy("hears no Wake in time but the first", 1),
			"task/foreign-context", "wait/offload-panic-cancel", "stream/goroutines-allowed"),
		each(drowsy("hears no Wake in time but the first ten", 10), "wait/event", "wait/queue-from-everywhere"),
		each(func(cs string) Fault {
			return hooked("shows EINTR", cs, func(s *shim) {
				s.poll = func(deadline int64) error {
					_ = s.Runtime.Poll(deadline)
					return syscall.EINTR
				}
			})
		}, "task/post-is-bounded", "task/call-from-posted-function", "task/cancel-while-posts-are-full", "trap/watchdog-names-mutex",
			"hostile/reader-woken-and-killed", "misuse/buffer-that-was-given-away", "misuse/buffer-with-too-few-owners",
			"misuse/buffer-of-another-loop", "misuse/callback-that-panics", "misuse/settings-from-elsewhere",
			"misuse/posted-function-that-blocks"),
	)
}

// drowsy delays every Wake but the first few, and merges the Wakes that arrive
// meanwhile into one.
func drowsy(name string, first int64) func(cs string) Fault {
	return func(cs string) Fault {
		return Fault{Name: name, Case: cs, Wrap: func(good runtime.Runtime) runtime.Runtime {
			return &sleeper{Runtime: good, first: first}
		}}
	}
}

type sleeper struct {
	runtime.Runtime
	first   int64
	calls   atomic.Int64 // from any goroutine
	pending atomic.Bool
}

func (s *sleeper) Wake() {
	switch {
	case s.calls.Add(1) <= s.first:
		s.Runtime.Wake()
	case s.pending.CompareAndSwap(false, true):
		time.AfterFunc(Late, func() { // this may be after Close
			s.pending.Store(false)
			s.Runtime.Wake()
		})
	}
}

func clockFaults() []Fault {
	return slices.Concat(
		each(func(cs string) Fault {
			return hooked("sleeps through its deadline", cs, func(s *shim) {
				s.poll = func(deadline int64) error {
					if now := s.Now(); deadline > now && deadline < runtime.Forever-int64(2*Late) {
						deadline += int64(2 * Late)
					}
					return s.Runtime.Poll(deadline)
				}
			})
		},
			"task/panic-contained", "stream/write-deadline", "stream/idle-timeout", "hostile/idle-read-into-and-write"),
		[]Fault{
			hooked("waits although it must not", "task/ignores-cancel", func(s *shim) {
				s.poll = func(deadline int64) error { return s.Runtime.Poll(max(deadline, s.Now()+int64(Late/10))) }
			}),
			{Name: "comes back early, and its clock goes back", Case: "wait/timer-armed-late-in-a-batch", Wrap: func(good runtime.Runtime) runtime.Runtime {
				return &hurried{Runtime: good}
			}},
		},
	)
}

// hurried ends a wait too early and at first hides it with a wrong clock, as a runtime
// that counts in ticks would. A Sleep that believes that clock ends early; a Sleep that
// reads the clock again does not.
type hurried struct {
	runtime.Runtime
	ahead atomic.Bool // Now may be called from any goroutine
}

const tick = int64(20 * time.Millisecond) // much more than the cases sleep

func (h *hurried) Poll(deadline int64) error {
	if deadline < runtime.Forever {
		deadline = max(deadline-tick, 0)
	}
	err := h.Runtime.Poll(deadline)
	h.ahead.Store(true)
	return err
}

func (h *hurried) Now() int64 {
	now := h.Runtime.Now()
	if h.ahead.Swap(false) {
		now += tick
	}
	return now
}

func isSend(op *runtime.Op) bool {
	return op.Code == runtime.OpSend || op.Code == runtime.OpSendVec
}

// payload returns how many bytes a send was given. The operation must have its buffers.
func payload(op *runtime.Op) (n int) {
	for _, b := range append(slices.Clone(op.Bufs), op.Buf) {
		if b != nil {
			n += b.Len()
		}
	}
	return n - op.Skip
}

func loopStreamFaults() []Fault {
	return slices.Concat(
		each(func(cs string) Fault {
			return onDone("takes a part that was sent for the whole", cs, func(_ *shim, op *runtime.Op) bool {
				if isSend(op) && op.Err == nil {
					op.N = payload(op)
				}
				return true
			})
		}, "stream/slow-reader"),
		each(func(cs string) Fault {
			return onSubmit("sends nothing", cs, func(s *shim, op *runtime.Op) bool {
				if !isSend(op) {
					return false
				}
				s.answer(op, payload(op), nil)
				return true
			})
		}, "stream/close-flushes", "stream/linger-expires", "hostile/linger-longer-than-the-loop", "serve/drain-and-kill"),
		each(func(cs string) Fault { return hooked("drops bytes that raced a cancel", cs, dropBytes) },
			"stream/inbox-limit", "stream/read-deadline-race"),
		each(func(cs string) Fault {
			return onDone("does not say that it has closed", cs, func(_ *shim, op *runtime.Op) bool {
				return op.Code != runtime.OpClose
			})
		}, "hostile/end-callback-that-waits", "hostile/killed-reader-of-a-peer-that-never-stops"),
		each(func(cs string) Fault {
			return onDone("loses the last byte of a delivery", cs, func(_ *shim, op *runtime.Op) bool {
				if op.More && op.Buf != nil {
					op.N--
					op.Buf.Truncate(op.N)
				}
				return true
			})
		}, "stream/copy", "wait/any-of-stream-and-queue"),
		[]Fault{
			{Name: "takes one end for the other", Case: "stream/conn", Wrap: func(good runtime.Runtime) runtime.Runtime {
				return swapsEnds{good}
			}},
			onDone("spoils what it receives into a buffer", "stream/buffers", func(_ *shim, op *runtime.Op) bool {
				if op.Code == runtime.OpRecv && op.N > 0 {
					p := op.Buf.Bytes()
					p[len(p)-1] ^= 1
				}
				return true
			}),
			onDone("spoils a byte", "trap/nested-coroutines", func(s *shim, op *runtime.Op) bool {
				if op.More && op.Buf != nil && s.every(3) {
					op.Buf.Bytes()[0] ^= 1
				}
				return true
			}),
			onSubmit("sends what was written last first", "stream/writes-stay-together", backToFront),
			onSubmit("says that it has closed and has not", "stream/close-with-pending-reader", func(s *shim, op *runtime.Op) bool {
				if op.Code != runtime.OpClose {
					return false
				}
				s.answer(op, 0, nil)
				return true
			}),
			onSubmit("sends what is shared once only", "stream/shared-buffer-on-two-loops", func(s *shim, op *runtime.Op) bool {
				if op.Code == runtime.OpSend && op.Buf.Friend(key).Shared() && s.every(5) {
					s.answer(op, op.Buf.Len(), nil)
					return true
				}
				return false
			}),
			onDone("tells of a cancel as of a failure", "hostile/read-into-interrupted-at-once", func(_ *shim, op *runtime.Op) bool {
				if errors.Is(op.Err, runtime.ErrCanceled) {
					fail(op, syscall.EIO)
				}
				return true
			}),
			onSubmit("cancels what nobody has cancelled", "hostile/read-into-beside-a-reader", func(s *shim, op *runtime.Op) bool {
				if op.Code != runtime.OpRecv {
					return false
				}
				s.pass(op)
				s.Runtime.Cancel(op)
				return true
			}),
			onDone("keeps what was sent", "hostile/write-without-memory", func(_ *shim, op *runtime.Op) bool {
				if isSend(op) {
					for _, b := range append(slices.Clone(op.Bufs), op.Buf) {
						if b != nil {
							b.Retain()
						}
					}
				}
				return true
			}),
			onSubmit("does not shut down", "hostile/close-write-cut-short", func(s *shim, op *runtime.Op) bool {
				if op.Code != runtime.OpShutdown {
					return false
				}
				s.answer(op, 0, nil)
				return true
			}),
		},
	)
}

// backToFront sends the buffers of a vectored send from copies, the last one first.
func backToFront(s *shim, op *runtime.Op) bool {
	if op.Code != runtime.OpSendVec || op.Skip != 0 {
		return false
	}
	inner := &runtime.Op{Code: op.Code, Handle: op.Handle}
	for _, b := range slices.Backward(op.Bufs) {
		inner.Bufs = append(inner.Bufs, runtime.NewShared(slices.Clone(b.Bytes())))
	}
	op.Begin()
	inner.Done = func(*runtime.Op) { op.Complete(inner.N, 0, inner.Err) }
	s.Runtime.Submit(inner)
	return true
}

type swapsEnds struct{ runtime.Runtime }

func (s swapsEnds) LocalAddr(h runtime.Handle) (runtime.Addr, error) { return s.Runtime.PeerAddr(h) }

func (s swapsEnds) PeerAddr(h runtime.Handle) (runtime.Addr, error) { return s.Runtime.LocalAddr(h) }

func loopServeFaults() []Fault {
	return slices.Concat(
		each(func(cs string) Fault {
			return onDone("drops a connection that it has accepted", cs, func(s *shim, op *runtime.Op) bool {
				return op.Code != runtime.OpAcceptMany || !op.More || !s.every(10) || !s.hangUp(op)
			})
		}, "serve/echo", "serve/listener-limit", "hostile/loop-that-takes-no-connections"),
		each(func(cs string) Fault {
			return Fault{Name: "leaves what it has when it is closed before Start", Case: cs, Wrap: func(good runtime.Runtime) runtime.Runtime {
				return &abandons{Runtime: good}
			}}
		}, "serve/start-fails"),
		[]Fault{
			{Name: "does not let go of what it has accepted", Case: "serve/spread-is-even", Wrap: func(good runtime.Runtime) runtime.Runtime {
				return clings{good}
			}},
			{Name: "does not know where what it adopted listens", Case: "serve/adopted-listener", Wrap: func(good runtime.Runtime) runtime.Runtime {
				return nowhere{good}
			}},
			onDone("tells of a refusal as of something else", "dial/outcomes", func(_ *shim, op *runtime.Op) bool {
				if errors.Is(op.Err, syscall.ECONNREFUSED) {
					fail(op, syscall.EIO)
				}
				return true
			}),
			onDone("hides the end of a file", "file/all", func(_ *shim, op *runtime.Op) bool {
				if op.Code == runtime.OpReadAt && op.Err == io.EOF {
					op.Err = nil
				}
				return true
			}),
			hooked("stops receiving while buffers are held", "trap/peers-that-stall", noneWhileHeld),
		},
	)
}

// hangUp closes the connection that op has made.
func (s *shim) hangUp(op *runtime.Op) bool {
	s.Runtime.Submit(&runtime.Op{Code: runtime.OpClose, Handle: op.Got, Done: func(*runtime.Op) {}})
	return true
}

// abandons never closes its descriptors. If it closed them later, it would be no leak.
type abandons struct {
	runtime.Runtime
	started bool
}

func (a *abandons) Start(pool *runtime.Pool) error {
	a.started = true
	return a.Runtime.Start(pool)
}

func (a *abandons) Close() error {
	if !a.started {
		return nil
	}
	return a.Runtime.Close()
}

type clings struct{ runtime.Runtime }

func (clings) Detach(runtime.Handle) (int, error) { return -1, errors.ErrUnsupported }

type nowhere struct{ runtime.Runtime }

func (nowhere) LocalAddr(runtime.Handle) (runtime.Addr, error) { return runtime.Addr{}, nil }
