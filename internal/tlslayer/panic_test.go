package tlslayer_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/tlslayer"
	"github.com/noria-go/noria/internal/tlstest"
	"github.com/noria-go/noria/loop"
)

// A panic of a user's function ends the connection, not the loop.
func TestTLSSessionCachePanics(t *testing.T) {
	server, client := tlstest.Configs()
	client = client.Clone()
	client.ClientSessionCache = panicky{}
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		backendtest.WithPeer(t, g, func(ctx context.Context, s *loop.Stream, raw net.Conn) error {
			peer := tls.Server(raw, server)
			go func() { _, _ = io.WriteString(peer, "hello") }()
			if err := tlslayer.Client(ctx, s, client, 0); err != nil {
				return err
			}
			var failed *loop.PanicError
			if _, err := s.ReadBuf(); !errors.As(err, &failed) || failed.Value != "mine" {
				return fmt.Errorf("reading: %v", err)
			}
			require.NoError(t, loopLives(g))
			return s.Close()
		})
	})
}

// A panic while a stream encrypts, which the loop does outside any task, ends the
// sending of this stream, not the program.
func TestTLSPanicWhileEncrypting(t *testing.T) {
	server, client := tlstest.Configs()
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		source := &moody{}
		server, client := server.Clone(), client.Clone()
		server.Rand, server.MaxVersion = source, tls.VersionTLS12
		client.CipherSuites, client.MaxVersion = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}, tls.VersionTLS12
		server.CipherSuites = client.CipherSuites
		g := backendtest.Group(t, v, 1)
		backendtest.WithPeer(t, g, func(ctx context.Context, s *loop.Stream, raw net.Conn) error {
			shaken := make(chan error, 1)
			go func() { shaken <- tls.Client(raw, client).Handshake() }()
			if err := tlslayer.Server(ctx, s, server, 0); err != nil {
				return err
			}
			if err := backendtest.Offload(ctx, func() error { return <-shaken }); err != nil {
				return err
			}
			source.angry.Store(true)
			if _, err := s.Write([]byte("x")); err != nil {
				return err
			}
			if err := loop.Yield(ctx); err != nil { // the turn ends, and with it the loop encrypts
				return err
			}
			var failed *loop.PanicError
			if _, err := s.Write([]byte("x")); !errors.As(err, &failed) || failed.Value != "mine" {
				return fmt.Errorf("writing: %v", err)
			}
			if err := s.Close(); !errors.As(err, &failed) {
				return fmt.Errorf("closing: %v", err)
			}
			return loopLives(g)
		})
	})
}
