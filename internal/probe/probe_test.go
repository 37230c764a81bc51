package probe_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backends"
	"github.com/noria-go/noria/internal/probe"
)

func TestProbeFindsABackend(t *testing.T) {
	t.Setenv(backends.Variable, "")
	r := probe.Run()
	require.NotEmpty(t, r.Backend, r.Reason)
	require.Contains(t, backends.Names(), r.Backend)
	require.Contains(t, r.Reason, "using "+r.Backend)
	require.NotEmpty(t, r.Kernel)
	require.Positive(t, r.Loops)
	require.Len(t, r.Backends, len(backends.Names()))
	for _, b := range r.Backends {
		require.NotEqual(t, b.Usable, b.Why != "", "%s: usable or a reason why not", b.Name)
		for _, f := range b.Features {
			require.NotEmpty(t, f.Name)
			require.NotEmpty(t, f.Why, f.Name)
		}
	}
	require.NotEmpty(t, r.Limits)
}

func TestProbeObeysTheEnvironment(t *testing.T) {
	for _, name := range backends.Names() {
		t.Setenv(backends.Variable, name)
		r := probe.Run()
		require.Equal(t, name, r.Backend)
		require.Equal(t, name, r.Environment)
		require.Contains(t, r.Reason, backends.Variable)
	}
	t.Setenv(backends.Variable, "kqueue")
	r := probe.Run()
	require.Empty(t, r.Backend)
	require.Contains(t, r.Reason, `"kqueue"`)
	require.NotEmpty(t, r.Kernel, "it is there whatever was asked for")
}

// Each thing that is off comes with advice.
func TestProbeAdvisesOnWhatIsOff(t *testing.T) {
	r := probe.Run()
	advised := map[string]bool{}
	for _, a := range r.Advice {
		require.NotEmpty(t, a.Do)
		advised[a.About] = true
	}
	for _, b := range r.Backends {
		require.Equal(t, !b.Usable, advised[b.Name], b.Name)
		for _, f := range b.Features {
			require.Equal(t, !f.On, advised[b.Name+" "+f.Name], f.Name)
		}
	}
}

// Other programs read these names.
func TestProbeJSONNames(t *testing.T) {
	data, err := json.Marshal(probe.Run())
	require.NoError(t, err)
	var top map[string]any
	require.NoError(t, json.Unmarshal(data, &top))
	for _, name := range []string{"os", "arch", "kernel", "go", "cpus", "gomaxprocs", "default_loops", "backend", "reason", "environment", "backends", "limits", "advice"} {
		require.Contains(t, top, name)
	}
	first := top["backends"].([]any)[0].(map[string]any)
	for _, name := range []string{"name", "usable", "why", "features"} {
		require.Contains(t, first, name)
	}
}
