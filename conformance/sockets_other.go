//go:build !linux

package conformance

// What the other cases need of the system is known for Linux only.
func socketCases() []Case { return nil }

func eintr(*C) {}
