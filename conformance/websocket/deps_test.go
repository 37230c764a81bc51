package websocket_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDeps: the judge shares no code with the endpoints that it judges, and the faulty
// endpoints share none with the judge. The only common code is the standard library.
func TestDeps(t *testing.T) {
	for _, pkg := range []string{"github.com/noria-go/noria/conformance/websocket", "github.com/noria-go/noria/internal/brokenws"} {
		cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", pkg)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		require.NoError(t, err, stderr.String())
		require.Equal(t, pkg, strings.TrimSpace(string(out)))
	}
}
