package loop

import (
	"context"

	"github.com/noria-go/noria/runtime"
)

// NewLoop returns a loop without a group.
func NewLoop(rt runtime.Runtime, opts LoopOptions) *Loop { return newLoop(rt, opts) }

// Run runs the loop until ctx ends.
func (l *Loop) Run(ctx context.Context) error { return l.run(ctx) }

// Running is closed once the loop runs.
func (l *Loop) Running() <-chan struct{} { return l.ready }

// NewWhen returns a source that is ready when ready reports true or src is ready.
func NewWhen(ready func() bool, src Source) Source { return &when{ready, src} }
