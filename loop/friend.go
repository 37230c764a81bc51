package loop

import (
	"context"

	"github.com/noria-go/noria/internal/friend"
)

// Friend returns what the packages of this module may do with a loop and a user
// may not. See package internal/friend.
func (l *Loop) Friend(friend.Key) *loopFriend { return (*loopFriend)(l) }

// A loopFriend is a Loop for the code that works for a connection. What it posts
// is bounded by what there is, and so MaxPosts does not bind it: it fails only
// when the loop has ended.
type loopFriend Loop

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
