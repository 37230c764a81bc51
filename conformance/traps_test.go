package conformance_test

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/conformance"
)

// traps are mistakes that other projects and this one have made, and where each is
// tested: by cases of the suites, which run on every variant, and by test functions
// elsewhere in this module. A trap without a case says why it has none.
var traps = []struct {
	trap  string
	tests []string
	why   string
}{
	// The ring library.
	{"Ring.Close leaves the entries mapped and the ring alive", []string{"close/everything-comes-back", "TestNothingIsLeft"}, ""},
	{"flags that it does not know", []string{"TestFeatures", "TestVariants"}, "only io_uring has rings"},
	{"opcodes that it does not know", []string{"rule06/accept-goes-on", "buffers/idle-holds-none", "TestFeatures"}, ""},
	{"entries are not zeroed, Recv(nil) panics", []string{"rule01/what-is-wrong-becomes-the-result", "rule06/full-submission-queue", "TestStress"}, ""},
	{"a timeout's memory is garbage after a collection", []string{"rule09/garbage-collector", "TestDeadlineSurvivesCollection"}, ""},
	{"deferred work is not seen by looking", []string{"poll/without-waiting-delivers"}, ""},
	{"one enter flushes, waits and times out", []string{"poll/deadline", "rule06/full-submission-queue", "TestBacklog"}, ""},
	{"register calls from another thread fail", []string{"task/go-call-post"}, "every loop's Runtime is made on another thread than it is started on"},
	{"flags matter more than multishot", nil, "a measurement: see docs/performance.md"},
	{"an idle ring counts as waiting for a disk", []string{"TestFeatures"}, "only io_uring has rings"},

	// Completion runtimes.
	{"a cancelled accept or open that succeeded leaks its descriptor", []string{"rule04/accept-races-cancel", "rule04/connect-races-cancel", "rule04/unwanted-descriptors", "files/cancel"}, ""},
	{"teardown with operations in flight", []string{"close/everything-comes-back", "TestCloseWithPending", "TestBufferOutlivesRuntime"}, ""},
	{"a cancel, an event or a completion that is late and hits what is new", []string{"rule01/cancel-of-what-is-not-in-flight", "rule04/stale-handle", "sockets/adopt-and-detach"}, ""},
	{"close with a pending receive", []string{"rule04/close-joins", "rule04/close-with-everything-pending", "stream/close-with-pending-reader"}, ""},
	{"a cancel that loses a buffer, a buffer after its pool, ENOBUFS", []string{"rule06/cancel-loses-no-buffer", "rule06/out-of-buffers", "TestBufferOutlivesRuntime", "TestPoolCloseWithOutstanding"}, ""},
	{"lost wake-ups", []string{"wake/never-lost", "wake/counts-before-poll", "TestWakeRaces"}, ""},
	{"a descriptor that is non-blocking, or blocking", []string{"rule07/descriptor-flags", "TestNonBlockingDescriptor"}, ""},
	{"partial writes, two sends that reorder", []string{"rule08/partial-sends", "rule08/sends-in-order"}, ""},
	{"closing that spins, loses the end, or takes ENOTCONN for a failure", []string{"stream/close-flushes", "stream/linger-expires", "stream/shutdown-of-what-has-gone", "stream/shutdown-follows-the-sends"}, ""},
	{"SIGPIPE, and lengths of 4 GiB", []string{"rule07/no-sigpipe", "rule07/lengths-are-cut"}, ""},
	{"full queues", []string{"rule06/full-submission-queue", "rule06/cancels-in-a-full-queue", "rule06/completion-flood", "TestSecondBatchIsRefused", "TestRefusedUntilDeferredWorkIsDone"}, ""},
	{"a deadline while data arrives", []string{"stream/read-deadline-race", "rule03/data-wins-over-cancel"}, ""},
	{"workers that are all busy", []string{"files/many-at-once", "files/pipes-are-cancelled", "wait/offload-many"}, ""},
	{"a timer that is armed late in a batch, or lies on a stack", []string{"wait/timer-armed-late-in-a-batch", "TestDeadlineSurvivesCollection"}, ""},
	{"a reader and a writer at once", []string{"stream/checksums", "stream/slow-reader"}, "on one WebSocket connection: package ws"},
	{"a zero-copy send's buffer", nil, "nothing sends without copying yet"},
	{"a growable buffer that grows on paper only", []string{"TestGrowableMemory"}, "package compat, on every backend"},
	{"a leak test that is green without the fix", []string{"TestBroken", "TestEveryCaseHasAFault"}, "it is about the suite itself"},

	// Tasks on a locked thread.
	{"runtime.Goexit", []string{"trap/goexit-contained", "hostile/goexit-in-posted-function"}, ""},
	{"a coroutine on another thread, and one inside another", []string{"trap/nested-coroutines"}, ""},
	{"a mutex held across a suspension", []string{"trap/watchdog-names-mutex"}, ""},
	{"a loop that needs a processor of the scheduler again", nil, "a measurement: see docs/adr/0006-number-of-loops.md"},
	{"a goroutine that a task started", []string{"trap/used-off-loop", "hostile/loop-used-from-elsewhere"}, ""},
	{"a stack that grew stays large", nil, "Go's; nothing here keeps stacks of its own"},
	{"a task that changes its count of LockOSThread", nil, "it kills the process; documented at loop.Task"},
	{"TLS under a reading and a writing task", []string{"TestTLSBadRecordWhileTheWriterIsStuck", "TestTLSKeyUpdateFloodWhileTheWriterIsStuck", "TestTLSHandshakeEnds"}, "with TLS, on every backend"},
	{"a leak check must know the tasks that are suspended for good", []string{"trap/goexit-contained"}, ""},
}

