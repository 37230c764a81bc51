package conformance_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/conformance"
	"github.com/noria-go/noria/internal/backends"
)

// A variant is a backend in one configuration.
type variant struct {
	name     string // the backend's name, with "-plain" if it runs without its optional features
	factory  conformance.Factory
	features bool // it has all optional features, or none
}

// variants are what every case runs on: the variants of each backend that the build
// tags include.
var variants = slices.Concat(uringVariants, epollVariants)

func TestRuntime(t *testing.T) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) { conformance.TestRuntime(t, v.factory) })
	}
}

// TestVariants shows that each variant is what its name says, and that every backend of
// this build is among them with all features.
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
