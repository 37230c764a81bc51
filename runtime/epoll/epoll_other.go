//go:build !linux

package epoll

import (
	"errors"
	"fmt"

	"github.com/noria-go/noria/runtime"
)

// Runtime is unavailable on this system.
type Runtime struct{ runtime.Runtime }

// New fails: only Linux has epoll.
func New(Options) (*Runtime, error) {
	return nil, fmt.Errorf("epoll: only Linux has it: %w", errors.ErrUnsupported)
}
