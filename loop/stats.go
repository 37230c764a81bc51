package loop

import (
	"context"

	"github.com/noria-go/noria/runtime"
)

// LoopStats describes a loop at one moment.
type LoopStats struct {
	Name    string
	Tasks   int    // that have not ended
	Lost    int    // coroutines suspended for good, because a task called runtime.Goexit
	Streams int    // that are open
	Resumes uint64 // how often the loop has started or resumed a task
	Pool    runtime.PoolStats
}

// snapshot returns the loop's counts. Tasks and goroutines may call it; off the loop it
// waits for a turn.
func (l *Loop) snapshot() (LoopStats, error) {
	if l.onLoop() {
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
	return LoopStats{Name: l.opts.Name, Tasks: l.tasks, Lost: l.lost, Streams: len(l.live), Resumes: l.resumes, Pool: l.pool.Friend(key).Stats()}
}
