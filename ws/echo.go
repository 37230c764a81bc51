package ws

import "context"

const maxEchoed = 64 << 20 // bytes of a message

// EchoServer returns a server that sends every message back.
func EchoServer() *Server { return &Server{Handler: Echo, Options: Options{MaxMessage: maxEchoed}} }

// Echo sends every message of c back until the peer closes.
func Echo(ctx context.Context, c *Conn) error {
	for {
		m, err := c.Receive(ctx)
		if err != nil {
			return err
		}
		if err := c.Send(ctx, m); err != nil {
			return err
		}
	}
}
