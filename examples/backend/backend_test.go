package backend_test

import (
	"testing"

	"github.com/noria-go/noria/conformance"
	"github.com/noria-go/noria/examples/backend"
	"github.com/noria-go/noria/runtime"
)

func newRuntime(conformance.Wishes) (runtime.Runtime, error) { return backend.New() }

// TestRuntime: the backend keeps the contract.
func TestRuntime(t *testing.T) { conformance.TestRuntime(t, newRuntime) }

// TestLoop: what stands on a backend, loops, tasks and streams, works on this one.
func TestLoop(t *testing.T) { conformance.TestLoop(t, newRuntime) }
