package conformance_test

import (
	"testing"

	"github.com/noria-go/noria/conformance"
)

func TestLoop(t *testing.T) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) { conformance.TestLoop(t, v.factory) })
	}
}
