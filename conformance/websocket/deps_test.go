package websocket_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDeps: the judge shares no code with what it judges. Everything beneath
// it is the standard library.
func TestDeps(t *testing.T) {
	for _, pkg := range []string{".", "./broken"} {
		cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", pkg)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		require.NoError(t, err, stderr.String())
		for dep := range strings.FieldsSeq(string(out)) {
			require.True(t, strings.HasPrefix(dep, "github.com/noria-go/noria/conformance/websocket"), "%s depends on %s", pkg, dep)
		}
	}
}
