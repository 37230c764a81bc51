package exported_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/exported"
)

const module = "example.com/m"

func write(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return dir
}

// Scan finds every kind in the files of all systems and tags, each name once. It leaves
// out unexported names and names of tests.
func TestScanNames(t *testing.T) {
	p, err := exported.Scan(module, write(t, map[string]string{
		"a.go": `package a
type T struct{ Field, field int }
func (t *T) Method()       {}
func (T) other()           {}
func (u hidden) Method()   {}
type hidden struct{}
type G[K comparable, V any] map[K]V
func (G[K, V]) Len() int { return 0 }
type I interface{ Do(); do(); hiddenInterface }
type hiddenInterface interface{ Undo() }
type Outer struct{ inner; *deeper }
type inner struct{ deeper }
type deeper struct{}
func (deeper) Promoted() {}
type Defined hiddenInterface
const A, b = 1, 2
const ( C = iota; D; _ )
var V, w = 1, 2
func F() {}
func f() {}
`,
		"a_windows.go": "package a\n\nfunc F() {}\nfunc OnWindows() {}\n",
		"tag.go":       "//go:build never\n\npackage a\n\nfunc (*T) Tagged() {}\n",
		"a_test.go":    "package a\n\nfunc InATest() {}\n",
	}))
	require.NoError(t, err)
	require.Equal(t, []exported.Name{
		{exported.Type, "Defined"}, {exported.Type, "G"}, {exported.Type, "I"}, {exported.Type, "Outer"}, {exported.Type, "T"},
		{exported.Func, "F"}, {exported.Func, "OnWindows"},
		{exported.Method, "G.Len"}, {exported.Method, "Outer.Promoted"}, {exported.Method, "T.Method"}, {exported.Method, "T.Tagged"},
		{exported.InterfaceMethod, "Defined.Undo"}, {exported.InterfaceMethod, "I.Do"}, {exported.InterfaceMethod, "I.Undo"},
		{exported.Const, "A"}, {exported.Const, "C"}, {exported.Const, "D"},
		{exported.Var, "V"},
	}, p.Names)
	require.Equal(t, [exported.Kinds]int{5, 2, 4, 3, 3, 1}, p.Count())
	require.Empty(t, p.Aliases)
	require.Empty(t, p.Embedded)
	require.Empty(t, p.Any)
}

func TestScanHiddenNames(t *testing.T) {
	p, err := exported.Scan(module, write(t, map[string]string{
		"a.go": `package a
import (
	"example.com/m/internal/b"
	c "example.com/m/other"
	"example.com/m2/d"
	"io"
)
type (
	Own      = hidden
	Other    = c.T
	List     = []*b.T
	Foreign  = d.T
	Standard = io.Reader
	hidden   struct{}
	unseen   = c.T
)
type E struct{ *b.T; c.U; x b.V }
type F struct{ x b.T }
`,
	}))
	require.NoError(t, err)
	require.Equal(t, []string{"List", "Other", "Own"}, p.Aliases)
	require.Equal(t, []string{"E embeds b.T"}, p.Embedded)
}

func TestScanAny(t *testing.T) {
	p, err := exported.Scan(module, write(t, map[string]string{
		"a.go": `package a
type T struct { Field any; More, fewer map[string]interface{}; Fine error; f any }
func (T) Method(...any)          {}
func (T) method(any)             {}
func Func(func() any)            {}
func Generic[K any](K) Queue[K]  { panic(0) }
func Instance() Queue[any]       { panic(0) }
type Queue[K any] struct{ first K }
type I interface{ Do() (any, error); Fine(interface{ Close() }) }
var V, v any
var W = fine(any(1))
`,
	}))
	require.NoError(t, err)
	require.Equal(t, []string{"Func", "I.Do", "Instance", "T.Field", "T.Method", "T.More", "V"}, p.Any)
}

func TestScanRefuses(t *testing.T) {
	_, err := exported.Scan(module, write(t, map[string]string{"a_test.go": "package a"}))
	require.ErrorContains(t, err, "no Go files")
	_, err = exported.Scan(module, write(t, map[string]string{"a.go": "package"}))
	require.ErrorContains(t, err, "a.go")
}

func TestDirs(t *testing.T) {
	const text = "package p"
	dirs, err := exported.Dirs(write(t, map[string]string{
		"a.go": text, "b/b.go": text, "b/internal/c/c.go": text, "cmd/d/d.go": text, "examples/e/e.go": text, "empty/README": "",
		"tests/t_test.go": text, "b/testdata/x.go": text, ".git/x.go": text, "_x/x.go": text, "other/go.mod": "", "other/x.go": text,
	}))
	require.NoError(t, err)
	require.Equal(t, []string{".", "b", "b/internal/c", "cmd/d", "examples/e"}, dirs)
	var public []string
	for _, dir := range dirs {
		if exported.Public(dir) {
			public = append(public, dir)
		}
	}
	require.Equal(t, []string{".", "b"}, public)
}
