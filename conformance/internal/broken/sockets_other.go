//go:build !linux

package broken

// The cases of sockets need Linux, and so do their faults.
func socketFaults() []Fault { return nil }

func loopSocketFaults() []Fault { return nil }
