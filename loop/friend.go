package loop

import (
	"context"
	"net"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/runtime"
)

// Friend returns what the packages of this module may do with a loop and a user
// may not. See package internal/friend.
func (l *Loop) Friend(friend.Key) *loopFriend { return (*loopFriend)(l) }

// A loopFriend is a Loop for the code that works for a connection. What it posts
// is bounded by what there is, and so MaxPosts does not bind it: it fails only
// when the loop has ended.
type loopFriend Loop

// OnLoop reports whether the caller runs on the loop's thread: as one of its tasks,
// or in a function that the loop calls, which must not wait. It may be called from
// anywhere.
func (f *loopFriend) OnLoop() bool { return (*Loop)(f).onThread() }

// Runtime returns the backend of the loop, for operations that no stream or file
// has. It is called on the loop.
func (f *loopFriend) Runtime() runtime.Runtime { return f.rt }

// Stop asks the loop to end, and does not wait. It may be called from anywhere.
func (f *loopFriend) Stop() { (*Loop)(f).stop() }

// Stopped returns a channel that is closed once the loop has ended. It may be called
// from anywhere.
func (f *loopFriend) Stopped() <-chan struct{} { return f.stopped }

// Stats returns the loop's counts. It may be called from anywhere, and waits for a
// turn of the loop.
func (f *loopFriend) Stats() (LoopStats, error) { return (*Loop)(f).snapshot() }

// Local returns the value that the loop keeps under key, such as a free list of a
// package. The first call makes it with init. It is called on the loop.
func (f *loopFriend) Local(key any, init func() any) any { return (*Loop)(f).keep(key, init) }

// NextTurn has fn called on the loop in its next turn or, if there is none, when the
// loop ends. Unlike Post it cannot fail. It is called on the loop, and panics
// elsewhere.
func (f *loopFriend) NextTurn(fn func()) { (*Loop)(f).onNextTurn(fn) }

// Notify has fn called once, on the loop, when src may be ready. It is WaitAny for
// code that is no task. It is called on the loop, and panics elsewhere; a source that
// belongs to a loop must belong to this one.
func (f *loopFriend) Notify(src Source, fn func()) { (*Loop)(f).notify(src, fn) }

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

// Post is Loop.Post without MaxPosts.
func (f *loopFriend) Post(fn func()) error { return (*Loop)(f).post(fn) }

// Go is Loop.Go without MaxPosts.
func (f *loopFriend) Go(name string, fn func(ctx context.Context) error, ended func(error)) error {
	return (*Loop)(f).goTask(name, fn, ended, f.Post)
}

// Call is Loop.Call without MaxPosts.
func (f *loopFriend) Call(ctx context.Context, name string, fn func(ctx context.Context) error) error {
	return (*Loop)(f).call(ctx, name, fn)
}

// Friend returns what the servers of this module may do with a task. See package
// internal/friend.
func (t *Task) Friend(friend.Key) *taskFriend { return (*taskFriend)(t) }

// A taskFriend is a Task for a server that runs handlers as tasks.
type taskFriend Task

// Context returns the context that the task's function was given.
func (f *taskFriend) Context() context.Context { return (*Task)(f).context() }

// AfterFunc has f called when the task's context ends: on the loop's thread, or,
// if it has ended already, on a goroutine. f must not block.
func (f *taskFriend) AfterFunc(fn func()) (stop func() bool) {
	return (*taskContext)(f).AfterFunc(fn)
}

// SetValues gives the task the values of another context, and nothing else of
// it. The task calls it itself, before other code has its context. Tasks that it
// starts from then on have the values too.
func (f *taskFriend) SetValues(ctx context.Context) { f.values = ctx }

// GoApart starts a child of the task that a drain of the task does not reach. The
// child's context goes on until the child is cancelled or killed, by itself or
// with its parent: so the server decides when the child is told to end.
func (f *taskFriend) GoApart(name string, fn func(ctx context.Context) error) (*Task, error) {
	return goKid((*Task)(f), name, fn, true)
}

// OnGoroutine runs fn on a goroutine and suspends the task, which is the caller,
// until fn has returned. It is Offload for handlers that run as long as their
// connection does: their number is not limited. If the task is killed meanwhile,
// it calls killed, once and if it is not nil, which must not wait and sees to it
// that fn returns. The error is ErrGoexit or nil.
func (f *taskFriend) OnGoroutine(fn, killed func()) error {
	return opErr("run on a goroutine", 0, (*Task)(f).elsewhere(fn, killed))
}

// Friend returns what other packages of this module may do with a stream and
// users may not. See package internal/friend.
func (s *Stream) Friend(friend.Key) *streamFriend { return (*streamFriend)(s) }

// A streamFriend is a Stream for the layer beneath it.
type streamFriend Stream

// SetLayer puts l, which is TLS, between the stream and its socket, once what is
// in the inbox is for l to read. It is called on the loop, while no task uses the
// stream.
func (f *streamFriend) SetLayer(l layer) { (*Stream)(f).setLayer(l) }

// Layer returns what SetLayer was given; nil if there is none.
func (f *streamFriend) Layer() any {
	if f.layer == nil {
		return nil
	}
	return f.layer.layer
}

// Transmit queues a copy of p beneath the layer. It never waits, and fails once
// the stream has failed, or too much is queued there that the peer does not take.
func (f *streamFriend) Transmit(p []byte) error { return (*Stream)(f).transmit(p) }
