// Package echobench measures echo servers against each other: noria bench.
//
// # How it measures
//
// A measurement is of one contender (a kind of server) in one row (a message
// size and a number of connections). The server is a process of its own, and
// so is the client; each is tied to a CPU before its program starts, so that
// every thread of it stays there and neither takes time from the other. The
// client holds the row's connections. On each it sends a message, waits until
// all of it has come back, and sends the next. What comes back is compared,
// byte for byte, in the first messages of each connection, and counted later.
//
// Machines drift: they heat up, and have neighbours. So contenders take turns,
// A B C, B C A, C A B, and what is reported is the median of the rounds with
// the lowest and the highest.
//
// # What makes a figure comparable
//
// Messages a second say something about a server only if the server had no
// time to spare. The client reads the server's CPU clock at both ends of its
// window; where less than 97 % of the window was used, the row says that it is
// bound by the client and has no ratio. CPU per message holds in any case.
//
// System calls and allocations are counted after the window, over a fixed
// number of messages, so that counting does not slow what is timed.
//
// # Files
//
// main.go reads flags; run.go takes turns; measure.go makes one measurement;
// children.go and peer.go start processes; os_linux.go is what only Linux can
// do. server*.go and load.go run in the server's process, client*.go in the
// client's; wire.go is what they say to each other. stats.go and hist.go
// compute, report.go prints.
package echobench
