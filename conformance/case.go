package conformance

import (
	"fmt"
	"math/rand/v2"
	"os"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/noria-go/noria/conformance/internal/require"
	"github.com/noria-go/noria/runtime"
)

// Wishes are the properties that a case would like its Runtime to have; the zero value
// asks for none. A backend that cannot grant a wish ignores it.
type Wishes struct {
	ReceiveBuffers int // how many buffers OpRecvMany has
	QueueEntries   int // how many submissions fit before the runtime must hand them to the kernel
}

// A Factory makes a Runtime that has not been started.
type Factory func(w Wishes) (runtime.Runtime, error)

// SeedVariable names the environment variable that repeats a Run: its value is
// the seed that a failure prints.
const SeedVariable = "NORIA_SEED"

// TestRuntime runs the cases of the contract, each on a Runtime of its own.
func TestRuntime(t *testing.T, factory Factory) { testAll(t, runtimeCases(), factory) }

// TestLoop runs the cases of loops, tasks, streams and serving, on loops whose
// Runtimes the factory makes.
func TestLoop(t *testing.T, factory Factory) { testAll(t, loopCases(), factory) }

func testAll(t *testing.T, cases []testCase, factory Factory) {
	for _, cs := range cases {
		t.Run(cs.Name, func(t *testing.T) {
			if err := check(cs, factory, limits{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// A testCase is one rule, trap or promise. It has either Run or RunLoops.
// A case that nothing ever failed may be unable to fail. So package broken has a fault
// for each case, or the table says why there is none.
type testCase struct {
	Name     string
	Wishes   Wishes
	Run      func(c *world)     // on a Runtime
	RunLoops func(l *loopWorld) // on loops

	// NoFault says why no faulty Runtime fails the case.
	NoFault string

	// LoopAlone: the loop alone keeps the promise, and no Runtime can break it. The
	// fault only shows that the case fails when its tasks do not run in time or the
	// loop does not end in order. That the case notices a loop which breaks the promise
	// was shown by hand, for each of these cases, on 2026-11-26.
	LoopAlone bool
}

func runtimeCases() []testCase {
	return slices.Concat(submitCases(), streamCases(), handleCases(), bufferCases(), queueCases(), socketCases(), fileCases(), pollCases(), closeCases())
}

func loopCases() []testCase {
	return slices.Concat(loopTaskCases(), loopWaitCases(), loopStreamCases(), loopServeCases(), loopLimitCases(), loopHostileCases(), loopMisuseCases())
}

// limits bound how long a case waits. The zero value has defaults.
type limits struct {
	Wait  time.Duration // for one event; 0: 20 seconds
	Whole time.Duration // for the case; 0: a minute
}

// check runs one case and returns what is wrong.
func check(cs testCase, factory Factory, lim limits) error {
	if lim.Wait == 0 {
		lim.Wait = 20 * time.Second
	}
	if lim.Whole == 0 {
		lim.Whole = time.Minute
	}
	h := &harness{factory: factory, wishes: cs.Wishes, limits: lim, seed: seed()}
	h.rand = rand.New(rand.NewPCG(h.seed, 0))
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.run(cs)
	}()
	timer := time.NewTimer(lim.Whole)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		return fmt.Errorf("%s (seed %d): hangs\n%s", cs.Name, h.seed, stacks())
	}
	h.mu.Lock() // a goroutine of a case that failed may still run
	defer h.mu.Unlock()
	if len(h.failures) == 0 {
		return nil
	}
	return fmt.Errorf("%s (seed %d): %s", cs.Name, h.seed, strings.Join(h.failures, "\n"))
}

func seed() uint64 {
	if s := os.Getenv(SeedVariable); s != "" {
		if n, err := strconv.ParseUint(s, 10, 64); err == nil {
			return n
		}
	}
	return rand.Uint64()
}

// A harness runs one case. It is the part that both kinds of cases share: a require.T
// with limits, a random source, and the functions to call at the end. Errorf, FailNow
// and Defer may be called from any goroutine and any task.
type harness struct {
	factory Factory
	wishes  Wishes
	limits  limits
	seed    uint64
	rand    *rand.Rand
	lost    int // how many goroutines the case has left suspended for good

	mu       sync.Mutex
	defers   []func()
	failures []string
}

func (h *harness) run(cs testCase) {
	before := lookAround()
	if cs.Run != nil {
		runOnRuntime(h, cs.Run)
	} else {
		h.contain(func() { cs.RunLoops(&loopWorld{harness: h}) })
		h.cleanUp()
	}
	before.lost += h.lost
	if err := before.compare(h.limits.Wait); err != nil {
		h.Errorf("leak: %v", err)
	}
}

// Errorf records a failure.
func (h *harness) Errorf(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failures = append(h.failures, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// FailNow ends the calling goroutine or task by a panic that contain or the loop
// contains. runtime.Goexit would suspend a task's coroutine for good.
func (h *harness) FailNow() { panic(require.Failed{}) }

// contain runs f and records a panic of f as a failure, except FailNow's.
func (h *harness) contain(f func()) {
	defer func() {
		if v := recover(); v != nil && v != (require.Failed{}) {
			h.Errorf("panic: %v\n%s", v, stacks())
		}
	}()
	f()
}

// Defer calls f when the case ends, before its Runtime is closed, in last-in-first-out
// order.
func (h *harness) Defer(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.defers = append(h.defers, f)
}

// background runs f on a goroutine. The end of the case waits for it after calling the
// functions given to Defer, so f must end by itself, at the latest when the case's
// peers are closed.
func (h *harness) background(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.contain(f)
	}()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.defers = append([]func(){func() { <-done }}, h.defers...)
}

// cleanUp calls the functions given to Defer, and then waits for background's.
func (h *harness) cleanUp() {
	for f := h.lastDeferred(); f != nil; f = h.lastDeferred() {
		h.contain(f)
	}
}

func (h *harness) lastDeferred() (f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.defers); n > 0 {
		f, h.defers = h.defers[n-1], h.defers[:n-1]
	}
	return f
}

// pattern returns n bytes that show where each belongs.
func (h *harness) pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(h.rand.Uint32())
	}
	return p
}

// stacks returns the stacks of all goroutines.
func stacks() string {
	for size := 1 << 20; ; size *= 2 {
		buf := make([]byte, size)
		if n := goruntime.Stack(buf, true); n < size {
			return string(buf[:n])
		}
	}
}
