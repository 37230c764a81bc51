package tcp

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"github.com/noria-go/noria/internal/tlslayer"
	"github.com/noria-go/noria/loop"
)

// DefaultHandshakeTimeout is how long a TLS handshake may take by default.
const DefaultHandshakeTimeout = tlslayer.DefaultHandshakeTimeout

// StartTLSServer performs the server's side of a TLS handshake on c, which has had no TLS
// so far, and waits until it is complete. From then on c is encrypted. A task of c's loop
// may call it, and a goroutine if goroutines may use c (as after Dial); other callers get
// loop.ErrOffLoop. Nothing else may use c meanwhile.
//
// Bytes that were written before are sent as they are. Bytes that have arrived and were
// not read are part of the handshake: so the caller must not have read ahead, and bytes
// that a peer injects in front of the handshake make it fail.
//
// The handshake fails when ctx ends, and, unless ctx has a deadline, after
// DefaultHandshakeTimeout. Afterwards c has no deadlines. If the handshake has failed, c
// can only be closed. The functions of config are called on the loop and must not block.
func StartTLSServer(ctx context.Context, c *loop.Stream, config *tls.Config) error {
	return startTLS(ctx, c, config, tlslayer.Server)
}

// StartTLSClient is StartTLSServer for the client's side. config needs a ServerName or
// InsecureSkipVerify. The client refuses renegotiation.
func StartTLSClient(ctx context.Context, c *loop.Stream, config *tls.Config) error {
	return startTLS(ctx, c, config, tlslayer.Client)
}

func startTLS(ctx context.Context, c *loop.Stream, config *tls.Config, side func(context.Context, *loop.Stream, *tls.Config, time.Duration) error) error {
	if !c.Loop().Friend(key).OnLoop() {
		return c.Friend(key).Elsewhere("tls handshake", func() error { return startTLS(ctx, c, config, side) })
	}
	timeout := DefaultHandshakeTimeout
	if d, ok := ctx.Deadline(); ok {
		timeout += max(time.Until(d), 0) // later than ctx ends
	}
	if err := side(ctx, c, config, timeout); err != nil {
		return fmt.Errorf("tcp: %w", err)
	}
	return nil
}

// TLSState returns the state of c's TLS connection; ok is false if c has no TLS. It may be
// called on c's loop, and from any goroutine that was given c after the handshake.
func TLSState(c *loop.Stream) (state tls.ConnectionState, ok bool) { return tlslayer.State(c) }
