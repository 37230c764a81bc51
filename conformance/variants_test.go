package conformance_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/conformance"
	"github.com/noria-go/noria/internal/backends"
)

// A variant is a backend, set up in one way.
type variant struct {
	name     string // the backend's, and "-plain" without its optional features
	factory  conformance.Factory
	features bool // it has all of them, or none
}

// variants are what every case runs on: those of the backends that the build
// tags leave in.
var variants = slices.Concat(uringVariants, epollVariants)

func TestRuntime(t *testing.T) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) { conformance.TestRuntime(t, v.factory) })
	}
}

// TestVariants shows that the variants are what they are called, and that every
// backend of this build is among them with all features.
func TestVariants(t *testing.T) {
	var whole []string
	for _, v := range variants {
		rt, err := v.factory(conformance.Wishes{})
		require.NoError(t, err)
		require.NotEmpty(t, rt.Info().Features)
		for _, f := range rt.Info().Features {
			require.Equal(t, v.features, f.On, "%s: %s: %s", v.name, f.Name, f.Why)
		}
		if v.features {
			require.Equal(t, v.name, rt.Info().Backend)
			whole = append(whole, v.name)
		}
		require.NoError(t, rt.Close())
	}
	require.Equal(t, backends.Names(), whole)
}
