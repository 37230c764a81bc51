package conformance_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/conformance"
	"github.com/noria-go/noria/conformance/broken"
	"github.com/noria-go/noria/runtime"
)

// TestBroken shows that the suite can fail: each faulty runtime fails the case
// that names what it breaks.
func TestBroken(t *testing.T) {
	cases := map[string]conformance.Case{}
	for _, cs := range conformance.Cases() {
		cases[cs.Name] = cs
	}
	// Most faults make something not come: each costs this much, and under load a
	// good runtime would seem faulty too, which is no harm here.
	limits := conformance.Limits{Wait: 400 * time.Millisecond}
	for _, v := range variants {
		if !v.features {
			continue // they would show the same
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

// mustFail runs a case on what f makes of good runtimes.
func mustFail(t *testing.T, f broken.Fault, good conformance.Factory, check func(faulty conformance.Factory) error) {
	t.Helper()
	err := check(func(w conformance.Wishes) (runtime.Runtime, error) {
		rt, err := good(w)
		if err != nil {
			return nil, err
		}
		return f.Wrap(rt), nil
	})
	require.Error(t, err, "nobody notices")
	require.NotContains(t, err.Error(), "hangs", "a fault must not cost more than its case's patience")
	t.Log(firstLines(err.Error()))
}

func firstLines(s string) string {
	if len(s) > 600 {
		return s[:600] + " …"
	}
	return s
}

// withoutFault are the cases that no runtime here fails, and why.
var withoutFault = map[string]string{
	"close/wake-after-it": "it would have to write to a descriptor that is somebody else's by then",
}

// TestEveryCaseHasAFault: a case that nothing ever failed may be unable to.
func TestEveryCaseHasAFault(t *testing.T) {
	has := map[string]bool{}
	for _, f := range broken.All() {
		has[f.Case] = true
	}
	for _, cs := range conformance.Cases() {
		require.True(t, has[cs.Name] || withoutFault[cs.Name] != "", "%s has no fault", cs.Name)
	}
}
