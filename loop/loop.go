package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	goruntime "runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/noria-go/noria/internal/list"
	"github.com/noria-go/noria/runtime"
)

// Limits of a loop, unless LoopOptions says otherwise.
const (
	defaultMaxPosts    = 1 << 16
	defaultStopTimeout = 5 * time.Second
	defaultStallAfter  = 100 * time.Millisecond

	maxIdleWorkers = 128 // coroutines that wait for their next task
	maxOffloads    = 512 // goroutines that Offload may have running
)

// LoopOptions are a loop's options. The zero value is good.
type LoopOptions struct {
	// Name is for logs and errors; "loop" if empty.
	Name string

	// Reason says why this backend was chosen; it shows in Info.
	Reason string

	// PoolLimit is how many bytes of buffers the loop may map; 0 means
	// 1 GiB.
	PoolLimit int64

	// MaxPosts bounds how many functions of the user's wait to run on the loop;
	// beyond it Post, Go and Call fail with ErrBusy. What the library posts, for
	// a connection say, is neither counted nor refused. 0 means 65,536.
	MaxPosts int

	// StopTimeout is how long the loop waits, when it is stopped, for tasks
	// that were cancelled. Those that go on after it are abandoned, and Run
	// names them. 0 means five seconds.
	StopTimeout time.Duration

	// StallAfter is how long a task may hold the loop before the watchdog
	// reports it; 0 means 100 ms, negative switches the watchdog
	// off.
	StallAfter time.Duration

	// OnStall is called by the watchdog, on a goroutine of its own, for a
	// task that holds the loop; nil means that it is logged.
	OnStall func(Stall)

	// OnPanic is called on the loop for each task that panicked; nil means
	// that it is logged.
	OnPanic func(*PanicError)

	// CPUs are those that the loop's thread is tied to; none means that the
	// system decides. If it is not allowed, that is logged, and the loop goes
	// on without.
	CPUs []int

	// Logger takes what has no other place to go; nil means slog.Default().
	Logger *slog.Logger
}

// A Loop owns one OS thread, one Runtime, its pool of buffers, its
// connections, and the tasks that serve them. Nothing of it is shared with
// another loop, so nothing of it is locked.
//
// A turn of the loop takes in what other goroutines posted, fires the timers
// that are due, resumes each task that has become ready, hands what they
// wrote to the kernel, and then waits in Runtime.Poll for completions, which
// make tasks ready. See Task for what code on the loop may do.
//
// Post, Go, Call and Now may be called from any goroutine.
type Loop struct {
	rt   runtime.Runtime
	opts LoopOptions
	pool *runtime.Pool

	self   atomic.Uintptr // the loop's own goroutine
	thread atomic.Int64   // the thread's number, 0 before Run and after it
	// current's worker, and after it has suspended still, until another one is
	// resumed or the turn has had all: each store costs as much as a lock.
	curRef atomic.Pointer[worker]

	turns      uint64 // resumptions
	cur        *Task
	runq       ring[*Task]
	nextTurn   ring[func()]
	batch      []func() // posted, and about to run
	timers     timers
	clock      int64     // when this turn began
	stopBy     int64     // when tasks are abandoned; 0: the loop is not stopping
	dirty      []*Stream // have written since they were last flushed
	unit       []byte    // short pieces of a stream are joined in it: see nextUnit
	idle       []*worker
	operations list.Stack[operation] // free ones
	root       Task                  // parent of the tasks that have no other
	tasks      int
	lost       int                  // coroutines suspended for good: see worker.run
	busy       int                  // goroutines of Offload
	offloads   waitList             // wait for busy to fall
	refused    bool                 // no more tasks are started
	goexit     bool                 // see exitedBy
	live       map[*Stream]struct{} // open streams
	local      map[any]any          // see Local
	closings   int                  // of those, which are being closed

	state   atomic.Int32
	stopped chan struct{}
	ready   chan struct{}
	goid    uint64        // of the loop's own goroutine, for the watchdog
	turn    uint64        // what phase is made of
	phase   atomic.Uint64 // another one in each turn, and odd while the loop is in Poll or about to be
	called  atomic.Uint64 // odd while Poll calls a function of the program's

	mu     sync.Mutex // guards what follows
	posts  []func()
	users  int // of those, how many MaxPosts binds
	spare  []func()
	wakes  list.Stack[Task] // ready, from elsewhere
	closed bool
}

const (
	loopNew = iota
	loopRunning
	loopStopping
	loopDone
)

