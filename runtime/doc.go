// Package runtime is the contract between Noria and its backends: what a backend
// implements, and the values that go to and fro. Programs that serve connections
// do not need it; they import loop, tcp or ws.
//
// # How it works
//
// A backend is a Runtime. The loop that owns it fills in an Op, which names an
// operation (receive, send, accept, read from a file …), the Handle it is for and
// the Buffers it moves, and gives it to Submit. From then on the Op and its
// buffers belong to the backend. Poll hands the submitted operations to the kernel,
// waits, and calls Done for each one that is complete. With its terminal completion
// an Op and its buffers belong to the submitter again, which may use them for the
// next operation: nothing is allocated for each.
//
// A Buffer is memory with a window on it, and has one owner. A Pool is a loop's
// store of them. A Handle is a slot and a generation, never a descriptor, so a
// handle that was kept too long never reaches a newer connection.
//
// # Writing a backend
//
// A backend implements Runtime. These are for it alone, and their comments end with
// "For backends":
//
//   - Op.Begin when Submit takes an operation; Op.Unsent and Op.Target for the
//     memory to send from and to receive into; Op.Deliver for each completion that
//     is not the last, and Op.Complete for the last; Op.Sys for what the backend
//     keeps with an operation in flight.
//   - MakeHandle, Handle.Slot and Handle.Gen to put a handle together and take it
//     apart.
//   - NewBuffer and Buffer.Hand for receive buffers of the backend's own, within
//     the pool's limit through Pool.Map.
//
// Package conformance decides whether a backend keeps the contract, and says what
// the rules are. docs/backend.md shows the way.
package runtime
