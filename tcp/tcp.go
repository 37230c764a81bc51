// Package tcp serves and opens TCP and unix connections on a group of loops, with
// TLS if they are told so.
//
// A Server is a loop.Service: it runs its Handler as a task for each
// connection, on the loop that accepted it. Inside, the connection is a blocking
// net.Conn, and it has calls that move buffers in place of copying bytes: see
// loop.Stream.
//
//	srv := &tcp.Server{Handler: func(ctx context.Context, c *loop.Stream) error {
//		_, err := io.Copy(c, c)
//		return err
//	}}
//	err := noria.ListenAndServe(ctx, ":7000", srv, noria.Options{})
//
// TLS lies beneath the stream: a handler is the same with it and without. A
// protocol that begins without TLS and asks for it later (STARTTLS) calls
// StartTLSServer or StartTLSClient.
//
// The package names no backend.
package tcp
