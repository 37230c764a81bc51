// Package exported lists the exported names of a Go package: types, functions, methods,
// interface methods, constants and variables. It parses every source file of a
// directory except tests, whatever its build constraints, so the list covers all
// systems and build tags. A name that several files declare is listed once.
//
// It also finds names that such a list hides: aliases that give a type of the module a
// second name, and places where a caller may pass or gets a value of any type.
package exported

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A Kind is what a name stands for.
type Kind int

// The kinds, in the order in which they are printed.
const (
	Type Kind = iota
	Func
	Method
	InterfaceMethod
	Const
	Var
	Kinds // the number of kinds
)

// String returns the kind as the program prints it.
func (k Kind) String() string {
	return [Kinds]string{"type", "func", "method", "interface method", "const", "var"}[k]
}

// A Name is an exported name. The name of a method begins with its type.
type Name struct {
	Kind Kind
	Name string
}

// A Package is the result of Scan.
type Package struct {
	Dir   string
	Names []Name // sorted by Kind, then by Name

	// Aliases are the exported aliases of types of the module, the package's own
	// included.
	Aliases []string

	// Embedded are the exported types that embed a type of one of the module's internal
	// packages, each with that type: its methods are exported and not in Names.
	Embedded []string

	// Any are the exported functions, methods, fields and variables with any in their
	// type, sorted. The constraint of a type parameter does not count.
	Any []string
}

// Count returns how many names of each kind there are.
func (p *Package) Count() (n [Kinds]int) {
	for _, name := range p.Names {
		n[name.Kind]++
	}
	return n
}

// Scan parses the package in dir, which is a package of module. A directory
// without Go files besides tests is an error.
func Scan(module, dir string) (*Package, error) {
	files, err := Parse(dir, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	s := scanner{module: module, kinds: map[string]Kind{}, types: map[string]ast.Expr{}, methods: map[string][]*ast.FuncDecl{},
		aliases: map[string]bool{}, embedded: map[string]bool{}, any: map[string]bool{}}
	for _, f := range files {
		s.collect(f)
	}
	for _, f := range files {
		s.imports = moduleImports(module, f)
		for _, d := range f.Decls {
			s.declaration(d)
		}
	}
	p := &Package{Dir: dir, Aliases: sorted(s.aliases), Embedded: sorted(s.embedded), Any: sorted(s.any)}
	for name, kind := range s.kinds {
		p.Names = append(p.Names, Name{kind, name})
	}
	slices.SortFunc(p.Names, func(a, b Name) int {
		if a.Kind != b.Kind {
			return int(a.Kind - b.Kind)
		}
		return strings.Compare(a.Name, b.Name)
	})
	return p, nil
}

// Parse parses the Go files in dir except tests, for all systems and build tags.
func Parse(dir string, mode parser.Mode) ([]*ast.File, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, mode)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no Go files besides tests", dir)
	}
	return files, nil
}

// Dirs returns the directories below root that hold Go packages of root's module,
// sorted and relative to root. It leaves out directories with a go.mod of their own,
// directories named testdata, and those whose name begins with a dot or an underscore.
func Dirs(root string) ([]string, error) {
	found := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root {
			_, err := os.Stat(filepath.Join(path, "go.mod"))
			if err == nil || d.Name() == "testdata" || d.Name()[0] == '.' || d.Name()[0] == '_' {
				return fs.SkipDir
			}
			if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		}
		if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			dir, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			found[filepath.ToSlash(dir)] = true
		}
		return nil
	})
	return sorted(found), err
}

// Public reports whether dir, of Dirs, is a package that other modules may import: not
// a program and not below internal.
func Public(dir string) bool {
	parts := strings.Split(dir, "/")
	return !slices.Contains(parts, "internal") && parts[0] != "cmd" && parts[0] != "examples"
}

type scanner struct {
	module  string
	imports map[string]string // import paths of the module's packages, by their names in the current file

	types   map[string]ast.Expr        // of the package, exported or not
	methods map[string][]*ast.FuncDecl // by their receiver's type

	kinds                  map[string]Kind
	aliases, embedded, any map[string]bool
}

// collect records the types and methods of f.
func (s *scanner) collect(f *ast.File) {
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv != nil {
				name := typeName(d.Recv.List[0].Type)
				s.methods[name] = append(s.methods[name], d)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if t, ok := spec.(*ast.TypeSpec); ok {
					s.types[t.Name.Name] = t.Type
				}
			}
		}
	}
}

func (s *scanner) declaration(d ast.Decl) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil && d.Name.IsExported() {
			s.add(Func, d.Name.Name, d.Type)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if spec.Name.IsExported() {
					s.typeSpec(spec)
				}
			case *ast.ValueSpec:
				kind := Var
				if d.Tok == token.CONST {
					kind = Const
				}
				for _, name := range spec.Names {
					if name.IsExported() {
						s.add(kind, name.Name, spec.Type)
					}
				}
			}
		}
	}
}

