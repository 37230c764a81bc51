// Package echobench compares the performance of echo servers: noria bench.
//
// # How it measures
//
// A measurement is of one contender (a kind of server) in one row (a message size
// and a number of connections). The server and the client are separate processes.
// Each is pinned to a CPU before its program starts, so that all its threads stay
// there and neither takes time from the other. The client holds the row's
// connections. On each it sends a message, waits for all of the echo, and sends the
// next. It compares the first echoes of each connection byte for byte, and only
// counts the later ones.
//
// The speed of a machine drifts, with its temperature and with its other load. So
// contenders take turns (A B C, B C A, C A B), and the report has the median of the
// rounds with the lowest and the highest.
//
// # What makes results comparable
//
// Messages per second characterize a server only if the server was never idle. The
// client reads the server's CPU clock at both ends of its window. If the server was
// busy for less than 97 % of the window, the row is marked as bound by the client
// and has no ratio. CPU per message is valid in any case.
//
// System calls and allocations are counted after the window, over a fixed number of
// messages, so that counting does not slow the timed part.
//
// # Files
//
// main.go parses flags, run.go takes turns, and measure.go makes one measurement.
// children.go and peer.go start processes. os_linux.go is what needs Linux.
// server*.go and garbage.go run in the server's process and client*.go in the
// client's; wire.go is the protocol between the processes. stats.go and
// histogram.go compute, report.go makes the report and table.go prints it. tasks.go
// is noria bench tasks.
package echobench
