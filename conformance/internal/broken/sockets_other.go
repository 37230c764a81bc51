//go:build !linux

package broken

// The cases of sockets are Linux's, and so are their faults.
func socketFaults() []Fault { return nil }

func loopSocketFaults() []Fault { return nil }
