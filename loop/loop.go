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

// LoopOptions are a loop's options. The zero value is ready to use.
type LoopOptions struct {
	// Name names the loop in logs and errors. Empty means "loop".
	Name string

	// Reason says why this backend was chosen. It shows in Info.
	Reason string

	// PoolLimit is how many bytes of memory the loop's buffers may take. 0 means 1 GiB.
	PoolLimit int64

	// MaxPosts bounds how many functions may wait to run on the loop. Beyond it Post,
	// Go and Call fail with ErrBusy. What the library posts itself, for example for a
	// connection, is neither counted nor refused. 0 means 65,536.
	MaxPosts int

	// StopTimeout is how long the loop, when it is stopped, waits for its tasks after
	// it has killed them. It abandons those that have not ended by then, and
	// Group.Stop names them. 0 means five seconds.
	StopTimeout time.Duration

	// StallAfter is how long a task may hold the loop before the watchdog reports it.
	// 0 means 100 ms; negative switches the watchdog off.
	StallAfter time.Duration

	// OnStall is called for each task that holds the loop, on a goroutine of the
	// watchdog. nil means that the stall is logged.
	OnStall func(Stall)

	// OnPanic is called on the loop for each task that has panicked. nil means that
	// the panic is logged.
	OnPanic func(*PanicError)

	// CPUs are those that the loop's thread is tied to. Empty means that the system
	// decides. If the system refuses, the loop logs it and runs untied.
	CPUs []int

	// Logger takes the reports that no caller gets. nil means slog.Default().
	Logger *slog.Logger
}

// A Loop owns one OS thread, one Runtime, its pool of buffers, its connections, and the
// tasks that serve them. It shares none of these with other loops, so they need no locks;
// only what other threads hand to the loop is under a mutex. The package comment describes
// a turn of the loop; see Task for what code on the loop may do. Loops are made by
// StartGroup.
type Loop struct {
	rt   runtime.Runtime
	opts LoopOptions
	pool *runtime.Pool

	g      atomic.Uintptr // the loop's own goroutine, as self identifies it
	thread atomic.Int64   // the thread's number; 0 before run and after it
	// curRef is the worker of the current task. It is not cleared when that task is
	// suspended, but when another one is resumed or the turn has resumed all: a store
	// costs as much as a lock.
	curRef atomic.Pointer[worker]

	resumes    uint64 // how often a task was resumed
	cur        *Task
	runq       ring[*Task]
	nextTurn   ring[func()]
	batch      []func() // posted functions that are about to run
	timers     timers
	clock      int64         // when this turn began
	stopBy     int64         // when tasks are abandoned; 0: the loop is not stopping
	dirty      []*Stream     // streams that were written to since they were last flushed
	opening    time.Duration // spent in this turn on opening what arrived: see openTime
	unit       []byte        // joins short pieces of a stream: see nextUnit
	idle       []*worker
	operations list.Stack[operation] // free ones
	root       Task                  // parent of the tasks that have no other
	tasks      int                   // that have not ended
	lost       int                   // coroutines suspended for good: see worker.run
	busy       int                   // goroutines of Offload
	offloads   waitList              // tasks that wait for busy to fall
	refused    bool                  // no more tasks are started
	goexit     bool                  // see exitedBy
	live       map[*Stream]struct{}  // open streams
	closings   int                   // open streams that are being closed
	local      map[any]any           // see keep

	state   atomic.Int32
	stopped chan struct{}
	ready   chan struct{}
	goid    uint64        // the loop's own goroutine, as a dump of stacks identifies it
	begun   uint64        // even; grows with each turn and each posted function
	phase   atomic.Uint64 // begun, and 1 more while the loop is in Poll or about to be; for other threads
	called  atomic.Uint64 // odd while Poll runs a function of the user's

	mu        sync.Mutex // guards the fields below
	posts     []func()
	userPosts int              // how many of posts count against MaxPosts
	spare     []func()         // memory for the next posts
	wakes     list.Stack[Task] // tasks that another thread has made ready
	closed    bool             // no more posts are taken
}

