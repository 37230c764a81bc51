package noria_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/exported"
)

// apiLimits are the most exported names that packages may have together, methods
// of interfaces included. They are what there is today, and only go down.
var apiLimits = []struct {
	dirs  []string
	names int
}{
	{[]string{"runtime", "loop"}, 200},
	{[]string{"compat"}, 60},
}

// apiAny are the names of these packages that may have any in their type, and why.
var apiAny = map[string]string{
	"PanicError.Value": "what recover returned",
	"OpSys.Mem":        "keeps what a backend has the kernel look at reachable; each backend has types of its own",
}

// The API is as small as apiLimits says, and nothing of it is hidden from the
// count: go run ./internal/cmd/exported -v ./runtime prints the names.
func TestAPILimits(t *testing.T) {
	for _, limit := range apiLimits {
		total := 0
		for _, dir := range limit.dirs {
			if _, err := os.Stat(dir); os.IsNotExist(err) {
				continue
			}
			p, err := exported.Scan(module, dir)
			require.NoError(t, err)
			total += len(p.Names)
			for _, name := range p.Any {
				require.Contains(t, apiAny, name, "%s: its type has any in it", dir)
			}
		}
		require.LessOrEqual(t, total, limit.names, "exported names in %v", limit.dirs)
	}
}

// A type has one name: that of the package it is declared in. And the methods of
// an exported type are declared in its package.
func TestAPIHasNoAliases(t *testing.T) {
	dirs, err := exported.Dirs(".")
	require.NoError(t, err)
	for _, dir := range dirs {
		if exported.Public(dir) {
			p, err := exported.Scan(module, dir)
			require.NoError(t, err)
			require.Empty(t, p.Aliases, "%s: aliases of types of this module", dir)
			require.Empty(t, p.Embedded, dir)
		}
	}
}
