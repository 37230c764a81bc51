package conformance_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/conformance"
	"github.com/noria-go/noria/conformance/internal/broken"
	"github.com/noria-go/noria/runtime"
)

// TestBroken shows that the suite can fail: each faulty runtime fails the case
// that names what it breaks.
func TestBroken(t *testing.T) {
	cases := byName(t, conformance.RuntimeCases())
	// Most faults keep something from happening, and cost this long each. On a busy
	// machine a good runtime could seem faulty too, which does not matter here.
	limits := conformance.Limits{Wait: 400 * time.Millisecond}
	for _, v := range variants {
		if !v.features {
			continue // it would show the same again
		}
		for _, f := range broken.All() {
			t.Run(v.name+"/"+f.Case+"/"+f.Name, func(t *testing.T) {
				require.Contains(t, cases, f.Case)
				mustFail(t, f, v.factory, func(faulty conformance.Factory) error {
					return conformance.Check(cases[f.Case], faulty, limits)
				})
			})
		}
	}
}

// TestBrokenLoop is TestBroken for the cases of loops. It runs on one backend:
// what is broken here lies above the backends.
func TestBrokenLoop(t *testing.T) {
	cases := byName(t, conformance.LoopCases())
	limits := conformance.Limits{Wait: broken.Late * 2 / 3, Whole: 10 * time.Second}
	good := variants[len(variants)-2] // the last of those with all features
	require.True(t, good.features)
	for _, f := range broken.Loops() {
		t.Run(f.Case+"/"+f.Name, func(t *testing.T) {
			require.Contains(t, cases, f.Case)
			mustFail(t, f, good.factory, func(faulty conformance.Factory) (err error) {
				// On a busy machine the loop may be awake anyway and not miss the Wake
				// that the fault swallows, so there are several tries.
				for try := 0; try < 5 && err == nil; try++ {
					err = conformance.Check(cases[f.Case], faulty, limits)
				}
				return err
			})
		})
	}
}

// mustFail runs a case on the faulty runtimes that f makes, and requires the case to
// fail.
func mustFail(t *testing.T, f broken.Fault, good conformance.Factory, check func(faulty conformance.Factory) error) {
	t.Helper()
	err := check(func(w conformance.Wishes) (runtime.Runtime, error) {
		rt, err := good(w)
		if err != nil {
			return nil, err
		}
		return f.Wrap(rt), nil
	})
	require.Error(t, err, "the case does not notice the fault")
	require.NotContains(t, err.Error(), "hangs", "a fault must not cost more than its case's patience")
	t.Log(firstLines(err.Error()))
}

func firstLines(s string) string {
	if len(s) > 600 {
		return s[:600] + " …"
	}
	return s
}

// byName returns the cases by name, and fails if two have the same name.
func byName(t *testing.T, cases []conformance.Case) map[string]conformance.Case {
	t.Helper()
	named := map[string]conformance.Case{}
	for _, cs := range cases {
		require.NotContains(t, named, cs.Name, "two cases have this name")
		named[cs.Name] = cs
	}
	return named
}

// TestEveryCaseHasAFault: each case has a fault that it notices, or says why it has
// none; and each fault names a case.
func TestEveryCaseHasAFault(t *testing.T) {
	for _, suite := range []struct {
		cases  []conformance.Case
		faults []broken.Fault
	}{
		{conformance.RuntimeCases(), broken.All()},
		{conformance.LoopCases(), broken.Loops()},
	} {
		cases, has := byName(t, suite.cases), map[string]bool{}
		for _, f := range suite.faults {
			require.Contains(t, cases, f.Case, f.Name)
			has[f.Case] = true
		}
		for _, cs := range suite.cases {
			require.NotEqual(t, has[cs.Name], cs.NoFault != "", "%s has neither a fault nor a reason to have none, or both", cs.Name)
			require.False(t, cs.LoopAlone && !has[cs.Name], cs.Name)
			require.NotEqual(t, cs.Run != nil, cs.RunLoops != nil, "%s has one of the two", cs.Name)
		}
	}
}
