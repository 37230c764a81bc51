package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/examples/internal/program"
	"github.com/noria-go/noria/examples/internal/selfsigned"
)

func TestMain(m *testing.M) { program.Main(m, main) }

func TestSignalsDrain(t *testing.T) { program.RequireDrains(t) }

// net/http's client sends many requests at once, over HTTP/1.1 and HTTP/2.
func TestHTTPS(t *testing.T) {
	cert, err := selfsigned.New()
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	address, done := make(chan net.Addr, 1), make(chan error, 1)
	go func() { done <- serve(ctx, "127.0.0.1:0", cert, func(a net.Addr) { address <- a }) }()
	url := "https://" + (<-address).String()
	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf)
	for _, h2 := range []bool{false, true} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: h2}
		client := &http.Client{Transport: transport}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for range 20 {
					resp, err := client.Get(url)
					if err != nil {
						t.Error(err)
						return
					}
					body, err := io.ReadAll(resp.Body)
					if want := "hello over " + resp.Proto + "\n"; err != nil || string(body) != want || h2 != (resp.ProtoMajor == 2) {
						t.Errorf("got %q over %s, %v", body, resp.Proto, err)
					}
					_ = resp.Body.Close()
				}
			})
		}
		wg.Wait()
		transport.CloseIdleConnections()
	}
	stop()
	require.NoError(t, <-done)
}
