package conformance_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/conformance"
)

// traps are what others, and we, got wrong once, and where each is tested: by
// cases of this suite, by name, or by tests elsewhere, as "file.Test". A trap
// without either says why, and so does one that is not tested on every backend.
var traps = []struct {
	trap  string
	tests []string
	why   string
}{
	// The ring library.
	{"Ring.Close leaves the entries mapped and the ring alive", []string{"close/everything-comes-back", "../runtime/uring/faults_test.go.TestNothingIsLeft"}, ""},
	{"flags that it does not know", []string{"../runtime/uring/faults_test.go.TestFeatures", "variants_test.go.TestVariants"}, ""},
	{"opcodes that it does not know", []string{"rule06/accept-goes-on", "buffers/idle-holds-none", "../runtime/uring/faults_test.go.TestFeatures"}, ""},
	{"entries are not zeroed, Recv(nil) panics", []string{"rule01/what-is-wrong-becomes-the-result", "rule06/full-submission-queue", "../runtime/uring/stress_test.go.TestStress"}, ""},
	{"a timeout's memory is garbage after a collection", []string{"rule09/garbage-collector", "../runtime/uring/faults_test.go.TestDeadlineSurvivesCollection"}, ""},
	{"deferred work is not seen by looking", []string{"poll/without-waiting-delivers"}, ""},
	{"one enter flushes, waits and times out", []string{"poll/deadline", "rule06/full-submission-queue", "../runtime/uring/faults_test.go.TestBacklog"}, ""},
	{"register calls from another thread fail", []string{"task/go-call-post"}, "every loop's Runtime is made on another thread than it is started on"},
	{"flags matter more than multishot", nil, "a measurement: see docs/performance.md"},
	{"an idle ring counts as waiting for a disk", []string{"../runtime/uring/faults_test.go.TestFeatures"}, "only io_uring has rings"},

	// Completion runtimes.
	{"a cancelled accept or open that succeeded leaks its descriptor", []string{"rule04/accept-races-cancel", "rule04/connect-races-cancel", "rule04/unwanted-descriptors", "files/cancel"}, ""},
	{"teardown with operations in flight", []string{"close/everything-comes-back", "../runtime/uring/uring_test.go.TestCloseWithPending", "../runtime/uring/uring_test.go.TestBufferOutlivesRuntime"}, ""},
	{"a cancel, an event or a completion that is late and hits what is new", []string{"rule01/cancel-of-what-is-not-in-flight", "rule04/stale-handle", "sockets/adopt-and-detach"}, ""},
	{"close with a pending receive", []string{"rule04/close-joins", "rule04/close-with-everything-pending", "stream/close-with-pending-reader"}, ""},
	{"a cancel that loses a buffer, a buffer after its pool, ENOBUFS", []string{"rule06/cancel-loses-no-buffer", "rule06/out-of-buffers", "../runtime/uring/uring_test.go.TestBufferOutlivesRuntime", "../runtime/pool_test.go.TestPoolCloseWithOutstanding"}, ""},
	{"lost wake-ups", []string{"wake/never-lost", "wake/counts-before-poll", "../runtime/uring/faults_test.go.TestWakeRaces"}, ""},
	{"a descriptor that is non-blocking, or blocking", []string{"rule07/whoever-set-the-flags", "../runtime/uring/faults_test.go.TestNonBlockingDescriptor"}, ""},
	{"partial writes, two sends that reorder", []string{"rule08/partial-sends", "rule08/sends-in-order"}, ""},
	{"closing that spins, loses the end, or takes ENOTCONN for a failure", []string{"stream/close-flushes", "stream/linger-expires", "stream/shutdown-of-what-has-gone", "stream/shutdown-follows-the-sends"}, ""},
	{"SIGPIPE, and lengths of 4 GiB", []string{"rule07/no-sigpipe", "rule07/lengths-are-cut"}, ""},
	{"full queues", []string{"rule06/full-submission-queue", "rule06/cancels-in-a-full-queue", "rule06/completion-flood", "../runtime/uring/refused_test.go.TestSecondBatchIsRefused", "../runtime/uring/refused_test.go.TestRefusedUntilDeferredWorkIsDone"}, ""},
	{"a deadline while data arrives", []string{"stream/read-deadline-race", "rule03/data-wins-over-cancel"}, ""},
	{"workers that are all busy", []string{"files/many-at-once", "files/pipes-are-cancelled", "wait/offload-many"}, ""},
	{"a timer that is armed late in a batch, or lies on a stack", []string{"wait/timer-armed-late-in-a-batch", "../runtime/uring/faults_test.go.TestDeadlineSurvivesCollection"}, ""},
	{"a reader and a writer at once", []string{"stream/checksums", "stream/slow-reader"}, "of one WebSocket: package ws"},
	{"a zero-copy send's buffer", nil, "nothing sends without copying yet"},
	{"a growable buffer that grows on paper only", []string{"../compat/sync_test.go.TestGrowableMemory"}, ""},
	{"a leak test that is green without the fix", []string{"broken_test.go.TestBroken", "broken_test.go.TestEveryCaseHasAFault"}, ""},

	// Tasks on a locked thread.
	{"runtime.Goexit", []string{"trap/goexit-contained", "hostile/goexit-in-posted-function"}, ""},
	{"a coroutine on another thread, and one inside another", []string{"trap/nested-coroutines"}, ""},
	{"a mutex held across a suspension", []string{"trap/watchdog-names-mutex"}, ""},
	{"a loop that needs a processor of the scheduler again", nil, "a measurement: see docs/adr/0006-number-of-loops.md"},
	{"a goroutine that a task started", []string{"trap/used-off-loop", "hostile/loop-used-from-elsewhere"}, ""},
	{"a stack that grew stays large", nil, "Go's; nothing here keeps stacks of its own"},
	{"a task that changes its count of LockOSThread", nil, "it kills the process; documented at loop.Task"},
	{"TLS under a reading and a writing task", []string{"../compat/tls_attack_test.go.TestTLSBadRecordWhileTheWriterIsStuck", "../compat/tls_attack_test.go.TestTLSKeyUpdateFloodWhileTheWriterIsStuck", "../compat/tls_test.go.TestTLSHandshakeEnds"}, ""},
	{"a leak check must know the tasks that are suspended for good", []string{"trap/goexit-contained"}, ""},
}

