package conformance

import (
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"strings"
	"sync"
	"time"
)

// surroundings are the resources that a case must leave as it found them; without /proc
// only the goroutines. Goroutines are compared by number and not by count, since a
// goroutine of an earlier case may end during this one.
type surroundings struct {
	fds        int
	rings      int
	goroutines map[string]bool
	lost       int // how many goroutines may be left: see Task
}

// goPoller makes Go's own poller open its descriptors. Otherwise they would look like a
// leak of the first case.
var goPoller = sync.OnceFunc(func() {
	if r, w, err := os.Pipe(); err == nil {
		_ = errors.Join(r.Close(), w.Close())
	}
})

func lookAround() surroundings {
	goPoller()
	return surroundings{fds: countFDs(), rings: countRings(), goroutines: goroutines()}
}

// goroutines returns the numbers of all goroutines.
func goroutines() map[string]bool {
	ids := map[string]bool{}
	for _, s := range strings.Split(stacks(), "\n\n") {
		id, _, _ := strings.Cut(strings.TrimPrefix(s, "goroutine "), " ")
		ids[id] = true
	}
	return ids
}

// younger returns how many goroutines of now are not in s.
func (s surroundings) younger(now surroundings) (n int) {
	for id := range now.goroutines {
		if !s.goroutines[id] {
			n++
		}
	}
	return n
}

// compare waits for resources that are about to be released, and then reports those
// that are left.
func (s surroundings) compare(patience time.Duration) error {
	var now surroundings
	for deadline := time.Now().Add(min(patience, 5*time.Second)); time.Now().Before(deadline); goruntime.Gosched() {
		now = lookAround()
		if now.fds <= s.fds && now.rings <= s.rings && s.younger(now) <= s.lost {
			return nil
		}
	}
	switch {
	case now.fds > s.fds:
		return fmt.Errorf("descriptors: %d before, now %d: %s", s.fds, now.fds, listFDs())
	case now.rings > s.rings:
		return fmt.Errorf("mappings of rings: %d before, now %d", s.rings, now.rings)
	default:
		return fmt.Errorf("%d new goroutines\n%s", s.younger(now), stacks())
	}
}

const fdDir = "/proc/self/fd"

func countFDs() int {
	entries, err := os.ReadDir(fdDir)
	if err != nil {
		return 0
	}
	return len(entries)
}

func listFDs() string {
	entries, _ := os.ReadDir(fdDir)
	var list []string
	for _, e := range entries {
		to, _ := os.Readlink(fdDir + "/" + e.Name())
		list = append(list, e.Name()+" "+to)
	}
	return strings.Join(list, ", ")
}

// countRings counts the mappings of io_uring. A mapping that is left keeps its ring
// alive, and the ring may write into memory that has another owner by then.
func countRings() int {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return 0
	}
	return strings.Count(string(maps), "io_uring")
}
