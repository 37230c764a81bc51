// Package conformance decides whether a runtime.Runtime keeps its contract. What it
// does not test is not promised. It tests any backend, of this module or of another
// one:
//
//	func TestConformance(t *testing.T) {
//		conformance.TestRuntime(t, func(w conformance.Wishes) (runtime.Runtime, error) {
//			return mine.New(mine.Options{Buffers: w.ReceiveBuffers})
//		})
//	}
//
// docs/backend.md is a guide to writing a backend, with a complete one as an example.
//
// The rules, and the prefix of the names of each rule's cases:
//
//   - rule01: Submit moves the operation and its buffers to the runtime. It
//     never calls Done, never blocks, and never fails: an error becomes the
//     operation's result. Each operation comes back once, with its terminal
//     completion. Cancel frees nothing, and does nothing to an operation that is
//     not in flight.
//   - rule03: the number of bytes and the error are separate. A read of no bytes is
//     io.EOF. Bytes that won a race against a cancel are delivered.
//   - rule04: a handle is a slot and a generation. A stale handle is refused with
//     ErrClosed and reaches no other connection. Closing waits for the operations
//     in flight, and then the peer sees the end. A descriptor that a result
//     carries, and that no caller wants, is closed.
//   - rule05: completions are delivered from Poll, a bounded number each time,
//     and one busy connection does not starve the rest.
//   - rule06: any number of operations may be submitted at once, and cancels among
//     them are not lost. A multishot operation that the kernel ends is started
//     again. When there are no receive buffers left, streams wait for one, and
//     none fails.
//   - rule07: callers never see EINTR or a spurious EAGAIN. SIGPIPE never happens.
//     Descriptors are closed on exec. An adopted descriptor may be blocking or
//     non-blocking: the loop does not stall.
//   - rule08: operations in one direction of a handle are done in order. The bytes
//     that a send did not take are neither lost nor repeated.
//   - rule09: memory that the kernel sees stays where it is, whatever the garbage
//     collector does.
//   - rule10: errors are *runtime.OpError around the system's, and io.EOF is
//     itself.
//   - rule11: an address in use is an error, for a second program too.
//   - poll, wake, close, buffers, files, sockets: the documentation of
//     runtime.Runtime and runtime.Op.
//
// (Rule 2 of the design, that all backends behave alike, holds if all of them pass.
// Rule 12 is about choosing a backend: see TestRule12Selection.)
//
// TestLoop does the same for the layer above a Runtime: loops, tasks, streams and
// serving. The prefix of a case's name says where it comes from: a trap is a mistake
// that other projects made; a hostile case uses a loop against itself; a misuse is a
// mistake of a program. traps_test.go lists the known mistakes and the case for each.
//
// # How it works
//
// A case is a row of a table (case.go): a name, and a function that works with a
// Runtime (world.go) or with loops (loop_world.go). The harness runs each case with new
// Runtimes and then looks for leaks of descriptors, goroutines, buffers and mappings.
// There is a time limit for each wait and one for the whole case.
//
// A suite that cannot fail is worth nothing. Package internal/broken has faulty
// runtimes, and tests here show that each of them fails the case that it names. If no
// faulty runtime fails a case, the case's row says why; a test checks that.
package conformance
