// Package websocket tests any WebSocket endpoint: it plays the other side and
// judges what the endpoint sends. It has the 517 cases of the Autobahn test suite
// under their numbers, and more of its own.
//
// [RunServer] tests a server that echoes every message; a [Fuzzer] is a server
// that tests clients which echo every message. In a Go test, [TestServer] and
// [TestClient] do the same:
//
//	websocket.TestServer(t, "ws://127.0.0.1:7001/", websocket.Options{})
//
// On the command line it is `noria conform ws://127.0.0.1:7001/`.
//
// # How it works
//
// A [Case] is a script and an expectation. The script runs on a [session]: it
// sends frames, valid or not, in one segment, a frame at a time or a byte at a
// time. A second goroutine reads what the endpoint sends and judges every frame by
// RFC 6455 and RFC 7692, so that a violation is found in any case where it
// happens. At the end the events of the session are compared with the expected
// ones, which gives the case's [Behavior]; which side closed, and how, gives its
// [Closing]. Both have Autobahn's names and meanings. A script waits for events and
// not for a time to pass, unless it must see that nothing happens.
//
// The judge shares no code with the endpoints of this module, nor with the
// libraries beneath them, nor with package conformance, which is why it has a
// harness of its own: frames, handshakes and UTF-8 are its own, and compression is
// the standard library's, whose use of the window the judge checks itself. A test
// keeps it so. `make autobahn` compares the judge with Autobahn: it runs
// Autobahn's own case files and compares verdict by verdict, for endpoints that are
// right and, with package internal/brokenws, for endpoints that are wrong.
package websocket
