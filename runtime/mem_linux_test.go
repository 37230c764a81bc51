package runtime

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// A large mapping is marked for huge pages, a small one is not.
func TestHugePages(t *testing.T) {
	_, err := os.Stat("/sys/kernel/mm/transparent_hugepage")
	kernelHas := err == nil // without, asking for them changes nothing
	for size, want := range map[int]bool{hugePage: true, 8 * hugePage: true, hugePage - pageSize: false} {
		mem, err := mapMemory(size)
		require.NoError(t, err)
		// Its neighbours may be one mapping with it for the kernel, if they are alike.
		require.Equal(t, want && kernelHas, strings.Contains(vmFlags(t, mem), " hg"), "%d bytes", size)
		require.NoError(t, unmapMemory(mem))
	}
}

// vmFlags returns the flags of the mapping that mem lies in: proc_pid_smaps(5).
func vmFlags(t *testing.T, mem []byte) string {
	smaps, err := os.ReadFile("/proc/self/smaps")
	require.NoError(t, err)
	at, inside := uintptr(unsafe.Pointer(unsafe.SliceData(mem))), false
	for line := range strings.Lines(string(smaps)) {
		var from, to uintptr
		if n, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); n == 2 {
			inside = from <= at && at < to
		}
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && inside {
			return flags
		}
	}
	require.Fail(t, "the mapping is not listed")
	return ""
}
