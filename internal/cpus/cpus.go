// Package cpus decides how many loops a program gets and which CPUs their
// threads may be tied to.
package cpus

import (
	goruntime "runtime"

	"github.com/noria-go/noria/loop"
)

// Loops returns how many loops a group has if the program does not say: one for
// each processor of Go's scheduler less one, at least one, and at most
// loop.MaxLoops. The one that is left is for the garbage collector and the
// program's other goroutines: a loop that has waited in the kernel needs a
// processor again, and where a busy goroutine has the last of them the loop is
// delayed by up to 10 ms. docs/adr/0006-number-of-loops.md has the measurements.
func Loops() int { return min(max(1, goruntime.GOMAXPROCS(0)-1), loop.MaxLoops) }
