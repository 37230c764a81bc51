// Package conformance decides whether a runtime.Runtime keeps its contract.
// What it does not test is not promised. Anybody's backend may be given to it:
//
//	func TestConformance(t *testing.T) {
//		conformance.TestRuntime(t, func(w conformance.Wishes) (runtime.Runtime, error) {
//			return mine.New(mine.Options{Buffers: w.ReceiveBuffers})
//		})
//	}
//
// The rules, and the name that the cases of each begin with:
//
//   - rule01: Submit moves the operation and its buffers to the runtime. It
//     never calls Done, never blocks, and never fails: what is wrong becomes the
//     result. Everything comes back once, with the terminal completion. Cancel
//     frees nothing, and does nothing to what is not in flight.
//   - rule03: the number of bytes and the error are separate. A read of none is
//     io.EOF. Bytes that won a race against a cancel are delivered.
//   - rule04: a handle is a slot and a generation. One that was kept too long is
//     refused with ErrClosed and reaches nobody else. Closing joins what is in
//     flight, and then the peer sees the end. A descriptor that a result carries
//     and nobody wants is closed.
//   - rule05: completions are delivered from Poll, a bounded number each time,
//     and one busy connection does not keep the others from theirs.
//   - rule06: any number of operations may be submitted at once; cancels are
//     among them and are not lost. A multishot operation goes on by itself. When
//     receive buffers run out, receiving waits for one, and no stream dies of it.
//   - rule07: EINTR and spurious EAGAIN never show. SIGPIPE never happens.
//     Descriptors are closed on exec. Whoever's flags a descriptor has, the loop
//     does not stall.
//   - rule08: operations in one direction of a handle are done in order, and
//     what a send did not take is neither lost nor repeated.
//   - rule09: what the kernel sees stays where it is, whatever the garbage
//     collector does.
//   - rule10: errors are *runtime.OpError around the system's, and io.EOF is
//     itself.
//   - rule11: an address in use is an error, for a second program too.
//   - poll, wake, close, buffers, files, sockets: what the documentation of
//     runtime.Runtime and runtime.Op says of these.
//
// (2 of the design is that all backends behave the same, which is that they all
// pass; 12 is about choosing one: TestRule12Selection.)
//
// TestLoop is the same for what stands on a Runtime: loops, tasks, streams,
// serving. Its cases that begin with trap are named after what others got wrong,
// those that begin with hostile after ways to use a loop against itself. Which
// case is for which known mistake is listed in traps_test.go.
//
// Each case runs on a thread of its own with a new Runtime, and ends with a look
// for leaks: descriptors, goroutines, buffers, mappings. Package
// conformance/broken has faulty runtimes, one at least for nearly every case of
// both suites, and tests here show that each fails its case: a suite that cannot
// fail is worth nothing. Which cases nothing fails, and which are about the loop
// alone, where a faulty runtime proves less, stands beside those tests.
package conformance