func (s *scanner) add(kind Kind, name string, typ ast.Expr) {
	s.kinds[name] = kind
	if hasAny(typ) {
		s.any[name] = true
	}
}

func (s *scanner) typeSpec(spec *ast.TypeSpec) {
	s.kinds[spec.Name.Name] = Type
	if spec.Assign.IsValid() && s.ofModule(spec.Type) {
		s.aliases[spec.Name.Name] = true
	}
	s.members(spec.Name.Name, spec.Name.Name, map[string]bool{})
}

// members adds the methods of the type called name to those of the exported type owner,
// and checks its fields. name is owner itself, or an unexported type that owner embeds
// or is defined as, whose methods a count of exported types would miss.
func (s *scanner) members(owner, name string, seen map[string]bool) {
	if seen[name] {
		return
	}
	seen[name] = true
	for _, m := range s.methods[name] {
		if m.Name.IsExported() {
			s.add(Method, owner+"."+m.Name.Name, m.Type)
		}
	}
	switch t := s.types[name].(type) {
	case *ast.InterfaceType:
		for _, m := range t.Methods.List {
			s.field(owner, m, InterfaceMethod, seen)
		}
	case *ast.StructType:
		for _, f := range t.Fields.List {
			s.field(owner, f, Kinds, seen)
		}
	default:
		if n := typeName(t); n != "" && !ast.IsExported(n) {
			s.members(owner, n, seen)
		}
	}
}

// field checks a field of a struct or, with kind InterfaceMethod, a method of an
// interface.
func (s *scanner) field(owner string, f *ast.Field, kind Kind, seen map[string]bool) {
	if len(f.Names) == 0 {
		if n := typeName(f.Type); n != "" && !ast.IsExported(n) {
			s.members(owner, n, seen)
		}
		s.embeds(owner, f.Type)
		return
	}
	for _, name := range f.Names {
		switch full := owner + "." + name.Name; {
		case !name.IsExported():
		case kind == InterfaceMethod:
			s.add(kind, full, f.Type)
		case hasAny(f.Type):
			s.any[full] = true // fields are not in Names
		}
	}
}

// embeds records that owner embeds the type e, if e is of an internal package.
func (s *scanner) embeds(owner string, e ast.Expr) {
	if star, ok := e.(*ast.StarExpr); ok {
		e = star.X
	}
	if sel, ok := e.(*ast.SelectorExpr); ok {
		if x, ok := sel.X.(*ast.Ident); ok && strings.Contains(s.imports[x.Name]+"/", "/internal/") {
			s.embedded[owner+" embeds "+x.Name+"."+sel.Sel.Name] = true
		}
	}
}

// ofModule reports whether e contains a type of the module.
func (s *scanner) ofModule(e ast.Expr) (found bool) {
	ast.Inspect(e, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok {
				found = found || s.imports[x.Name] != ""
			}
			return false
		case *ast.Ident:
			found = found || s.types[n.Name] != nil
		}
		return true
	})
	return found
}

// moduleImports returns the paths of the module's packages that f imports, by their
// names in f.
func moduleImports(module string, f *ast.File) map[string]string {
	paths := map[string]string{}
	for _, i := range f.Imports {
		path, err := strconv.Unquote(i.Path.Value)
		if err != nil || path != module && !strings.HasPrefix(path, module+"/") {
			continue
		}
		name := path[strings.LastIndex(path, "/")+1:]
		if i.Name != nil {
			name = i.Name.Name
		}
		paths[name] = path
	}
	return paths
}

// typeName returns the name of a type of the package, of a pointer to one, or of an
// instance of a generic one. For any other type it returns "".
func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.StarExpr:
		return typeName(e.X)
	case *ast.ParenExpr:
		return typeName(e.X)
	case *ast.IndexExpr:
		return typeName(e.X)
	case *ast.IndexListExpr:
		return typeName(e.X)
	}
	return ""
}

// hasAny reports whether the type e contains any or interface{}, other than as a
// constraint of a type parameter.
func hasAny(e ast.Expr) (found bool) {
	if e == nil {
		return false
	}
	ast.Inspect(e, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncType:
			for _, list := range []*ast.FieldList{n.Params, n.Results} {
				if list != nil {
					for _, f := range list.List {
						found = found || hasAny(f.Type)
					}
				}
			}
			return false
		case *ast.InterfaceType:
			found = found || len(n.Methods.List) == 0
		case *ast.SelectorExpr:
			return false
		case *ast.Ident:
			found = found || n.Name == "any"
		}
		return true
	})
	return found
}

func sorted(set map[string]bool) []string {
	var list []string
	for s := range set {
		list = append(list, s)
	}
	slices.Sort(list)
	return list
}
