//go:build !amd64 && !arm64

package loop

// self returns 0: on this architecture goroutines cannot be told apart. Loop.onLoop then
// compares threads, which is slower.
func self() uintptr { return 0 }
