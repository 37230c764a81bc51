// Package tcp serves and opens TCP and unix connections on a group of loops.
//
// A Server is a loop.Service: it runs its Handler as a task for each
// connection, on the loop that accepted it. Inside, a Conn is a blocking
// net.Conn, and it has calls that move buffers in place of copying bytes: see
// loop.Stream.
//
//	srv := &tcp.Server{Handler: func(ctx context.Context, c *tcp.Conn) error {
//		_, err := io.Copy(c, c)
//		return err
//	}}
//	err := noria.ListenAndServe(ctx, ":7000", srv, noria.Options{})
//
// The package names no backend: it is written against package runtime alone.
package tcp

import (
	"context"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// A Conn is a connection, for the tasks of its loop.
type Conn = loop.Stream

// Dial connects to address ("host:port", "unix:/path") from a task, whose
// context ctx is or comes from.
func Dial(ctx context.Context, address string, opts loop.DialOptions) (*Conn, error) {
	t := loop.TaskOf(ctx)
	if t == nil {
		return nil, &runtime.OpError{Op: "dial", Detail: address, Err: loop.ErrOffLoop}
	}
	return t.Loop().Dial(ctx, address, opts)
}
