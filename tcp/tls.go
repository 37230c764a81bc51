package tcp

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"github.com/noria-go/noria/internal/tlslayer"
	"github.com/noria-go/noria/loop"
)

// DefaultHandshakeTimeout is how long a TLS handshake may take.
const DefaultHandshakeTimeout = tlslayer.DefaultHandshakeTimeout

// StartTLSServer does the server's side of a TLS handshake on a connection that has
// been without TLS so far, and returns when the handshake is complete. From then on
// c is encrypted. What was written before is sent as it is; what has arrived and was
// not read is part of the handshake, so the caller must have read nothing ahead into
// a buffer of its own, and what a peer sends in front of the handshake fails it.
//
// A task of c's loop calls it, while no other task uses c; from elsewhere it fails
// with loop.ErrOffLoop. The end of ctx ends it, and so does
// DefaultHandshakeTimeout, unless ctx has a deadline. Afterwards c has no deadlines.
// If it fails, c can only be closed.
//
// The functions of config are called on the loop and must not block.
func StartTLSServer(ctx context.Context, c *loop.Stream, config *tls.Config) error {
	return startTLS(ctx, c, config, tlslayer.Server)
}

// StartTLSClient is StartTLSServer for the client's side. config needs a ServerName,
// or InsecureSkipVerify. A renegotiation that the server asks for is refused.
func StartTLSClient(ctx context.Context, c *loop.Stream, config *tls.Config) error {
	return startTLS(ctx, c, config, tlslayer.Client)
}

func startTLS(ctx context.Context, c *loop.Stream, config *tls.Config, side func(context.Context, *loop.Stream, *tls.Config, time.Duration) error) error {
	timeout := DefaultHandshakeTimeout
	if d, ok := ctx.Deadline(); ok {
		timeout += max(time.Until(d), 0) // ctx ends it before that
	}
	if err := side(ctx, c, config, timeout); err != nil {
		return fmt.Errorf("tcp: %w", err)
	}
	return nil
}

// TLSState returns what the TLS handshake of c has agreed on; false if c has no TLS.
// It may be called from any goroutine that was given c after the handshake.
func TLSState(c *loop.Stream) (state tls.ConnectionState, ok bool) { return tlslayer.State(c) }