const (
	loopNew = iota
	loopRunning
	loopStopping
	loopDone
)

// newLoop returns a loop on rt, which becomes the loop's own. Nothing happens until
// run.
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
	l.pool.Friend(key).Bind(l.onLoop, l.wake)
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

// Pool returns the loop's pool of buffers. Only code on the loop may use the pool.
func (l *Loop) Pool() *runtime.Pool { return l.pool }

// Now returns the time on the loop's clock, in nanoseconds. It may be called from
// anywhere.
func (l *Loop) Now() int64 { return l.rt.Now() }

// owns panics if b is from another loop's pool: only that loop's thread may release it.
func (l *Loop) owns(b *runtime.Buffer) {
	if pool := b.Friend(key).Pool(); pool != nil && pool != l.pool {
		panic("loop: the buffer belongs to another loop: copy it, or make it with runtime.NewShared")
	}
}

// keep returns the value that the loop keeps under key, such as a free list of another
// package. The first call makes it with init. It is called on the loop.
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

// run makes the calling goroutine's thread the loop's. When ctx ends or stop is called,
// it kills the tasks, waits for the operations, gives back buffers and descriptors, and
// returns: nil after an orderly stop, otherwise what went wrong, such as the names of
// tasks that did not end within StopTimeout.
func (l *Loop) run(ctx context.Context) error {
	if !l.state.CompareAndSwap(loopNew, loopRunning) {
		return &runtime.OpError{Op: "run loop", Detail: l.opts.Name, Err: runtime.ErrClosed}
	}
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	defer close(l.stopped)
	defer l.state.Store(loopDone)

	l.g.Store(self())
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
	defer context.AfterFunc(ctx, l.stop)()
	if l.opts.StallAfter > 0 {
		defer l.watch()()
	}
	close(l.ready)

	defer l.exitedBy()
	for l.state.Load() == loopRunning {
		if err := l.step(runtime.Forever); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", l.opts.Name, err), l.end())
		}
	}
	return l.end()
}

// step is one turn. It waits for completions no longer than until deadline.
func (l *Loop) step(deadline int64) error {
	l.begun += 2
	l.phase.Store(l.begun)
	fromLast := l.nextTurn.len()
	l.opening = 0
	l.takePosts()
	l.pool.Friend(key).Collect()
	l.clock = l.rt.Now()
	l.timers.expire(l.clock)
	for ; fromLast > 0; fromLast-- {
		l.runPost(l.nextTurn.pop())
	}
	// Only the tasks that are ready now: one that becomes ready meanwhile waits for the
	// next turn, so that I/O goes on between two tasks that wake each other.
	for n := l.runq.len(); n > 0; n-- {
		t := l.runq.pop()
		t.queued = false
		l.resume(t)
	}
	l.curRef.Store(nil)
	l.flush()
	deadline = min(deadline, l.timers.next())
	l.phase.Store(l.begun | 1)
	if l.stopBy != 0 && l.ended() || l.runq.len() > 0 || l.nextTurn.len() > 0 || len(l.dirty) > 0 || l.hasPosts() || l.pool.Friend(key).Pending() {
		deadline = 0
	}
	return l.rt.Poll(deadline)
}

// flush submits what was written to streams: for each stream one operation, with what all
// tasks wrote to it in this turn, up to runtime.MaxVec buffers.
func (l *Loop) flush() {
	for i := 0; i < len(l.dirty); i++ {
		s := l.dirty[i]
		l.dirty[i] = nil
		s.send()
		s.out.dirty = false // not before: a layer marks the stream dirty while it seals
	}
	l.dirty = l.dirty[:0]
}

func (l *Loop) makeReady(t *Task) {
	if !t.queued && !t.over {
		t.queued = true
		l.runq.push(t)
	}
}

// wake makes Poll return if the loop is there. It may be called from anywhere.
func (l *Loop) wake() {
	if l.phase.Load()&1 != 0 {
		l.rt.Wake()
	}
}
