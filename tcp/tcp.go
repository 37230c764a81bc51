// Package tcp serves and dials TCP and unix connections on loops, with or without TLS.
//
// A Server is a loop.Service. It runs its Handler as a task for each connection, on the
// loop that has the connection. There the connection is a blocking net.Conn, and other
// methods move buffers and copy nothing: see loop.Stream.
//
//	srv := &tcp.Server{Handler: func(ctx context.Context, c *loop.Stream) error {
//		_, err := io.Copy(c, c)
//		return err
//	}}
//	err := noria.ListenAndServe(ctx, ":7000", srv, noria.Options{})
//
// TLS is a layer beneath the stream, so a handler is the same with and without it. A
// protocol that starts without TLS and asks for it later (STARTTLS) calls StartTLSServer
// or StartTLSClient.
//
// When the context of Serve ends, the server drains: it stops accepting and ends the
// contexts of its handlers. Handlers that have not returned after DrainTime are killed.
package tcp
