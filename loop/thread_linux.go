package loop

import (
	"fmt"

	"golang.org/x/sys/unix"
)

func threadID() int { return unix.Gettid() }

// pinThread ties the calling thread to cpus and returns a function that unties it.
func pinThread(cpus []int) (unpin func(), err error) {
	var old, mask unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		return nil, fmt.Errorf("sched_getaffinity: %w", err)
	}
	for _, cpu := range cpus {
		mask.Set(cpu)
	}
	if err := unix.SchedSetaffinity(0, &mask); err != nil {
		return nil, fmt.Errorf("sched_setaffinity to CPUs %v: %w", cpus, err)
	}
	return func() { _ = unix.SchedSetaffinity(0, &old) }, nil // cannot fail: it was the mask before
}
