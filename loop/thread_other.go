//go:build !linux

package loop

import (
	"errors"
	"fmt"
)

// threadID returns -1: there is no backend on this system, so no thread is a loop's.
func threadID() int { return -1 }

func pinThread(cpus []int) (unpin func(), err error) {
	return nil, fmt.Errorf("pinning a thread to CPUs %v: %w", cpus, errors.ErrUnsupported)
}
