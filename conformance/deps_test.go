package conformance_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDeps: this package imports neither testify nor a backend, because the tests of
// backends in other modules import this package.
func TestDeps(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	deps := strings.Fields(string(out))
	require.Contains(t, deps, "github.com/noria-go/noria/runtime")
	for _, dep := range deps {
		for _, unwanted := range []string{"github.com/stretchr/testify", "/runtime/uring", "/runtime/epoll", "/runtime/sim"} {
			require.NotContains(t, dep, unwanted)
		}
	}
}
