//go:build !linux

package conformance

// The cases of sockets use system calls of Linux.
func socketCases() []testCase { return nil }

func eintr(*world) {}
