//go:build !linux

package loop

import (
	"errors"
	"fmt"
)

// threadID is not known here, and no backend exists here either: every check
// says no.
func threadID() int { return -1 }

func pinThread(cpus []int) (unpin func(), err error) {
	return nil, fmt.Errorf("pinning a thread to CPUs %v: %w", cpus, errors.ErrUnsupported)
}
