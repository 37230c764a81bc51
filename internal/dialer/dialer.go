// Package dialer is the one rule of every Dial of this module: which loop a dialed
// connection belongs to.
//
//   - A task's connection belongs to the task's loop, and the task itself dials.
//   - A goroutine's connection belongs to the loop of the task that its context comes
//     from, as in a handler that runs on a goroutine; otherwise to a loop of the group
//     that it names; otherwise to a group of one loop that is started when it is first
//     needed and runs until the program ends. A task of that loop dials, and the
//     connection may be used from goroutines.
//
// Only package noria knows how to start a group, and the packages that dial lie below
// it. So noria registers that here.
package dialer

import (
	"context"
	"errors"
	"sync"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// start starts a group with one loop; nil until Provide is called.
var start func() (*loop.Group, error)

// Provide registers the function that starts the default group. It is called from an
// init function.
func Provide(startGroup func() (*loop.Group, error)) { start = startGroup }

var errNoLoop = errors.New("no loop to dial from: call it from a task, set Group of the options, " +
	"or import github.com/noria-go/noria, which starts a loop for it")

// defaultGroup starts the default group at its first call.
var defaultGroup = sync.OnceValues(func() (*loop.Group, error) {
	if start == nil {
		return nil, errNoLoop
	}
	return start()
})

// On calls dial as a task of the loop that a connection to address belongs to, and
// returns its error. foreign says that the caller is a goroutine, so that the
// connection must allow goroutines.
func On(ctx context.Context, g *loop.Group, address string, dial func(ctx context.Context, foreign bool) error) error {
	t := loop.TaskOf(ctx)
	if t != nil && t.Loop().Friend(friend.Key{}).OnLoop() {
		return dial(ctx, false)
	}
	var l *loop.Loop
	switch {
	case t != nil:
		l = t.Loop()
	default:
		if g == nil {
			var err error
			if g, err = defaultGroup(); err != nil {
				return &runtime.OpError{Op: "dial", Detail: address, Err: err}
			}
		}
		l = g.Loop()
	}
	err := l.Friend(friend.Key{}).Call(ctx, "dial "+address, func(ctx context.Context) error { return dial(ctx, true) })
	if cerr := ctx.Err(); cerr != nil && errors.Is(err, runtime.ErrCanceled) {
		return &runtime.OpError{Op: "dial", Detail: address, Err: cerr}
	}
	return err
}
