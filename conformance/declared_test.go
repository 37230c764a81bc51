package conformance_test

import (
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A reach is what a test runs on.
type reach int

const (
	noBackend    reach = iota // it needs none
	everyBackend              // all that the build has
	oneBackend
)

// testIn finds a test function in a file (or in src, if that is not nil), and
// says what it runs on, as far as the source shows it: by the package it is in, by
// the backends it names, and by whether it goes through all variants.
func testIn(file string, src any, name string) (reach, error) {
	if src == nil {
		if here, err := build.Default.MatchFile(filepath.Split(file)); err != nil || !here {
			return 0, fmt.Errorf("%s is not compiled here: %v", file, err)
		}
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), file, src, parser.SkipObjectResolution)
	if err != nil {
		return 0, err
	}
	for _, d := range parsed.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Name.Name != name {
			continue
		}
		param, ok := testParam(f)
		if !ok {
			return 0, fmt.Errorf("%s: %s is no test", file, name)
		}
		if mentions(f.Body, param+".Skip", param+".Skipf", param+".SkipNow") {
			return 0, fmt.Errorf("%s: %s is skipped, at least sometimes", file, name)
		}
		switch dir := filepath.Base(filepath.Dir(file)); {
		case dir == "uring" || dir == "epoll" || mentions(f.Body, "uring.New", "epoll.New"):
			return oneBackend, nil
		case mentions(f.Body, "backendtest.Each", "backendtest.Variants", "noria.Backends") || ranges(f.Body, "variants"):
			return everyBackend, nil
		}
		return noBackend, nil
	}
	return 0, fmt.Errorf("%s declares no %s", file, name)
}

// testParam returns what f calls its testing.T, and whether go test would run f.
func testParam(f *ast.FuncDecl) (name string, ok bool) {
	if f.Recv != nil || f.Type.Results != nil || f.Type.TypeParams != nil || !strings.HasPrefix(f.Name.Name, "Test") || f.Type.Params.NumFields() != 1 {
		return "", false
	}
	p := f.Type.Params.List[0]
	star, ok := p.Type.(*ast.StarExpr)
	if !ok || dotted(star.X) != "testing.T" {
		return "", false
	}
	if len(p.Names) > 0 {
		name = p.Names[0].Name
	}
	return name, true
}

// dotted returns x.y of such an expression.
func dotted(e ast.Expr) string {
	if sel, ok := e.(*ast.SelectorExpr); ok {
		if x, ok := sel.X.(*ast.Ident); ok {
			return x.Name + "." + sel.Sel.Name
		}
	}
	return ""
}

// mentions reports whether one of the names, as package.Name, is used in n.
func mentions(n ast.Node, names ...string) (found bool) {
	ast.Inspect(n, func(n ast.Node) bool {
		if e, ok := n.(ast.Expr); ok && slices.Contains(names, dotted(e)) {
			found = true
		}
		return !found
	})
	return found
}

// ranges reports whether n has a loop over the variable.
func ranges(n ast.Node, variable string) (found bool) {
	ast.Inspect(n, func(n ast.Node) bool {
		if r, ok := n.(*ast.RangeStmt); ok {
			x, ok := r.X.(*ast.Ident)
			found = found || ok && x.Name == variable
		}
		return !found
	})
	return found
}

// TestSuitesRunEverywhere: what runs the cases runs them on every variant (which
// TestVariants holds against the backends of this build), and no case asks which
// backend it has.
func TestSuitesRunEverywhere(t *testing.T) {
	for file, test := range map[string]string{"variants_test.go": "TestRuntime", "loop_test.go": "TestLoop", "stress_test.go": "TestStress"} {
		got, err := testIn(file, nil, test)
		require.NoError(t, err)
		require.Equal(t, everyBackend, got, test)
	}
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	looked := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		looked++
		require.False(t, choosesByBackend(parsed), "%s: a case depends on which backend it has", file)
	}
	require.Positive(t, looked)
}

// choosesByBackend reports whether a condition looks at a Backend or its features.
func choosesByBackend(n ast.Node) (found bool) {
	asks := func(e ast.Node) {
		ast.Inspect(e, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && (sel.Sel.Name == "Backend" || sel.Sel.Name == "Has") {
				found = true
			}
			return !found
		})
	}
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.IfStmt:
			asks(n.Cond)
			if n.Init != nil {
				asks(n.Init)
			}
		case *ast.SwitchStmt:
			if n.Tag != nil {
				asks(n.Tag)
			}
		case *ast.CaseClause:
			for _, e := range n.List {
				asks(e)
			}
		case *ast.BinaryExpr:
			asks(n)
		}
		return !found
	})
	return found
}

// TestDeclared shows that the two above can tell.
func TestDeclared(t *testing.T) {
	for name, tt := range map[string]struct {
		file, src string
		want      reach
		wrong     string
	}{
		"every":            {"x_test.go", "func TestX(t *testing.T) { for _, v := range variants { _ = v } }", everyBackend, ""},
		"every, elsewhere": {"x_test.go", "func TestX(t *testing.T) { backendtest.Each(t, nil) }", everyBackend, ""},
		"none":             {"x_test.go", "func TestX(t *testing.T) { NewPool(0) }", noBackend, ""},
		"one's own":        {"../runtime/uring/x_test.go", "func TestX(t *testing.T) {}", oneBackend, ""},
		"one by name":      {"x_test.go", "func TestX(t *testing.T) { epoll.New(epoll.Options{}) }", oneBackend, ""},
		"none there":       {"x_test.go", "func TestXY(t *testing.T) {}", 0, "declares no TestX"},
		"in a comment":     {"x_test.go", "/*\nfunc TestX(t *testing.T) {}\n*/", 0, "declares no TestX"},
		"a method":         {"x_test.go", "func (s suite) TestX(t *testing.T) {}", 0, "is no test"},
		"a helper":         {"x_test.go", "func TestX(t *testing.T, v variant) {}", 0, "is no test"},
		"a benchmark":      {"x_test.go", "func TestX(b *testing.B) {}", 0, "is no test"},
		"skipped":          {"x_test.go", "func TestX(it *testing.T) { if testing.Short() { it.SkipNow() } }", 0, "is skipped"},
	} {
		got, err := testIn(tt.file, "package x\n"+tt.src, "TestX")
		if tt.wrong != "" {
			require.ErrorContains(t, err, tt.wrong, name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, tt.want, got, name)
	}
	for src, want := range map[string]bool{
		`if c.rt.Info().Backend == "epoll" { return }`:   true,
		`if i := c.rt.Info(); i.Has("x") { return }`:     true,
		`switch c.rt.Info().Backend { case "epoll": }`:   true,
		`ok := c.rt.Info().Backend != "epoll"; _ = ok`:   true,
		`require.NotEmpty(c, c.rt.Info().Backend)`:       false,
		`for range 3 { require.True(c, i.Has(f.Name)) }`: false,
	} {
		parsed, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\nfunc f() { "+src+" }", parser.SkipObjectResolution)
		require.NoError(t, err)
		require.Equal(t, want, choosesByBackend(parsed), src)
	}
}
