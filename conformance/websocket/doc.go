// Package websocket tests WebSocket endpoints, anybody's: it plays the other
// side and judges what comes back. It has the 517 cases of the Autobahn test
// suite under their numbers, and more of its own.
//
// [RunServer] tests a server that echoes every message; a [Fuzzer] is a server
// that tests clients which do so. In a test of Go's, [TestServer] and
// [TestClient] do the same:
//
//	websocket.TestServer(t, "ws://127.0.0.1:7001/", websocket.Options{})
//
// and on the command line `noria conform ws://127.0.0.1:7001/`.
//
// # How it works
//
// A [Case] is a script and an expectation. The script runs on a [session]: it
// sends frames, good ones or bad ones, in one segment, a frame at a time or a
// byte at a time. A second goroutine reads what the endpoint sends and judges
// every frame by RFC 6455 and RFC 7692, so that a violation is found in
// whatever case it happens. At the end what came is held against what was
// expected: that gives the case's [Behavior]; who closed, and how, gives its
// [Closing]. Both have Autobahn's names and meanings. A script waits for
// events, not for a time to pass, but for where it must see that nothing
// happens.
//
// The judge shares no code with what it judges, nor with the libraries beneath
// that: frames, handshakes and UTF-8 are its own, and compression is the
// standard library's, whose use of the window it checks itself. A test keeps it
// so. What the judge is held against is Autobahn itself: `make autobahn` runs
// its own case files and compares verdict by verdict, for endpoints that are
// right and, with package broken, for ones that are wrong.
package websocket
