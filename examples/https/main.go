// Command https runs net/http and crypto/tls, both unchanged, over the loops: only
// compat.Listen differs from an ordinary server.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/noria-go/noria"
	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/examples/internal/selfsigned"
	"github.com/noria-go/noria/loop"
)

func main() {
	address := flag.String("addr", "127.0.0.1:8443", "where to listen")
	flag.Parse()
	cert, err := selfsigned.New()
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *address, cert, func(a net.Addr) { log.Printf("https://%s", a) }); err != nil {
		log.Fatal(err)
	}
}

// serve answers requests until ctx ends.
func serve(ctx context.Context, address string, cert tls.Certificate, ready func(net.Addr)) error {
	g, err := noria.Start(noria.Options{})
	if err != nil {
		return err
	}
	ln, err := compat.Listen(g, address, loop.ListenOptions{}) // in place of net.Listen
	if err != nil {
		return errors.Join(err, g.Stop())
	}
	srv := &http.Server{Handler: http.HandlerFunc(hello), TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}
	stopped := make(chan error, 1)
	context.AfterFunc(ctx, func() {
		sctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		stopped <- srv.Shutdown(sctx)
	})
	ready(ln.Addr())
	err = srv.ServeTLS(ln, "", "") // offers HTTP/2 too
	if errors.Is(err, http.ErrServerClosed) {
		err = <-stopped
	}
	return errors.Join(err, g.Stop())
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "hello over %s\n", r.Proto)
}
