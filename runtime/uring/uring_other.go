//go:build !linux

package uring

import (
	"errors"
	"fmt"
	stdruntime "runtime"

	"github.com/noria-go/noria/runtime"
)

// New fails: only Linux has io_uring.
func New(Options) (runtime.Runtime, error) {
	return nil, fmt.Errorf("io_uring: %w on %s: only Linux has it", errors.ErrUnsupported, stdruntime.GOOS)
}
