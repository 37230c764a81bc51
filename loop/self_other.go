//go:build !amd64 && !arm64

package loop

// self is 0 where we cannot tell goroutines apart: the thread's number
// decides then (see Loop.onThread), which is slower and as right.
func self() uintptr { return 0 }
