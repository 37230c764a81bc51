//go:build !unix

package runtime

// mapMemory takes memory from Go's heap on systems whose backends, if there
// are any, do not need it elsewhere.
func mapMemory(size int) ([]byte, error) { return make([]byte, size), nil }

func unmapMemory([]byte) error { return nil }
