// Command https-task is crypto/tls as it is, in a task: the stream of a
// connection is a blocking net.Conn there, so tls.Server takes it, and net/http
// reads requests from that. No goroutine has a part in it.
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
	if err := noria.ListenAndServe(ctx, *address, &tcp.Server{Handler: handler(cert)}, noria.Options{}); err != nil {
		log.Fatal(err)
	}
}

// handler serves one connection. It is one task, which reads and writes in
// turn: for a reading and a writing task at once, compat.TLSServer is the
// *tls.Conn that they can share.
func handler(cert tls.Certificate) tcp.Handler {
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	return func(_ context.Context, c *loop.Stream) error {
		conn := tls.Server(c, config)
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		if err := conn.Handshake(); err != nil { // not HandshakeContext: that starts a goroutine
			return err
		}
		for r := bufio.NewReader(conn); ; {
			if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
				return err
			}
			req, err := http.ReadRequest(r)
			if err == io.EOF {
				return conn.CloseWrite()
			}
			if err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return err
			}
			if err := answer(req).Write(conn); err != nil || req.Close {
				return err
			}
		}
	}
}

func answer(req *http.Request) *http.Response {
	body := fmt.Sprintf("hello from a task over %s\n", req.Proto)
	return &http.Response{StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Request: req, Close: req.Close,
		ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body))}
}
