// Package backends knows which backends a build contains and which of them a program
// gets.
//
// With the build tag noria_uring or noria_epoll, a build contains only that backend;
// with neither tag, or with both, it contains both. Choose returns the candidates in
// the order in which they are to be started. The environment variable NORIA_BACKEND or,
// if it is not set, Options.Backend of package noria may name a backend. A named
// backend is the only candidate, so it is used or the start fails. Otherwise every
// backend of the build is a candidate, io_uring first. Starting the loops is the probe:
// the first candidate that starts is used, whatever the kernel's version.
package backends

import (
	"fmt"
	"os"
	"strings"

	"github.com/noria-go/noria/runtime"
)

// Variable is the environment variable that names a backend: auto, io_uring or
// epoll.
const Variable = "NORIA_BACKEND"

// A Backend is a backend that this build contains.
type Backend struct {
	Name string
	Open func() (runtime.Runtime, error)
}

// All returns the backends that this build contains, the preferred one first.
func All() []Backend { return append(uringBackend(), epollBackend()...) }

// Names returns the names of the backends that this build contains, the
// preferred one first.
func Names() []string {
	var names []string
	for _, b := range All() {
		names = append(names, b.Name)
	}
	return names
}

// Choose returns the backends to try, in order. option is Options.Backend. If the
// environment or the option names a backend, that one is the only candidate, and asked
// says which of the two named it.
func Choose(option string) (candidates []Backend, asked string, err error) {
	name, by := option, "Options.Backend"
	if env := os.Getenv(Variable); env != "" {
		name, by = env, Variable
	}
	if name == "" || name == "auto" {
		return All(), "", nil
	}
	for _, b := range All() {
		if b.Name == name {
			return []Backend{b}, "asked for by " + by, nil
		}
	}
	return nil, "", fmt.Errorf("noria: %s asks for backend %q, this build contains: %s", by, name, strings.Join(append([]string{"auto"}, Names()...), ", "))
}
