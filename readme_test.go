package noria_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A document is a Markdown file of this repository.
type document struct{ path, text string }

// documents returns the README and what else a user reads.
func documents(t *testing.T) (docs []document) {
	t.Helper()
	for _, pattern := range []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md", "docs/adr/*.md", "examples/README.md", "examples/*/README.md", "bench/README.md", "conformance/*/*/README.md"} {
		paths, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, paths, pattern)
		for _, path := range paths {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			docs = append(docs, document{path, string(text)})
		}
	}
	return docs
}

var fenced = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// code returns the blocks of code in a language: "go", or "" for commands.
func (d document) code(language string) (blocks []string) {
	for _, m := range fenced.FindAllStringSubmatch(d.text, -1) {
		if m[1] == language {
			blocks = append(blocks, m[2])
		}
	}
	return blocks
}

var span = regexp.MustCompile("`([^`]+)`")

// commands returns the commands that d shows, in blocks and between words, each
// cut into its words.
func (d document) commands() (commands [][]string) {
	var lines []string
	for _, block := range d.code("") {
		lines = append(lines, strings.Split(block, "\n")...)
	}
	for _, m := range span.FindAllStringSubmatch(fenced.ReplaceAllString(d.text, ""), -1) {
		lines = append(lines, strings.ReplaceAll(m[1], "\n", " "))
	}
	for _, line := range lines {
		commands = append(commands, words(line)...)
	}
	return commands
}

var word = regexp.MustCompile(`#.*|>+\s*\S+|[;&|()]+|(?:'[^']*'|"[^"]*"|[^\s;&|()'"])+`)

// words cuts a line for a shell into commands, and those into words. It knows
// quotes, comments, and what stands between two commands. Variables before a
// command, and where its output goes, are no words of it.
func words(line string) (commands [][]string) {
	var command []string
	for _, w := range append(word.FindAllString(line, -1), ";") {
		switch {
		case strings.ContainsAny(w[:1], ";&|()"):
			if command != nil {
				commands = append(commands, command)
			}
			command = nil
		case w[0] == '#', w[0] == '>', command == nil && assignment.MatchString(w):
		default:
			command = append(command, strings.NewReplacer("'", "", `"`, "").Replace(w))
		}
	}
	return commands
}

var assignment = regexp.MustCompile(`^[A-Z_]+=`)

// packages are those that snippets name, by their names there.
var packages = map[string]string{
	"bufio": "bufio", "context": "context", "errors": "errors", "fmt": "fmt", "http": "net/http", "io": "io", "log": "log", "maps": "maps",
	"net": "net", "os": "os", "signal": "os/signal", "slices": "slices", "sql": "database/sql", "strings": "strings", "sync": "sync",
	"time": "time", "tls": "crypto/tls",
	"noria": module, "compat": module + "/compat", "loop": module + "/loop", "runtime": module + "/runtime", "tcp": module + "/tcp", "ws": module + "/ws",
}

// TestReadmeSnippets compiles the Go code of every document. The blocks of a
// document are one program; they hold declarations and import what they name.
func TestReadmeSnippets(t *testing.T) {
	var with []string
	for _, d := range documents(t) {
		blocks := d.code("go")
		if len(blocks) == 0 || slices.Contains(backendGuides, d.path) { // conformance.TestBackendGuide has those
			continue
		}
		with = append(with, d.path)
		t.Run(d.path, func(t *testing.T) {
			program := strings.Join(blocks, "\n")
			parsed, err := parser.ParseFile(token.NewFileSet(), "", "package main\n"+program, 0)
			require.NoError(t, err, "blocks must hold declarations")
			head, unresolved := "package main\n\n", map[string]bool{}
			for _, name := range parsed.Unresolved {
				unresolved[name.Name] = true
			}
			for name, path := range packages {
				if unresolved[name] {
					head += fmt.Sprintf("import %s %q\n", name, path)
				}
			}
			if !strings.Contains(program, "func main() {") {
				head += "func main() {}\n"
			}
			file := filepath.Join(t.TempDir(), "main.go")
			require.NoError(t, os.WriteFile(file, []byte(head+program), 0o600))
			out, err := exec.CommandContext(t.Context(), "go", "vet", file).CombinedOutput()
			require.NoError(t, err, string(out))
		})
	}
	require.Subset(t, with, []string{"README.md", "docs/migrating.md", "docs/porting.md"})
}

