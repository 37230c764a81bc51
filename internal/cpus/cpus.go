// Package cpus decides how many loops a program gets and to which CPUs their threads
// may be pinned.
package cpus

import (
	goruntime "runtime"

	"github.com/noria-go/noria/loop"
)

// Loops returns the default number of loops of a group: one less than the processors of
// Go's scheduler, at least one, and at most loop.MaxLoops. The spare processor is for
// the garbage collector and the program's other goroutines. A loop that has waited in
// the kernel needs a processor to continue; if a busy goroutine has the last one, the
// loop is delayed by up to 10 ms. docs/adr/0006-number-of-loops.md has the
// measurements.
func Loops() int { return min(max(1, goruntime.GOMAXPROCS(0)-1), loop.MaxLoops) }
