//go:build (!noria_epoll || noria_uring) && !386 && !arm && !mips && !mipsle

package backendtest

import (
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/runtime/uring"
)

// plainVariants returns io_uring with every optional feature switched off.
func plainVariants() []Variant {
	return []Variant{{"io_uring-plain", func() (runtime.Runtime, error) { return uring.New(uring.Options{Off: uringFeatures()}) }}}
}

// uringFeatures returns the names of all optional features.
func uringFeatures() (names []string) {
	rt, err := uring.New(uring.Options{})
	if err != nil {
		return nil // the variant fails with the reason
	}
	for _, f := range rt.Info().Features {
		names = append(names, f.Name)
	}
	_ = rt.Close()
	return names
}
