package loop

import (
	"context"
	"net"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/runtime"
)

// Friend returns the loop with the methods that only the packages of this module may
// call. See package internal/friend.
func (l *Loop) Friend(friend.Key) *loopFriend { return (*loopFriend)(l) }

// A loopFriend is a Loop for code that serves a connection. MaxPosts does not bind what
// it posts, so that fails only when the loop has ended. The code must bound the number of
// its posts itself, as by the number of connections.
type loopFriend Loop

// OnLoop reports whether the caller runs on the loop's thread: as one of its tasks,
// or in a function that the loop calls, which must not wait. It may be called from
// anywhere.
func (f *loopFriend) OnLoop() bool { return (*Loop)(f).onLoop() }

// Runtime returns the backend of the loop, for operations that no stream or file
// has. It is called on the loop.
func (f *loopFriend) Runtime() runtime.Runtime { return f.rt }

// Stop asks the loop to end, and does not wait. It may be called from anywhere.
func (f *loopFriend) Stop() { (*Loop)(f).stop() }

// Stopped returns a channel that is closed once the loop has ended. It may be called
// from anywhere.
func (f *loopFriend) Stopped() <-chan struct{} { return f.stopped }

// Stats returns the loop's counts, and waits for a turn of the loop if the caller is not
// on it. Tasks and goroutines may call it.
func (f *loopFriend) Stats() (LoopStats, error) { return (*Loop)(f).snapshot() }

// Local returns the value that the loop keeps under key, such as a free list of the
// calling package. The first call makes it with init. It is called on the loop.
func (f *loopFriend) Local(key any, init func() any) any { return (*Loop)(f).keep(key, init) }

// NextTurn has fn called on the loop in its next turn or, if there is none, when the
// loop ends. Unlike Post it cannot fail. It is called on the loop, and panics
// elsewhere.
func (f *loopFriend) NextTurn(fn func()) { (*Loop)(f).onNextTurn(fn) }

// Notify has fn called once, on the loop, when src may be ready. It is WaitAny for
// code that is no task. It is called on the loop, and panics elsewhere; a source that
// belongs to a loop must belong to this one.
func (f *loopFriend) Notify(src Source, fn func()) { (*Loop)(f).notify(src, fn) }

// Dial connects to address and waits for the connection. A task of the loop calls it; see
// dial.
func (f *loopFriend) Dial(ctx context.Context, address string, opts DialOptions) (*Stream, error) {
	return (*Loop)(f).dial(ctx, address, opts)
}

// Listen opens a listening socket on this loop alone. It is called on the loop.
func (f *loopFriend) Listen(addr runtime.Addr, opts runtime.ListenOptions, streams StreamOptions) (*Listener, error) {
	return (*Loop)(f).listen(addr, opts, streams)
}

// AdoptListener takes over the descriptor of a listening socket. It is called on the
// loop.
func (f *loopFriend) AdoptListener(fd int, streams StreamOptions) (*Listener, error) {
	return (*Loop)(f).adoptListener(fd, streams)
}

// AdoptConn takes over the socket of nc. It is called on the loop; see adoptConn.
func (f *loopFriend) AdoptConn(nc net.Conn, opts StreamOptions) (*Stream, error) {
	return (*Loop)(f).adoptConn(nc, opts)
}

// NewStream makes a Stream of a connected socket's handle, which becomes the
// stream's own. It is called on the loop.
func (f *loopFriend) NewStream(h runtime.Handle, opts StreamOptions) *Stream {
	return (*Loop)(f).newStream(h, opts)
}

// Post is Loop.Post without MaxPosts. It may be called from anywhere.
func (f *loopFriend) Post(fn func()) error { return (*Loop)(f).post(fn) }

// Go is Loop.Go without MaxPosts. It may be called from anywhere.
func (f *loopFriend) Go(name string, fn func(ctx context.Context) error, ended func(error)) error {
	return (*Loop)(f).goTask(name, fn, ended, f.Post)
}

// Call is Loop.Call without MaxPosts. Tasks and goroutines may call it, and it waits.
func (f *loopFriend) Call(ctx context.Context, name string, fn func(ctx context.Context) error) error {
	return (*Loop)(f).call(ctx, name, fn)
}

// Friend returns the task with the methods that only the servers of this module may call.
// See package internal/friend.
func (t *Task) Friend(friend.Key) *taskFriend { return (*taskFriend)(t) }

// A taskFriend is a Task for a server that runs handlers as tasks.
type taskFriend Task

// Context returns the context that the task's function was given. It may be called from
// anywhere.
func (f *taskFriend) Context() context.Context { return (*Task)(f).context() }

// AfterFunc has fn called when the task's context ends: on the loop, or, if it has ended
// already, on a goroutine. fn must not block. It may be called from anywhere.
func (f *taskFriend) AfterFunc(fn func()) (stop func() bool) {
	return (*taskContext)(f).AfterFunc(fn)
}

// SetValues gives the task the values of another context, and nothing else of it. Only
// the task itself calls it, before other code has the task's context. Tasks that it
// starts from then on have the values too.
func (f *taskFriend) SetValues(ctx context.Context) { f.values = ctx }

// GoApart starts a child of the task that a drain of the task does not reach, and does
// not wait. The child's context ends when the child itself is drained or killed, or when
// its parent is killed: so the server decides when each child drains. It is called on the
// loop.
func (f *taskFriend) GoApart(name string, fn func(ctx context.Context) error) (*Task, error) {
	return goChild((*Task)(f), name, fn, true)
}

// OnGoroutine runs fn on a goroutine and suspends the task, which is the caller, until fn
// has returned. It is Offload without its limit, for handlers that run as long as their
// connection. If the task is killed meanwhile and killed is not nil, OnGoroutine calls
// killed once, which must make fn return and must not wait. The error is ErrGoexit or
// nil.
func (f *taskFriend) OnGoroutine(fn, killed func()) error {
	return opErr("run on a goroutine", 0, (*Task)(f).elsewhere(fn, killed))
}
