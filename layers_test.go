package noria_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/exported"
)

const module = "github.com/noria-go/noria"

// layers are the packages of this module, the upper ones first, each with what it
// may import of the module besides packages below an internal directory. A row
// that ends in a slash is for every package below that directory. A row for a
// package that does not exist is allowed.
//
// A package below internal has no row: what it imports is taken for an import of
// each package that imports it. So internal/backends is part of the root, and
// nothing becomes allowed by a detour.
var layers = []struct {
	dir     string
	imports []string
}{
	{"cmd/", []string{".", "examples/", "ws", "tcp", "compat", "loop", "runtime", "runtime/uring", "runtime/epoll", "runtime/sim", "conformance", "conformance/"}},
	{"examples/", []string{".", "examples/", "ws", "tcp", "compat", "loop"}},
	{"ws", []string{"tcp", "compat", "loop", "runtime"}},
	{"tcp", []string{"compat", "loop", "runtime"}},
	{"compat", []string{"loop", "runtime"}},
	{".", []string{"loop", "runtime", "runtime/uring", "runtime/epoll"}},
	{"loop", []string{"runtime"}},
	{"runtime", nil},
	{"runtime/uring", []string{"runtime"}},
	{"runtime/epoll", []string{"runtime"}},
	{"runtime/sim", []string{"runtime"}},

	// The suites stand beside the layers, and nothing but cmd/noria imports them.
	{"conformance", []string{"loop", "runtime"}},
	{"conformance/websocket", nil}, // judges any endpoint, by what is on the wire
	{"conformance/websocket/autobahn", []string{".", "examples/", "ws", "tcp", "compat", "loop", "runtime", "runtime/uring", "runtime/epoll", "conformance/websocket"}}, // a program
}

func internal(dir string) bool { return slices.Contains(strings.Split(dir, "/"), "internal") }

// row reports whether the row (or an import of one) called name is for dir.
func row(name, dir string) bool {
	if prefix, ok := strings.CutSuffix(name, "/"); ok {
		return strings.HasPrefix(dir, prefix+"/")
	}
	return name == dir
}

// imports returns, for each package of the module by its directory, the paths that
// its files for all systems and build tags import, tests aside.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	dirs, err := exported.Dirs(".")
	require.NoError(t, err)
	all := map[string][]string{}
	for _, dir := range dirs {
		files, err := exported.Parse(dir, parser.ImportsOnly)
		require.NoError(t, err)
		set := map[string]bool{}
		for _, f := range files {
			for _, i := range f.Imports {
				path, err := strconv.Unquote(i.Path.Value)
				require.NoError(t, err)
				set[path] = true
			}
		}
		all[dir] = slices.Sorted(maps.Keys(set))
	}
	return all
}

// ours returns the directory of an imported package of the module.
func ours(path string) (dir string, ok bool) {
	if path == module {
		return ".", true
	}
	return strings.CutPrefix(path, module+"/")
}

// within returns what dir imports of the module itself and by the internal
// packages that it imports.
func within(all map[string][]string, dir string, seen map[string]bool) (found []string) {
	seen[dir] = true
	for _, path := range all[dir] {
		switch i, ok := ours(path); {
		case !ok || seen[i]:
		case internal(i):
			found = append(found, within(all, i, seen)...)
		default:
			found = append(found, i)
		}
	}
	return found
}

// Imports only point down.
func TestLayers(t *testing.T) {
	all := imports(t)
	for dir := range all {
		if internal(dir) {
			continue
		}
		i := slices.IndexFunc(layers, func(l struct {
			dir     string
			imports []string
		}) bool {
			return row(l.dir, dir)
		})
		require.GreaterOrEqual(t, i, 0, "package %s has no row in layers", dir)
		for _, imported := range within(all, dir, map[string]bool{}) {
			allowed := slices.ContainsFunc(layers[i].imports, func(name string) bool {
				return row(name, imported)
			})
			require.True(t, allowed, "package %s imports %s, by itself or by an internal package; it may import %q", dir, imported, layers[i].imports)
		}
	}
}

// servers are the packages that are written once, for every backend and system.
var servers = []string{"ws", "tcp", "compat"}

// Servers make no system call, and look at no memory but Go's.
func TestLayersServersAreWrittenOnce(t *testing.T) {
	for dir, imports := range imports(t) {
		if !slices.ContainsFunc(servers, func(s string) bool { return dir == s || row(s+"/", dir) }) {
			continue
		}
		for _, i := range imports {
			forbidden := i == "syscall" || i == "unsafe" || row("golang.org/x/sys/", i) || row(module+"/runtime/", i)
			require.False(t, forbidden, "package %s imports %s", dir, i)
		}
	}
}

// Servers use values of package runtime (buffers, addresses, errors) and leave its
// operations to package loop.
func TestLayersServersUseValuesOnly(t *testing.T) {
	for _, dir := range servers {
		files, err := exported.Parse(dir, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, f := range files {
			for _, name := range operations(f) {
				t.Errorf("package %s uses %s", dir, name)
			}
		}
	}
}

// operation matches Op and the names that begin with it as a word.
var operation = regexp.MustCompile(`^Op([A-Z]|$)`)

// operations returns what f uses of an operation's way through a Runtime: the
// interface, Op and the types and constants named after it (an OpError is a value),
// and every Submit and Poll.
func operations(f *ast.File) (found []string) {
	contract := "" // what f calls package runtime
	for _, i := range f.Imports {
		if i.Path.Value == strconv.Quote(module+"/runtime") {
			contract = "runtime"
			if i.Name != nil {
				contract = i.Name.Name
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		name := sel.Sel.Name
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == contract && (name == "Runtime" || operation.MatchString(name) && name != "OpError") {
			found = append(found, "runtime."+name)
		}
		if name == "Submit" || name == "Poll" {
			found = append(found, "."+name)
		}
		return true
	})
	return found
}

// backendGuides are the documents that show how a backend is written. They are the
// only ones that show package runtime.
var backendGuides = []string{"docs/backend.md", "examples/backend/README.md"}

// A handler needs no package below loop, so no example shows package runtime:
// neither a program in examples, nor one in a package's documentation, nor a
// snippet of a document. Only the example of a backend does.
func TestLayersExamplesDoNotImportRuntime(t *testing.T) {
	importsRuntime := func(path string) bool {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		return bytes.Contains(text, []byte(strconv.Quote(module+"/runtime")))
	}
	for _, pattern := range []string{"examples/*/*.go", "examples/*/*/*.go", "example*_test.go", "*/example*_test.go"} {
		paths, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, paths, pattern)
		for _, path := range paths {
			isTest := strings.HasPrefix(path, "examples/") && strings.HasSuffix(path, "_test.go")
			if !isTest && !strings.HasPrefix(path, "runtime/") && !strings.HasPrefix(path, "conformance/") && !strings.HasPrefix(path, "examples/backend/") {
				require.False(t, importsRuntime(path), "%s imports package runtime", path)
			}
		}
	}
	for _, d := range documents(t) {
		if !slices.Contains(backendGuides, d.path) {
			for _, block := range d.code("go") {
				require.NotRegexp(t, `\bruntime\.|noria/runtime"`, block, d.path)
			}
		}
	}
}

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