// TestEveryTrapHasATest: what the list names exists and is run: each name is a
// case that both suites' tests run on every variant, or a test function that is
// declared, compiled here, and not skipped; and one of them at least runs on every
// backend, or needs none, or the trap says why.
func TestEveryTrapHasATest(t *testing.T) {
	cases := map[string]bool{}
	for _, name := range caseNames() {
		require.False(t, cases[name], "two cases are called %s", name)
		cases[name] = true
	}
	for _, trap := range traps {
		require.True(t, len(trap.tests) > 0 || trap.why != "", trap.trap)
		everywhere := false
		for _, name := range trap.tests {
			file, test, elsewhere := strings.Cut(name, "_test.go.")
			if !elsewhere {
				require.True(t, cases[name], "%s: no case is called %s", trap.trap, name)
				everywhere = true
				continue
			}
			reach, err := testIn(file+"_test.go", nil, test)
			require.NoError(t, err, trap.trap)
			everywhere = everywhere || reach != oneBackend
		}
		require.True(t, everywhere || trap.why != "", "%s: tested on one backend only, and does not say why", trap.trap)
	}
}

func caseNames() (names []string) {
	for _, cs := range conformance.Cases() {
		names = append(names, cs.Name)
	}
	for _, cs := range conformance.LoopCases() {
		names = append(names, cs.Name)
	}
	return names
}

// TestEveryRuleHasACase: each rule of the contract is in some case's name. The
// second, that all backends behave alike, is that they all pass; the twelfth is
// about choosing one, and tested where that is done.
func TestEveryRuleHasACase(t *testing.T) {
	names := strings.Join(caseNames(), "\n")
	for _, rule := range []string{"01", "03", "04", "05", "06", "07", "08", "09", "10", "11"} {
		require.Contains(t, names, "rule"+rule+"/")
	}
	_, err := testIn("../noria_test.go", nil, "TestRule12Selection")
	require.NoError(t, err)
}
