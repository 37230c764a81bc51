package loop

import (
	"context"

	"github.com/noria-go/noria/runtime"
)

// NewLoop returns a loop that no group has, for tests.
func NewLoop(rt runtime.Runtime, opts LoopOptions) *Loop { return newLoop(rt, opts) }

// Run runs the loop until ctx ends.
func (l *Loop) Run(ctx context.Context) error { return l.run(ctx) }

// Running is closed once the loop runs.
func (l *Loop) Running() <-chan struct{} { return l.ready }
