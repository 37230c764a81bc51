//go:build linux

package uring

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestProbe(t *testing.T) {
	a, err := probe()
	require.NoError(t, err)
	for k, v := range a {
		t.Log(k, v)
	}
}
