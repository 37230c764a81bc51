// Package backends knows which backends a build contains and which of them a program
// gets.
//
// With the build tag noria_uring or noria_epoll, a build contains only that backend;
// with neither tag, or with both, it contains both. A build for a 32-bit processor
// contains no io_uring, which go-uring lacks there. The environment variable
// NORIA_BACKEND or, if it is not set, Options.Backend of package noria may name a
// backend. A named backend is the only candidate, so it is used or Start fails.
// Otherwise every backend of the build is a candidate, io_uring first. Starting the
// loops is the probe: Start uses the first candidate that starts, whatever the kernel's
// version, and says in Info.Reason why the earlier ones did not.
package backends

import (
	"fmt"
	"os"
	"strings"

	"github.com/noria-go/noria/loop"
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

// Start starts a group on the backend that the build, the environment, option (which is
// Options.Backend) and the probe choose. It sets opts.New and opts.Loop.Reason.
func Start(option string, opts loop.GroupOptions) (*loop.Group, error) {
	candidates, asked, err := choose(option)
	if err != nil {
		return nil, err
	}
	var refused []string
	for _, b := range candidates {
		opts.Loop.Reason = asked
		if asked == "" {
			opts.Loop.Reason = strings.Join(append(refused, "using "+b.Name), "; ")
		}
		opts.New = func(int) (runtime.Runtime, error) { return b.Open() }
		g, err := loop.StartGroup(opts)
		if err == nil {
			return g, nil
		}
		refused = append(refused, err.Error())
	}
	return nil, fmt.Errorf("noria: no backend can be started: %s", strings.Join(refused, "; "))
}

// choose returns the backends to try, in order. If the environment or the option names
// a backend, that one is the only candidate, and asked says which of the two named it.
func choose(option string) (candidates []Backend, asked string, err error) {
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
