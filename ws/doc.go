// Package ws serves and opens WebSocket connections (RFC 6455).
//
//	func echo(ctx context.Context, c *ws.Conn) error {
//		for {
//			m, err := c.Receive(ctx)
//			if err != nil {
//				return err
//			}
//			if err := c.Send(ctx, m); err != nil {
//				return err
//			}
//		}
//	}
//
//	err := noria.ListenAndServe(ctx, ":7001", &ws.Server{Handler: echo}, noria.Options{})
//
// A connection belongs to one loop and has no thread of its own. The loop's thread
// reads, decodes and writes for it. The handler runs on that thread as a task, or on
// its own goroutine with Server.OnGoroutine.
//
// # Receiving
//
// The kernel fills a buffer of the loop; the connection parses, unmasks and checks the
// frames in that buffer, and Receive returns a Message that owns its part of it. The
// caller may read and change the message's Bytes. Then it must either give the message
// to Send, of this connection or another, or call Release. A long message consists of
// several segments, which Bytes joins on demand. A NextReader reads a message in parts
// instead, and so never holds all of it.
//
// A connection decodes only while a call receives, Ping or Close waits, or WaitAny examines
// Readable. So only then does it answer pings and the peer's Close frame. A handler that
// only sends calls CloseRead, which receives for it.
//
// # Sending
//
// Send puts a frame header in front of the payload and queues the message's own buffer,
// without a copy. Short messages are copied together, so that the loop sends those of one
// turn with few system calls, mostly one. Calls from other threads go through a second
// queue, the cross-thread queue, which the loop moves into the connection's.
// Options.SendQueue and Budget bound what waits, and Options.Policy says what Send does at
// that bound. A
// message for many connections is prepared once: see Prepare.
//
// # Closing
//
// Close performs the closing handshake. It waits for an open Writer and for the peer, at
// most Options.CloseTimeout for each, and then until the transport has sent what is queued
// or the stream's linger time is over. CloseNow does not wait for them. A Server closes a connection when its handler
// returns; the caller of Dial must close what it opened. The error of the call that
// receives says how the connection ended, and CloseStatus returns its code.
//
// # Concurrency
//
// The comment of a method says where it may be called from and whether it waits. A method of
// Conn that does not say it, such as Request, may be called from anywhere and does not wait.
// Methods that wait for the peer take a context, except Close, which bounds its waits
// itself, and the methods of Reader and Writer, which the context of NextReader and
// NextWriter bounds. Other methods wait at most for the connection's loop, and only if they
// are called on another thread.
//
// Any number of goroutines and of tasks of any loop may send at once: the messages of one
// caller stay in order, and messages are never interleaved. Only one caller at a time may
// receive.
package ws
