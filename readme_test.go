package noria_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReadme compiles the program that the README begins with.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(readme), "```go\n")
	require.True(t, found)
	program, _, found := strings.Cut(rest, "```\n")
	require.True(t, found)
	require.Contains(t, program, "func main() {")
	file := filepath.Join(t.TempDir(), "main.go")
	require.NoError(t, os.WriteFile(file, []byte(`package main

import (
	"context"
	"log"
	"os"
	"os/signal"

	"github.com/noria-go/noria"
	"github.com/noria-go/noria/ws"
)

`+program), 0o600))
	out, err := exec.CommandContext(t.Context(), "go", "vet", file).CombinedOutput()
	require.NoError(t, err, string(out))
}

// TestMigratingCompiles compiles the code of docs/migrating.md, all of it
// together: it imports what it names.
func TestMigratingCompiles(t *testing.T) {
	text, err := os.ReadFile("docs/migrating.md")
	require.NoError(t, err)
	var code strings.Builder
	blocks := 0
	for rest := string(text); ; blocks++ {
		_, after, found := strings.Cut(rest, "```go\n")
		if !found {
			break
		}
		block, after, found := strings.Cut(after, "```\n")
		require.True(t, found)
		code.WriteString(block)
		rest = after
	}
	require.Greater(t, blocks, 5)
	program := "package migrating\n\n"
	for name, path := range map[string]string{"context": "context", "errors": "errors", "fmt": "fmt", "http": "net/http", "maps": "maps",
		"noria": "github.com/noria-go/noria", "loop": "github.com/noria-go/noria/loop", "slices": "slices", "sql": "database/sql",
		"sync": "sync", "ws": "github.com/noria-go/noria/ws"} {
		if strings.Contains(code.String(), name+".") {
			program += fmt.Sprintf("import %q\n", path)
		}
	}
	file := filepath.Join(t.TempDir(), "migrating.go")
	require.NoError(t, os.WriteFile(file, []byte(program+code.String()), 0o600))
	out, err := exec.CommandContext(t.Context(), "go", "vet", file).CombinedOutput()
	require.NoError(t, err, string(out))
}
