package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	goruntime "runtime"
	"strings"
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
// Post, Go, Call, Stop, Name and Info may be called from any goroutine.
type Loop struct {
	rt   runtime.Runtime
	opts LoopOptions
	pool *runtime.Pool

	self   atomic.Uintptr // the loop's own goroutine
	thread atomic.Int64   // the thread's number, 0 before Run and after it
	// current's worker, and after it has suspended still, until another one is
	// resumed or the turn has had all: each store costs as much as a lock.
	curRef atomic.Pointer[worker]

	turns    uint64 // resumptions
	cur      *Task
	runq     ring[*Task]
	nextTurn ring[func()]
	batch    []func() // posted, and about to run
	timers   timers
	clock    int64     // when this turn began
	stopBy   int64     // when tasks are abandoned; 0: the loop is not stopping
	dirty    []*Stream // have written since they were last flushed
	unit     []byte    // short pieces of a stream are joined in it: see nextUnit
	idle     []*worker
	calls    list.Stack[call] // free ones
	root     Task             // parent of the tasks that have no other
	tasks    int
	lost     int                  // coroutines suspended for good: see worker.run
	busy     int                  // goroutines of Offload
	offloads waitList             // wait for busy to fall
	refused  bool                 // no more tasks are started
	goexit   bool                 // see exitedBy
	live     map[*Stream]struct{} // open streams
	local    map[any]any          // see Local
	closings int                  // of those, which are being closed

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

// Name returns the loop's name.
func (l *Loop) Name() string { return l.opts.Name }

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

// onThread reports whether the caller runs on the loop's thread: as the loop
// itself, as the current task, or as a coroutine that the task has inside.
func (l *Loop) onThread() bool {
	if g := self(); g != 0 && (l.curRef.Load().is(g) || g == l.self.Load()) {
		return true
	}
	tid := l.thread.Load()
	return tid != 0 && tid == int64(threadID())
}

// mustBeOn panics unless the caller runs on the loop's thread. It is for what has
// no error to say it with.
func (l *Loop) mustBeOn(what string) {
	if !l.onThread() {
		panic("loop: " + what + " is called from outside the loop")
	}
}

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

// current returns the task that the caller is, or nil if it is none.
func (l *Loop) current() *Task {
	if l.curRef.Load().is(self()) {
		return l.cur
	}
	// The loop's own goroutine has no task, and a coroutine inside a task (a
	// nested iter.Pull) shares its thread.
	if tid := l.thread.Load(); tid == 0 || tid != int64(threadID()) {
		return nil
	}
	return l.cur
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

// exitedBy does what Run would have done, had a function on the loop not ended
// the loop's goroutine by runtime.Goexit. Nothing stops that; but what others
// wait for, and what the kernel has, must not be lost with it.
func (l *Loop) exitedBy() {
	if !l.goexit {
		return
	}
	l.goexit = false
	defer l.exitedBy() // the functions that are left to run may do it again
	l.cur = nil
	l.curRef.Store(nil)
	l.opts.Logger.Error("noria: a function on the loop, outside any task, called runtime.Goexit (testing.T.FailNow does): the loop has ended",
		"loop", l.opts.Name, "error", l.end())
}

// forgetThread makes every later check say that the caller is elsewhere: the
// thread's number and the goroutine's address will belong to others.
func (l *Loop) forgetThread() {
	l.thread.Store(0)
	l.self.Store(0)
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

// Post runs fn on the loop, outside any task: fn must not block, and what
// blocks refuses to. A panic of it is contained; runtime.Goexit is not, and
// ends the loop. It fails with ErrBusy if MaxPosts functions wait already,
// and with ErrClosed if the loop has ended or will not get to fn any more.
func (l *Loop) Post(fn func()) error { return l.addPost(fn, 1) }

// post is Post for the library itself: MaxPosts does not bind it, and so it fails
// only if the loop has ended. What it posts is bounded by what there is: the
// connections, the listeners and the callers that wait.
func (l *Loop) post(fn func()) error { return l.addPost(fn, 0) }

// addPost appends fn to the posts, of which users more are the user's.
func (l *Loop) addPost(fn func(), users int) error {
	l.mu.Lock()
	switch {
	case l.closed:
		l.mu.Unlock()
		return &runtime.OpError{Op: "post", Detail: l.opts.Name, Err: runtime.ErrClosed}
	case users > 0 && l.users >= l.opts.MaxPosts:
		l.mu.Unlock()
		return &runtime.OpError{Op: "post", Detail: l.opts.Name, Err: fmt.Errorf("%w: %d functions wait already", runtime.ErrBusy, l.opts.MaxPosts)}
	}
	l.posts = append(l.posts, fn)
	l.users += users
	l.mu.Unlock()
	l.wake()
	return nil
}

// postTask makes t ready from another thread. It cannot fail: the list goes
// through the tasks themselves.
func (l *Loop) postTask(t *Task) {
	if t.waking.Swap(true) {
		return
	}
	l.mu.Lock()
	l.wakes.Push(&t.woken, t)
	l.mu.Unlock()
	l.wake()
}

func (l *Loop) hasPosts() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.posts) > 0 || !l.wakes.Empty()
}

func (l *Loop) takePosts() {
	l.runBatch() // the rest of one that runtime.Goexit has cut short
	l.mu.Lock()
	if len(l.posts) == 0 && l.wakes.Empty() {
		l.mu.Unlock()
		return
	}
	posts, wakes := l.posts, l.wakes
	l.posts, l.users, l.spare, l.wakes = l.spare[:0], 0, nil, list.Stack[Task]{}
	l.mu.Unlock()
	for t := wakes.Pop(); t != nil; t = wakes.Pop() {
		t.waking.Store(false) // before it looks at what it waits for
		if want := t.wanted.Swap(0); want != 0 {
			t.cancel(want == wantKill)
		}
		l.makeReady(t)
	}
	l.batch = posts
	l.runBatch()
	if cap(posts) <= 1024 {
		l.mu.Lock()
		l.spare = posts[:0]
		l.mu.Unlock()
	}
}

func (l *Loop) runBatch() {
	for len(l.batch) > 0 {
		fn := l.batch[0]
		l.batch[0] = nil
		l.batch = l.batch[1:]
		l.runPost(fn)
	}
}

// runPost contains a panic of fn, as a task's is.
func (l *Loop) runPost(fn func()) {
	if l.phase.Load()&1 == 0 { // not in Poll: the watchdog is to see that it is another one
		l.turn += 2
		l.phase.Store(l.turn)
	}
	l.contain("posted function", fn)
}

// contain runs fn, which what describes. It returns how it panicked, which has
// been reported, or nil.
func (l *Loop) contain(what string, fn func()) (failed *PanicError) {
	polls := l.phase.Load()&1 != 0 && l.called.Load()&1 == 0 // and not inside another one
	if polls {
		l.called.Add(1)
	}
	returned := false
	defer func() {
		if polls {
			l.called.Add(1)
		}
		if returned {
			return
		}
		if v := recover(); v != nil {
			failed = newPanicError(what, v)
			l.reportPanic(failed)
		} else {
			l.goexit = true
		}
	}()
	fn()
	returned = true
	return nil
}

func (l *Loop) reportPanic(p *PanicError) {
	if l.opts.OnPanic != nil {
		l.opts.OnPanic(p)
		return
	}
	l.opts.Logger.Error("noria: task panicked", "loop", l.opts.Name, "task", p.Task, "panic", p.Value, "stack", string(p.Stack))
}

// Stop asks the loop to end; Run returns when it has. It may be called from
// anywhere, also before Run and more than once.
func (l *Loop) stop() {
	if l.state.CompareAndSwap(loopNew, loopDone) {
		l.refuse()
		_ = errors.Join(l.rt.Close(), l.pool.Close()) // never started: nothing to lose
		close(l.stopped)
		return
	}
	if l.state.CompareAndSwap(loopRunning, loopStopping) {
		l.rt.Wake()
	}
}

// end cancels the tasks, waits for them, and closes everything.
func (l *Loop) end() error {
	l.state.Store(loopStopping)
	deadline := later(l.rt.Now(), l.opts.StopTimeout)
	l.stopBy = deadline
	l.root.cancel(true)
	l.takePosts() // what came before Stop is done like everything else
	for s := range l.live {
		s.hurry()
	}
	var errs []error
	for !l.ended() && l.rt.Now() < deadline {
		if err := l.step(deadline); err != nil {
			errs = append(errs, err)
			break
		}
	}
	if l.tasks > 0 {
		errs = append(errs, fmt.Errorf("%d tasks did not end within %v of being cancelled and were abandoned: %s",
			l.tasks, l.opts.StopTimeout, l.leftovers()))
	}
	l.refuse()
	for _, w := range l.idle {
		w.stop()
	}
	l.idle = nil
	if err := l.rt.Close(); err != nil {
		errs = append(errs, err)
	}
	for s := range l.live {
		s.discard()
	}
	l.pool.Friend(key).Collect()
	if err := l.pool.Close(); err != nil {
		errs = append(errs, err)
	}
	l.state.Store(loopDone)
	if len(errs) > 0 {
		return fmt.Errorf("stop %s: %w", l.opts.Name, errors.Join(errs...))
	}
	return nil
}

// ended reports whether a loop that stops has nothing left to wait for.
func (l *Loop) ended() bool { return l.tasks == 0 && l.closings == 0 }

// refuse ends Post. What was accepted still runs, and what waits for a task
// that will not go on is told so, lest it wait in vain.
func (l *Loop) refuse() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.refused = true
	l.takePosts()
	for n := l.nextTurn.len(); n > 0; n-- {
		l.runPost(l.nextTurn.pop())
	}
	l.root.eachKid(func(t *Task) {
		if t.onEnd != nil {
			tell := t.onEnd
			t.onEnd = nil
			l.runPost(func() {
				tell(&runtime.OpError{Op: "task", Detail: t.name, Err: fmt.Errorf("abandoned: %w", runtime.ErrCanceled)})
			})
		}
	})
}

func (l *Loop) leftovers() string {
	var names []string
	l.root.eachKid(func(t *Task) {
		if len(names) < 10 {
			names = append(names, t.name)
		}
	})
	return strings.Join(names, ", ")
}

// LoopStats describes a loop at one moment.
type LoopStats struct {
	Name    string
	Tasks   int // not ended yet
	Lost    int // coroutines suspended for good, because a task called runtime.Goexit
	Streams int // open
	Turns   uint64
	Pool    runtime.PoolStats
}

// Stats returns the loop's counts. It may be called from anywhere.
func (l *Loop) snapshot() (LoopStats, error) {
	if l.onThread() {
		return l.stats(), nil
	}
	var st LoopStats
	err := l.call(context.Background(), "stats", func(context.Context) error {
		st = l.stats()
		st.Tasks-- // this one
		return nil
	})
	return st, err
}

func (l *Loop) stats() LoopStats {
	return LoopStats{Name: l.opts.Name, Tasks: l.tasks, Lost: l.lost, Streams: len(l.live), Turns: l.turns, Pool: l.pool.Stats()}
}
