//go:build !linux || 386 || arm || mips || mipsle

package uring

import (
	"errors"
	"fmt"
	stdruntime "runtime"

	"github.com/noria-go/noria/runtime"
)

// New fails: only Linux has io_uring, and go-uring does not compile for its 32-bit
// processors.
func New(Options) (runtime.Runtime, error) {
	return nil, fmt.Errorf("io_uring: %w on %s/%s: it needs 64-bit Linux", errors.ErrUnsupported, stdruntime.GOOS, stdruntime.GOARCH)
}
