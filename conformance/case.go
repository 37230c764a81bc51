package conformance

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/noria-go/noria/runtime"
)

// Wishes are what a case would like its Runtime to be; the zero value is no
// wish. A backend that cannot grant one ignores it.
type Wishes struct {
	ReceiveBuffers int // how many buffers OpRecvMany has
	QueueEntries   int // how many submissions fit before the kernel must be told
}

// A Factory makes a Runtime that has not been started.
type Factory func(w Wishes) (runtime.Runtime, error)

// A Case is one rule or trap.
type Case struct {
	Name   string
	Wishes Wishes
	Run    func(c *C)
}

// Cases returns all cases.
func Cases() []Case {
	var all []Case
	for _, group := range [][]Case{submitCases(), streamCases(), handleCases(), bufferCases(), queueCases(), socketCases(), fileCases(), pollCases(), closeCases()} {
		all = append(all, group...)
	}
	return all
}

// TestRuntime runs every case on a Runtime of its own.
func TestRuntime(t *testing.T, factory Factory) {
	for _, cs := range Cases() {
		t.Run(cs.Name, func(t *testing.T) {
			if err := Check(cs, factory, Limits{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// Limits bound how long a case waits. The zero value is good.
type Limits struct {
	Wait  time.Duration // for one thing; 0: 20 seconds
	Whole time.Duration // for the case; 0: a minute
}

// Check runs one case and returns what is wrong.
func Check(cs Case, factory Factory, limits Limits) error {
	if limits.Wait == 0 {
		limits.Wait = 20 * time.Second
	}
	if limits.Whole == 0 {
		limits.Whole = time.Minute
	}
	c := &C{factory: factory, wishes: cs.Wishes, limits: limits, seed: seed()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.run(cs)
	}()
	timer := time.NewTimer(limits.Whole)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		return fmt.Errorf("%s: hangs\n%s", cs.Name, stacks())
	}
	if len(c.failures) == 0 {
		return nil
	}
	return fmt.Errorf("%s (seed %d): %s", cs.Name, c.seed, strings.Join(c.failures, "\n"))
}

func stacks() string {
	for size := 1 << 20; ; size *= 2 { // all of them: whoever is cut off is not seen to be left
		buf := make([]byte, size)
		if n := goruntime.Stack(buf, true); n < size {
			return string(buf[:n])
		}
	}
}

// SeedVariable is the environment variable that repeats a run.
const SeedVariable = "NORIA_SEED"

func seed() uint64 {
	if s := os.Getenv(SeedVariable); s != "" {
		if n, err := strconv.ParseUint(s, 10, 64); err == nil {
			return n
		}
	}
	return rand.Uint64()
}

// C is what a case works with: a require.TestingT with a Runtime. It belongs
// to the case's goroutine, but for Errorf.
type C struct {
	factory Factory
	wishes  Wishes
	limits  Limits
	seed    uint64
	rand    *rand.Rand
	rt      runtime.Runtime
	pool    *runtime.Pool
	closed  bool
	defers  []func()

	mu       sync.Mutex
	failures []string
}

// Errorf notes a failure.
func (c *C) Errorf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures = append(c.failures, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// FailNow ends the case.
func (c *C) FailNow() { goruntime.Goexit() }

// Helper is part of what require looks for.
func (c *C) Helper() {}

// Defer has f called when the case ends, before the Runtime is closed.
func (c *C) Defer(f func()) { c.defers = append(c.defers, f) }

// Rand is the case's seeded source.
func (c *C) Rand() *rand.Rand { return c.rand }

func (c *C) run(cs Case) {
	goruntime.LockOSThread() // never unlocked: the thread ends with the case
	before := lookAround()
	c.rand = rand.New(rand.NewPCG(c.seed, 0))
	defer func() {
		if v := recover(); v != nil {
			c.Errorf("panic: %v\n%s", v, stacks())
		}
		c.finish(before)
	}()
	var err error
	if c.rt, err = c.factory(c.wishes); err != nil {
		c.Errorf("the factory fails: %v", err)
		return
	}
	c.pool = runtime.NewPool(0)
	if err := c.rt.Start(c.pool); err != nil {
		c.Errorf("Start: %v", err)
		return
	}
	cs.Run(c)
}

// finish closes everything and looks for leaks.
func (c *C) finish(before surroundings) {
	defer func() {
		if v := recover(); v != nil {
			c.Errorf("panic at the end: %v\n%s", v, stacks())
		}
	}()
	for i := len(c.defers) - 1; i >= 0; i-- {
		c.defers[i]()
	}
	if c.rt != nil && !c.closed {
		if err := c.rt.Close(); err != nil {
			c.Errorf("Close: %v", err)
		}
	}
	if c.pool != nil {
		if err := c.pool.Close(); err != nil {
			c.Errorf("leak: %v", err)
		}
	}
	if err := before.compare(c.limits.Wait); err != nil {
		c.Errorf("leak: %v", err)
	}
}

// CloseRuntime closes the Runtime before the case ends.
func (c *C) CloseRuntime() error {
	c.closed = true
	return c.rt.Close()
}

var errLeak = errors.New("leaked")
