package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria"
	"github.com/noria-go/noria/examples/internal/program"
	"github.com/noria-go/noria/examples/internal/selfsigned"
	"github.com/noria-go/noria/loop"
)

func TestMain(m *testing.M) { program.Main(m, main) }

func TestSignalsDrain(t *testing.T) { program.RequireDrains(t) }

// net/http's client, with connections that are kept and many at once.
func TestHTTPSInATask(t *testing.T) {
	cert, err := selfsigned.New()
	require.NoError(t, err)
	g, err := noria.Start(noria.Options{})
	require.NoError(t, err)
	ls, err := g.Listen("127.0.0.1:0", loop.ListenOptions{})
	require.NoError(t, err)
	srv := server(cert)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, ls, srv) }()

	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	client := &http.Client{Transport: transport}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 20 {
				resp, err := client.Get("https://" + ls.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				if err != nil || string(body) != "hello from a task over HTTP/1.1\n" {
					t.Errorf("got %q, %v", body, err)
				}
				_ = resp.Body.Close()
			}
		})
	}
	wg.Wait()
	transport.CloseIdleConnections()
	stop()
	require.NoError(t, <-done)
	require.Zero(t, srv.Stats().Panicked)
	require.NoError(t, g.Stop())
}
