package compat_test

import (
	"context"
	mathrand "math/rand/v2"
	"testing"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
)

var key friend.Key // opens what only this module may call: see internal/friend

const (
	defaultSize = 8 << 10  // of Options.Size
	defaultMax  = 64 << 20 // of Options.Max
)

// seeded returns a source of random numbers, and logs its seed.
func seeded(t *testing.T) *mathrand.Rand {
	return mathrand.New(mathrand.NewPCG(backendtest.Seed(t), 0))
}

func randomBytes(r *mathrand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// offload runs f off the loop and returns its error.
func offload(ctx context.Context, f func() error) error {
	var err error
	if oerr := loop.Offload(ctx, func() { err = f() }); oerr != nil {
		return oerr
	}
	return err
}

func bulk(t *testing.T) int {
	if testing.Short() {
		return 1 << 20
	}
	return 16 << 20
}
