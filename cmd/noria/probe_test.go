package main_test

import (
	"encoding/json"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backends"
	"github.com/noria-go/noria/internal/probe"
)

func TestProbePrints(t *testing.T) {
	out, err := exec.Command(program, "probe").Output()
	require.NoError(t, err)
	for _, part := range append(backends.Names(), "kernel", "GOMAXPROCS", "memlock_soft", "nofile_soft", "using ") {
		require.Contains(t, string(out), part)
	}
}

func TestProbePrintsJSON(t *testing.T) {
	out, err := exec.Command(program, "probe", "--json").Output()
	require.NoError(t, err)
	var r probe.Report
	require.NoError(t, json.Unmarshal(out, &r))
	require.Contains(t, backends.Names(), r.Backend)
}

// A program without a backend says so, in its exit status too.
func TestProbeWithoutABackend(t *testing.T) {
	cmd := exec.Command(program, "probe")
	cmd.Env = append(cmd.Environ(), backends.Variable+"=kqueue")
	out, err := cmd.Output()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 1, exit.ExitCode())
	require.Contains(t, string(out), "kqueue")
}