// TestEveryTrapHasATest: the cases and test functions that the list names exist, and
// each trap has a case or says why it has none.
func TestEveryTrapHasATest(t *testing.T) {
	cases, functions := caseNames(t), testFunctions(t)
	for _, trap := range traps {
		hasCase := false
		for _, name := range trap.tests {
			if strings.HasPrefix(name, "Test") {
				require.Contains(t, functions, name, trap.trap)
				continue
			}
			require.Contains(t, cases, name, trap.trap)
			hasCase = true
		}
		require.True(t, hasCase || trap.why != "", "%s: it has no case, and does not say why", trap.trap)
	}
}

var testFunction = regexp.MustCompile(`(?m)^func (Test\w+)\(\w+ \*testing\.T\) \{`)

// testFunctions returns the names of this module's test functions.
func testFunctions(t *testing.T) (names []string) {
	require.NoError(t, filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		src, err := os.ReadFile(path)
		for _, m := range testFunction.FindAllSubmatch(src, -1) {
			names = append(names, string(m[1]))
		}
		return err
	}))
	return names
}

func caseNames(t *testing.T) []string {
	return slices.Collect(maps.Keys(byName(t, slices.Concat(conformance.RuntimeCases(), conformance.LoopCases()))))
}

// TestEveryRuleHasACase: each rule of the contract is in some case's name. Rule 2, that
// all backends behave alike, holds if all of them pass. Rule 12 is about choosing a
// backend, and is tested where that is done.
func TestEveryRuleHasACase(t *testing.T) {
	names := strings.Join(caseNames(t), "\n")
	for _, rule := range []string{"01", "03", "04", "05", "06", "07", "08", "09", "10", "11"} {
		require.Contains(t, names, "rule"+rule+"/")
	}
	require.Contains(t, testFunctions(t), "TestRule12Selection")
}

// TestNoCaseAsksForTheBackend: no case behaves differently for one backend. A case may
// only check what Info reports.
func TestNoCaseAsksForTheBackend(t *testing.T) {
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	looked := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		src, err := os.ReadFile(file)
		require.NoError(t, err)
		for line := range strings.Lines(string(src)) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "//") || !strings.Contains(line, ".Backend") && !strings.Contains(line, ".Has(") {
				continue
			}
			require.True(t, strings.HasPrefix(line, "require."), "%s: %s", file, line)
			looked++
		}
	}
	require.Positive(t, looked)
}
