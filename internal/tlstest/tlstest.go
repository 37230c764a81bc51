// Package tlstest provides tests with TLS configurations, and with a stream with TLS whose
// peer is crypto/tls on a goroutine.
package tlstest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/tlslayer"
	"github.com/noria-go/noria/loop"
)

// Configs returns the configuration of a server, and of a client that trusts it. Callers
// must not change them. The key exchange is a short one, so that tests which cut a
// handshake at each byte have fewer bytes to cut at.
var Configs = sync.OnceValues(func() (server, client *tls.Config) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "noria"}, DNSNames: []string{"noria.test", "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	curves := []tls.CurveID{tls.X25519}
	server = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}, CurvePreferences: curves}
	return server, &tls.Config{RootCAs: roots, ServerName: "noria.test", CurvePreferences: curves}
})

// WithPeer runs f as a task with a stream that is a TLS server, with its peer, and with
// the connection beneath the peer. client is the peer's configuration; nil means the one
// of Configs.
func WithPeer(t testing.TB, g *loop.Group, client *tls.Config, f func(ctx context.Context, s *loop.Stream, peer *tls.Conn, raw net.Conn) error) {
	t.Helper()
	server, trusting := Configs()
	if client == nil {
		client = trusting
	}
	backendtest.WithPeer(t, g, func(ctx context.Context, s *loop.Stream, raw net.Conn) error {
		peer := tls.Client(raw, client)
		shaken := make(chan error, 1)
		go func() { shaken <- peer.Handshake() }()
		if err := tlslayer.Server(ctx, s, server, 0); err != nil {
			return err
		}
		var err error
		if oerr := loop.Offload(ctx, func() { err = <-shaken }); oerr != nil || err != nil {
			return errors.Join(oerr, err)
		}
		return f(ctx, s, peer, raw)
	})
}
