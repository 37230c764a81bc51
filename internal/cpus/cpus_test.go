package cpus_test

import (
	goruntime "runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/cpus"
	"github.com/noria-go/noria/loop"
)

// Loops leaves one processor of Go's scheduler to goroutines, unless there is only one.
func TestLoopsLeaveAProcessor(t *testing.T) {
	for processors, loops := range map[int]int{1: 1, 2: 1, 8: 7, 2 * loop.MaxLoops: loop.MaxLoops} {
		before := goruntime.GOMAXPROCS(processors)
		got := cpus.Loops()
		goruntime.GOMAXPROCS(before)
		require.Equal(t, loops, got, "GOMAXPROCS %d", processors)
	}
}

// The list has as many CPUs as Go counts.
func TestAllowed(t *testing.T) {
	if goruntime.GOOS == "linux" {
		require.Len(t, cpus.Allowed(), goruntime.NumCPU())
	} else {
		require.Empty(t, cpus.Allowed())
	}
}
