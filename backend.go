package noria

import (
	"fmt"
	"strings"

	"github.com/noria-go/noria/runtime"
)

// A backend is one that this build contains.
type backend struct {
	name string
	open func() (runtime.Runtime, error)
}

// Backends returns the names of the backends that this build contains, the
// preferred one first.
func Backends() []string {
	var names []string
	for _, b := range backends() {
		names = append(names, b.name)
	}
	return names
}

func backends() []backend { return append(uringBackend(), epollBackend()...) }

// candidates returns the backends to try, in order. asked is not empty if
// somebody asked for just this one, and says who.
func candidates(option, env string) (list []backend, asked string, err error) {
	name, by := option, "Options.Backend"
	if env != "" {
		name, by = env, BackendVariable
	}
	if name == "" || name == "auto" {
		return backends(), "", nil
	}
	for _, b := range backends() {
		if b.name == name {
			return []backend{b}, "asked for by " + by, nil
		}
	}
	return nil, "", fmt.Errorf("noria: %s asks for backend %q, this build contains: %s", by, name, strings.Join(append([]string{"auto"}, Backends()...), ", "))
}
