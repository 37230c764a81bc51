package conformance_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/conformance"
	"github.com/noria-go/noria/conformance/broken"
)

// TestBrokenLoop is TestBroken for the cases of loops. It runs on one backend:
// what is broken here lies above them.
func TestBrokenLoop(t *testing.T) {
	cases := map[string]conformance.LoopCase{}
	for _, cs := range conformance.LoopCases() {
		cases[cs.Name] = cs
	}
	limits := conformance.Limits{Wait: broken.Late * 2 / 3, Whole: 10 * time.Second}
	good := variants[len(variants)-2] // the last with all features
	require.True(t, good.features)
	for _, f := range broken.Loops() {
		t.Run(f.Case+"/"+f.Name, func(t *testing.T) {
			require.Contains(t, cases, f.Case)
			mustFail(t, f, good.factory, func(faulty conformance.Factory) (err error) {
				// A Wake that is not heard is not missed where the loop, on a busy
				// machine, was awake anyhow: so there is more than one try.
				for try := 0; try < 5 && err == nil; try++ {
					err = conformance.CheckLoop(cases[f.Case], faulty, limits)
				}
				return err
			})
		})
	}
}

// withoutLoopFault are the cases of loops that no runtime here fails, and why.
var withoutLoopFault = map[string]string{
	"task/abandoned-is-named": "it is about a loop that stops with an error; a runtime adds only others to it",
}

// loopAlone are those whose promise is the loop's own, so that no runtime breaks
// it. Each has a fault, which shows only that it fails when its tasks do not run
// in time, or the loop does not end in order: not that it would notice if the
// loop broke the promise. For that package runtime has to be broken by hand, which
// was done once for each of these, on 2026-11-26: they all noticed.
var loopAlone = []string{
	"task/go-call-post", "task/post-is-bounded", "task/call-from-posted-function", "task/children",
	"task/panic-contained", "task/cancel-while-posts-are-full", "trap/goexit-contained",
	"trap/watchdog-names-mutex", "trap/used-off-loop", "wait/yield", "wait/queue-limits-deadline-close",
	"wait/offload-many", "wait/sleep-never-early", "wait/timer-armed-late-in-a-batch", "faults/pinning-is-refused",
	"hostile/child-of-a-task-that-has-ended", "hostile/group-stopped-from-a-task", "hostile/loop-used-from-elsewhere",
	"hostile/reader-woken-and-killed", "hostile/acceptor-woken-and-killed", "misuse/buffer-that-was-given-away", "misuse/buffer-with-too-few-owners",
	"misuse/buffer-of-another-loop", "misuse/callback-that-panics", "misuse/settings-from-elsewhere",
	"misuse/posted-function-that-blocks", "misuse/one-of-thousands-blocks",
}

// TestEveryLoopCaseHasAFault is TestEveryCaseHasAFault for the cases of loops.
func TestEveryLoopCaseHasAFault(t *testing.T) {
	has, cases := map[string]bool{}, map[string]bool{}
	for _, f := range broken.Loops() {
		has[f.Case] = true
	}
	for _, cs := range conformance.LoopCases() {
		cases[cs.Name] = true
		require.NotEqual(t, has[cs.Name], withoutLoopFault[cs.Name] != "", "%s has no fault, or is said to have none", cs.Name)
	}
	for _, name := range loopAlone {
		require.True(t, cases[name] && has[name], "no case, or no fault, for %s", name)
	}
}
