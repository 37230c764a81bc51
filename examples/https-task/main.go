// Command https-task is HTTPS in tasks: the server puts TLS beneath the stream of a
// connection, which is a blocking net.Conn for its task, and net/http reads requests
// from that. No goroutine has a part in it.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/noria-go/noria"
	"github.com/noria-go/noria/examples/internal/selfsigned"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/tcp"
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
	log.Printf("https://%s", *address)
	if err := noria.ListenAndServe(ctx, *address, server(cert), noria.Options{}); err != nil {
		log.Fatal(err)
	}
}

func server(cert tls.Certificate) *tcp.Server {
	return &tcp.Server{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, Handler: serve}
}

// serve serves one connection. It knows nothing of TLS.
func serve(_ context.Context, c *loop.Stream) error {
	for r := bufio.NewReader(c); ; {
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			return err
		}
		req, err := http.ReadRequest(r)
		if err != nil {
			return err // io.EOF, if the client has ended the connection in between
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return err
		}
		if err := answer(req).Write(c); err != nil || req.Close {
			return err
		}
	}
}

func answer(req *http.Request) *http.Response {
	body := fmt.Sprintf("hello from a task over %s\n", req.Proto)
	return &http.Response{StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Request: req, Close: req.Close,
		ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body))}
}