// TestReadmeMakeTargets looks up each target that a document tells a reader to
// make.
func TestReadmeMakeTargets(t *testing.T) {
	makefile, err := os.ReadFile("Makefile")
	require.NoError(t, err)
	var targets []string
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):(?:[^=]|$)`).FindAllStringSubmatch(string(makefile), -1) {
		targets = append(targets, m[1])
	}
	found := 0
	for _, d := range documents(t) {
		for _, c := range d.commands() {
			if c[0] != "make" {
				continue
			}
			for _, target := range c[1:] {
				if !assignment.MatchString(target) {
					require.Contains(t, targets, target, "%s: %q", d.path, c)
					found++
				}
			}
		}
	}
	require.Greater(t, found, 10)
}

// TestReadmeCommands gives the flags of each noria command that a document shows
// to the program itself, with --help behind them: it reads them all, and then
// prints its help in place of running. A flag that is shown without a command is
// one of some command.
func TestReadmeCommands(t *testing.T) {
	program := filepath.Join(t.TempDir(), "noria")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/noria").CombinedOutput()
	require.NoError(t, err, string(out))
	var help []byte
	for _, command := range []string{"serve", "connect", "probe", "conform", "bench echo", "bench tasks", "bench adapters"} {
		out, err := exec.CommandContext(t.Context(), program, append(strings.Fields(command), "--help")...).CombinedOutput()
		require.NoError(t, err, string(out))
		help = append(help, out...)
	}
	found, done := 0, map[string]bool{}
	for _, d := range documents(t) {
		for _, c := range d.commands() {
			for _, flag := range flags(c) {
				require.Regexp(t, `(?m)^  -`+flag+`\b`, string(help), "%s: %q", d.path, c)
			}
			args, ok := noriaCommand(c)
			if !ok || done[strings.Join(args, " ")] {
				continue
			}
			done[strings.Join(args, " ")] = true
			found++
			out, err := exec.CommandContext(t.Context(), program, append(args, "--help")...).CombinedOutput()
			require.NoError(t, err, "%s: noria %q: %s", d.path, args, out)
		}
	}
	require.Greater(t, found, 10)
}

// noriaCommand returns the arguments of c if it runs cmd/noria. The name alone is
// the project's, too, so it has none then.
func noriaCommand(c []string) (args []string, ok bool) {
	switch {
	case c[0] == "noria" || c[0] == "bin/noria":
		args = c[1:]
	case len(c) > 2 && slices.Equal(c[:3], []string{"go", "run", "./cmd/noria"}):
		args = c[3:]
	}
	return args, len(args) > 0
}

// flags returns the names of noria's flags in c, if it shows nothing but flags or
// gives them to make.
func flags(c []string) (names []string) {
	shown := c
	if given, ok := strings.CutPrefix(c[len(c)-1], "FLAGS="); ok && c[0] == "make" {
		shown = strings.Fields(given)
	} else if !strings.HasPrefix(c[0], "--") {
		return nil
	}
	for _, w := range shown {
		if name, ok := strings.CutPrefix(w, "--"); ok {
			names = append(names, name)
		}
	}
	return names
}

// TestReadmeGoCommands checks that what a document has the go tool test exists:
// the packages, and in them a function for each pattern of tests or benchmarks.
func TestReadmeGoCommands(t *testing.T) {
	found := 0
	for _, d := range documents(t) {
		for _, c := range d.commands() {
			if len(c) < 3 || c[0] != "go" || !slices.Contains([]string{"test", "run", "build", "vet"}, c[1]) {
				continue
			}
			found++
			source := ""
			for _, arg := range c[2:] {
				if !strings.HasPrefix(arg, "./") || strings.HasSuffix(arg, "...") {
					continue
				}
				files, err := filepath.Glob(filepath.Join(arg, "*.go"))
				require.NoError(t, err)
				require.NotEmpty(t, files, "%s: %q: no package", d.path, c)
				for _, f := range files {
					text, err := os.ReadFile(f)
					require.NoError(t, err)
					source += string(text)
				}
			}
			for i, arg := range c[:len(c)-1] {
				kind := map[string]string{"-run": "Test|Example", "-bench": "Benchmark", "-fuzz": "Fuzz"}[arg]
				if pattern := c[i+1]; kind != "" && pattern != "^$" && source != "" {
					exists, err := regexp.MatchString(`(?m)^func (`+kind+`)\w*(`+strings.Trim(pattern, "^$")+`)`, source)
					require.NoError(t, err)
					require.True(t, exists, "%s: %q: it matches no function", d.path, c)
				}
			}
		}
	}
	require.Greater(t, found, 3)
}

var link = regexp.MustCompile(`\]\(([^)\s#]+)(#[^)]*)?\)`)

// TestReadmeLinks looks up the files that documents link to.
func TestReadmeLinks(t *testing.T) {
	found := 0
	for _, d := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(fenced.ReplaceAllString(d.text, ""), -1) {
			if !strings.Contains(m[1], "://") {
				_, err := os.Stat(filepath.Join(filepath.Dir(d.path), m[1]))
				require.NoError(t, err, "%s links to %s", d.path, m[1])
				found++
			}
		}
	}
	require.Greater(t, found, 20)
}

// Cutting a line into words finds the commands as a shell would.
func TestReadmeWords(t *testing.T) {
	require.Equal(t, [][]string{{"make", "bench"}}, words("make bench   # 8 minutes; and more"))
	require.Equal(t, [][]string{{"a", "b c", "", "x=y z"}, {"d"}, {"e", "-f"}}, words(`(X=1 a 'b c' "" x='y z' && d) | e -f > out &`))
	require.Empty(t, words("# nothing"))
}
