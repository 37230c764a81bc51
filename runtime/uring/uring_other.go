//go:build !linux

package uring

import (
	"errors"
	"fmt"
	stdruntime "runtime"

	"github.com/noria-go/noria/runtime"
)

// New fails: io_uring is a part of Linux.
func New(Options) (runtime.Runtime, error) {
	return nil, fmt.Errorf("io_uring: %w on %s: it is a part of Linux", errors.ErrUnsupported, stdruntime.GOOS)
}