// newLoop returns a loop on rt, which becomes the loop's own. Nothing happens
// until Run.
func newLoop(rt runtime.Runtime, opts LoopOptions) *Loop {
	if opts.Name == "" {
		opts.Name = "loop"
	}
	if opts.MaxPosts <= 0 {
		opts.MaxPosts = defaultMaxPosts
	}
	if opts.StopTimeout <= 0 {
		opts.StopTimeout = defaultStopTimeout
	}
	if opts.StallAfter == 0 {
		opts.StallAfter = defaultStallAfter
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	l := &Loop{rt: rt, opts: opts, pool: runtime.NewPool(opts.PoolLimit), live: map[*Stream]struct{}{},
		stopped: make(chan struct{}), ready: make(chan struct{})}
	l.pool.Friend(key).Bind(l.onThread, l.wake)
	l.root.loop, l.root.name = l, "root"
	return l
}

// info describes the loop's backend.
func (l *Loop) info() runtime.Info {
	info := l.rt.Info()
	if l.opts.Reason != "" {
		info.Reason = l.opts.Reason
	}
	return info
}

// Pool returns the loop's buffers. It is for code on the loop.
func (l *Loop) Pool() *runtime.Pool { return l.pool }

// Now returns the time on the loop's clock, in nanoseconds.
func (l *Loop) Now() int64 { return l.rt.Now() }

// owns panics if b is from another loop's pool: when it is released, that loop
// would have to be on this thread.
func (l *Loop) owns(b *runtime.Buffer) {
	if pool := b.Friend(key).Pool(); pool != nil && pool != l.pool {
		panic("loop: the buffer belongs to another loop: what is to be sent there is made with NewShared, or copied")
	}
}

// Local returns what the loop keeps under key, for packages that have
// something for each loop, such as free lists; the first time it is made by
// init. It is called on the loop.
func (l *Loop) keep(key any, init func() any) any {
	v, ok := l.local[key]
	if !ok {
		v = init()
		if l.local == nil {
			l.local = map[any]any{}
		}
		l.local[key] = v
	}
	return v
}

// run makes the calling goroutine's thread the loop's and returns when ctx is
// done (or Stop was called) and everything has ended: tasks are cancelled,
// operations drained, buffers and descriptors given back. It returns nil after
// an orderly stop, and otherwise what went wrong, such as the names of tasks
// that did not end within StopTimeout.
func (l *Loop) run(ctx context.Context) error {
	if !l.state.CompareAndSwap(loopNew, loopRunning) {
		return &runtime.OpError{Op: "run loop", Detail: l.opts.Name, Err: runtime.ErrClosed}
	}
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	defer close(l.stopped)
	defer l.state.Store(loopDone)

	l.self.Store(self())
	l.goid = goroutineID()
	l.thread.Store(int64(threadID()))
	defer l.forgetThread()
	if err := l.rt.Start(l.pool); err != nil {
		l.refuse()
		l.state.Store(loopDone)
		return errors.Join(fmt.Errorf("start %s: %w", l.opts.Name, err), l.rt.Close(), l.pool.Close())
	}
	if len(l.opts.CPUs) > 0 {
		unpin, err := pinThread(l.opts.CPUs)
		if err != nil {
			l.opts.Logger.Warn("noria: the loop runs without being tied to its CPU", "loop", l.opts.Name, "error", err)
		} else {
			defer unpin()
		}
	}
	loops.add(l)
	defer loops.remove(l)
	close(l.ready)
	defer context.AfterFunc(ctx, l.stop)()
	if l.opts.StallAfter > 0 {
		defer l.watch()()
	}

	defer l.exitedBy()
	for l.state.Load() == loopRunning {
		if err := l.step(runtime.Forever); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", l.opts.Name, err), l.end())
		}
	}
	return l.end()
}

// step is one turn, which waits no longer than until deadline.
func (l *Loop) step(deadline int64) error {
	l.turn += 2
	l.phase.Store(l.turn)
	fromLast := l.nextTurn.len()
	l.takePosts()
	l.pool.Friend(key).Collect()
	l.clock = l.rt.Now()
	l.timers.expire(l.clock)
	for ; fromLast > 0; fromLast-- {
		l.runPost(l.nextTurn.pop())
	}
	// Only those that are ready now: who becomes ready meanwhile waits for the
	// next turn, so that I/O goes on between two tasks that wake each other.
	for n := l.runq.len(); n > 0; n-- {
		t := l.runq.pop()
		t.queued = false
		l.resume(t)
	}
	l.curRef.Store(nil)
	l.flush()
	deadline = min(deadline, l.timers.next())
	l.phase.Store(l.turn | 1)
	if l.stopBy != 0 && l.ended() || l.runq.len() > 0 || l.nextTurn.len() > 0 || len(l.dirty) > 0 || l.hasPosts() || l.pool.Friend(key).Pending() {
		deadline = 0
	}
	return l.rt.Poll(deadline)
}

// flush submits what streams have to send. Whatever the tasks of one turn
// wrote to a stream leaves in one system call.
func (l *Loop) flush() {
	for i := 0; i < len(l.dirty); i++ {
		s := l.dirty[i]
		l.dirty[i] = nil
		s.send()
		s.out.dirty = false // after it: what a layer makes of it is in it
	}
	l.dirty = l.dirty[:0]
}

func (l *Loop) makeReady(t *Task) {
	if !t.queued && !t.over {
		t.queued = true
		l.runq.push(t)
	}
}

// wake gets the loop out of Poll, if it is there.
func (l *Loop) wake() {
	if l.phase.Load()&1 != 0 {
		l.rt.Wake()
	}
}
