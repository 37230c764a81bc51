// Package conformance decides whether a runtime.Runtime keeps its contract.
// What it does not test is not promised. It tests any backend, from this module or
// another one:
//
//	func TestConformance(t *testing.T) {
//		conformance.TestRuntime(t, func(w conformance.Wishes) (runtime.Runtime, error) {
//			return mine.New(mine.Options{Buffers: w.ReceiveBuffers})
//		})
//	}
//
// docs/backend.md is a guide to writing a backend, with a whole one as an example.
//
// The rules, and the name that the cases of each begin with:
//
//   - rule01: Submit moves the operation and its buffers to the runtime. It
//     never calls Done, never blocks, and never fails: whatever is wrong becomes
//     the result. Each operation comes back once, with its terminal completion.
//     Cancel frees nothing, and does nothing to an operation that is not in flight.
//   - rule03: the number of bytes and the error are separate. A read of no bytes is
//     io.EOF. Bytes that won a race against a cancel are delivered.
//   - rule04: a handle is a slot and a generation. A handle that was kept too long
//     is refused with ErrClosed and reaches no other connection. Closing joins the
//     operations in flight, and then the peer sees the end. A descriptor that a
//     result carries, and that no caller wants, is closed.
//   - rule05: completions are delivered from Poll, a bounded number each time,
//     and one busy connection does not starve the rest.
//   - rule06: any number of operations may be submitted at once, and cancels among
//     them are not lost. A multishot operation goes on by itself. When receive
//     buffers run out, receiving waits for one, and no stream dies of it.
//   - rule07: EINTR and spurious EAGAIN never show. SIGPIPE never happens.
//     Descriptors are closed on exec. An adopted descriptor may be blocking or not:
//     the loop does not stall.
//   - rule08: operations in one direction of a handle are done in order. The bytes
//     that a send did not take are neither lost nor repeated.
//   - rule09: memory that the kernel sees stays where it is, whatever the garbage
//     collector does.
//   - rule10: errors are *runtime.OpError around the system's, and io.EOF is
//     itself.
//   - rule11: an address in use is an error, for a second program too.
//   - poll, wake, close, buffers, files, sockets: what the documentation of
//     runtime.Runtime and runtime.Op says of these.
//
// (Rule 2 of the design says that all backends behave alike: they all pass. Rule 12
// is about choosing a backend: TestRule12Selection.)
//
// TestLoop is the same for what stands on a Runtime: loops, tasks, streams and
// serving. The cases that begin with trap are named after mistakes that other
// projects made; those that begin with hostile use a loop against itself; those that
// begin with misuse are mistakes of a program. traps_test.go lists the known
// mistakes and the case for each.
//
// # How it works
//
// A case is a row of a table (case.go): a name, and a function that works with a
// Runtime (world.go) or with loops (loop_world.go). The harness runs each case with
// new Runtimes, and then looks for leaks: of descriptors, goroutines, buffers and
// mappings. A case has a time limit for each wait and one for the whole.
//
// A suite that cannot fail is worth nothing. Package internal/broken has faulty
// runtimes, and tests here show that each of them fails the case that it names. A
// row of the table that no faulty runtime fails says why, or a test fails.
package conformance
