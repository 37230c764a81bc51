package conformance_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// outside is a backend in a module of its own.
const outside = "../examples/backend"

// TestOutside: a backend in a module of its own compiles with what package runtime
// exports and nothing else of this module, and passes both suites.
func TestOutside(t *testing.T) {
	goTool := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = outside
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		return string(out)
	}
	for imported := range strings.FieldsSeq(goTool("list", "-f", `{{join .Imports "\n"}}`, ".")) {
		if strings.HasPrefix(imported, "github.com/noria-go/") {
			require.Equal(t, "github.com/noria-go/noria/runtime", imported)
		}
	}
	goTool("vet", ".")
	ran := goTool("test", "-count", "1", "-v", ".")
	for _, cs := range caseNames(t) {
		require.Contains(t, ran, "/"+cs+" (", "not run")
	}
}

// TestBackendGuide: the snippets of docs/backend.md are from that backend.
func TestBackendGuide(t *testing.T) {
	var source strings.Builder
	files, err := filepath.Glob(outside + "/*.go")
	require.NoError(t, err)
	for _, file := range files {
		src, err := os.ReadFile(file)
		require.NoError(t, err)
		source.Write(src)
	}
	guide, err := os.ReadFile("../docs/backend.md")
	require.NoError(t, err)
	snippets := 0
	for _, rest := range strings.Split(string(guide), "```go\n")[1:] {
		snippet, _, closed := strings.Cut(rest, "```\n")
		require.True(t, closed)
		require.True(t, strings.Contains(source.String(), snippet), "not in %s:\n%s", outside, snippet)
		snippets++
	}
	require.Positive(t, snippets)
}
