// Package websocket tests any WebSocket endpoint: it plays the peer and judges what the
// endpoint sends. It has the 517 cases of the Autobahn test suite under their numbers,
// and more of its own.
//
// [RunServer] tests a server that echoes every message. A [Fuzzer] is a server that
// tests clients which echo every message. In a Go test, [TestServer] and [TestClient]
// do the same:
//
//	websocket.TestServer(t, "ws://127.0.0.1:7001/", websocket.Options{})
//
// On the command line it is `noria conform ws://127.0.0.1:7001/`.
//
// # How it works
//
// A [Case] is a script and an expectation. The script runs on a [session]: it sends
// frames, valid or not, in one segment, a frame at a time or a byte at a time. A second
// goroutine reads what the endpoint sends and checks every frame against RFC 6455 and
// RFC 7692, so any case finds a violation. At the end the suite compares the events of
// the session with the expected ones, which gives the case's [Behavior]; how the
// connection was closed, and by which side, gives its [Closing]. Both have Autobahn's
// names and meanings. A script waits for events and not for a time to pass, unless it
// must see that nothing happens.
//
// The judge shares no code with the endpoints of this module, with the libraries
// beneath them, or with package conformance, so it has a harness of its own. Frames,
// handshakes and UTF-8 are its own code. Compression is the standard library's; the
// judge itself checks that the peer keeps to the negotiated window. A test checks that
// no code is shared. `make autobahn` compares the judge with Autobahn: it runs
// Autobahn's own case files and compares each verdict, for correct endpoints and for
// the faulty ones of package internal/brokenws.
package websocket
