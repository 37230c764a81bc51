//go:build unix

package runtime

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// mapMemory returns size bytes of zeroed memory outside Go's heap: the
// collector neither scans nor counts it, and the kernel may keep its address.
func mapMemory(size int) ([]byte, error) {
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("mmap of %d bytes: %w", size, err)
	}
	adviseHuge(mem)
	return mem, nil
}

func unmapMemory(mem []byte) error { return unix.Munmap(mem) }
