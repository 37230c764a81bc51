package noria_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/noria-go/noria"

func goList(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	return strings.Fields(string(out))
}

func requireNone(t *testing.T, packages []string, forbidden ...string) {
	t.Helper()
	require.NotEmpty(t, packages)
	for _, p := range packages {
		for _, f := range forbidden {
			require.False(t, p == f || strings.HasPrefix(p, f+"/"), "%s is among the imports", p)
		}
	}
}

// Servers are written once: they know no backend, and no system call.
func TestServersNameNoBackend(t *testing.T) {
	for _, dir := range []string{"./tcp", "./ws", "./compat"} {
		t.Run(dir, func(t *testing.T) {
			requireNone(t, goList(t, "-deps", dir), module+"/runtime/uring", module+"/runtime/epoll", module+"/runtime/sim", "github.com/godzie44/go-uring")
			requireNone(t, goList(t, "-f", `{{join .Imports "\n"}}`, dir), "syscall", "unsafe", "golang.org/x/sys")
		})
	}
}

// A backend that a build tag leaves out is not in the program, and not in the
// tests that run with the tag (make tags).
func TestBuildTagsLeaveABackendOut(t *testing.T) {
	uring := []string{module + "/runtime/uring", "github.com/godzie44/go-uring"}
	epoll := []string{module + "/runtime/epoll"}
	for _, tt := range []struct {
		tags string
		out  []string
		in   []string
	}{
		{"noria_epoll", uring, epoll},
		{"noria_uring", epoll, uring[:1]},
		{"noria_uring,noria_epoll", nil, append(epoll, uring[0])},
		{"", nil, append(epoll, uring[0])},
	} {
		t.Run("tags="+tt.tags, func(t *testing.T) {
			deps := goList(t, "-deps", "-tags", tt.tags, "./cmd/noria")
			requireNone(t, deps, tt.out...)
			require.Subset(t, deps, tt.in)
			tests := goList(t, "-deps", "-test", "-tags", tt.tags, ".", "./conformance", "./tcp")
			requireNone(t, tests, tt.out...)
			require.Subset(t, tests, tt.in)
		})
	}
}

// A backend knows the interface and nothing of another backend.
func TestBackendsDoNotKnowEachOther(t *testing.T) {
	requireNone(t, goList(t, "-deps", "./runtime/uring"), module+"/runtime/epoll", module+"/tcp", module+"/ws", module+"/compat")
	requireNone(t, goList(t, "-deps", "./runtime/epoll"), module+"/runtime/uring", module+"/tcp", module+"/ws", module+"/compat")
	requireNone(t, goList(t, "-deps", "./runtime"), module+"/runtime/uring", module+"/runtime/epoll")
}
