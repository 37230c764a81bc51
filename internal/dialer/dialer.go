// Package dialer is the rule that every Dial of this module follows: which loop a
// dialed connection belongs to.
//
//   - A task's connection belongs to the task's loop, and the task itself dials.
//   - A goroutine's connection belongs to the loop of the task that its context comes
//     from, as in a handler that runs on a goroutine. Without such a task it belongs to
//     a loop of the group that the options name, and without such a group to the
//     default group: one loop, started when it is first needed, which runs until the
//     program ends. A task of that loop dials, and goroutines may use the connection.
//
// Only package noria can start a group, since it knows the backends, and it imports the
// packages that dial. So it registers a function that starts the default group.
package dialer

import (
	"context"
	"errors"
	"sync"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

var key friend.Key // opens what only this module may call: see internal/friend

// start starts a group with one loop; nil until Provide is called.
var start func() (*loop.Group, error)

// Provide registers the function that starts the default group. It may only be called
// from an init function.
func Provide(startGroup func() (*loop.Group, error)) { start = startGroup }

var errNoLoop = errors.New("no loop to dial from: call it from a task, set Group of the options, " +
	"or import github.com/noria-go/noria, which starts a loop for it")

var (
	mu    sync.Mutex
	group *loop.Group // the default group; nil until it is first needed
)

// defaultGroup returns the default group, and starts it if it does not run yet.
func defaultGroup() (*loop.Group, error) {
	mu.Lock()
	defer mu.Unlock()
	if group != nil {
		return group, nil
	}
	if start == nil {
		return nil, errNoLoop
	}
	g, err := start()
	if err != nil {
		return nil, err // the next call tries again: descriptors may have run out
	}
	group = g
	return g, nil
}

// On calls dial as a task of the loop that a connection to address belongs to, waits
// for it, and returns its error. It may be called from anywhere. g is the group that
// the options name, or nil. dial is told with foreign that the caller is not a task of
// that loop: then it must let goroutines use the connection.
func On(ctx context.Context, g *loop.Group, address string, dial func(ctx context.Context, foreign bool) error) error {
	t := loop.TaskOf(ctx)
	if t != nil && t.Loop().Friend(key).OnLoop() {
		return dial(ctx, false)
	}
	l, err := loopFor(t, g)
	if err != nil {
		return &runtime.OpError{Op: "dial", Detail: address, Err: err}
	}
	err = l.Friend(key).Call(ctx, "dial "+address, func(ctx context.Context) error { return dial(ctx, true) })
	if cerr := ctx.Err(); cerr != nil && errors.Is(err, runtime.ErrCanceled) {
		return &runtime.OpError{Op: "dial", Detail: address, Err: cerr}
	}
	return err
}

// loopFor returns the loop of a goroutine's connection. t is the task that the
// goroutine's context comes from, or nil.
func loopFor(t *loop.Task, g *loop.Group) (*loop.Loop, error) {
	if t != nil {
		return t.Loop(), nil
	}
	if g == nil {
		var err error
		if g, err = defaultGroup(); err != nil {
			return nil, err
		}
	}
	return g.Loop(), nil
}
