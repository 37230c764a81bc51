//go:build !linux

package epoll

import (
	"errors"
	"fmt"

	"github.com/noria-go/noria/runtime"
)

// Runtime does not exist here.
type Runtime struct{ runtime.Runtime }

// New fails: epoll is Linux's.
func New(Options) (*Runtime, error) {
	return nil, fmt.Errorf("epoll: this system has none: %w", errors.ErrUnsupported)
}
