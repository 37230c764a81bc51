// Package peer is what the peers have in common: a port on the command line
// and a listener on the loopback interface.
package peer

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
)

// Listen listens on 127.0.0.1 at the port that the command line says. It ends
// the program when that cannot be.
func Listen() net.Listener {
	log.SetFlags(0)
	log.SetPrefix(filepath.Base(os.Args[0]) + ": ")
	if len(os.Args) != 2 {
		log.Fatal("usage: PORT")
	}
	port, err := strconv.ParseUint(os.Args[1], 10, 16)
	if err != nil {
		log.Fatalf("port %q: %v", os.Args[1], err)
	}
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		log.Fatal(err)
	}
	return ln
}

// ServeHTTP serves h there until the program is ended.
func ServeHTTP(h http.HandlerFunc) { log.Fatal((&http.Server{Handler: h}).Serve(Listen())) }

// BufferSize is what peers that can be told take for reading: enough for any
// message of the table, so that a message costs one read and no more.
const BufferSize = 32 << 10

// MaxMessage is their limit for a message.
const MaxMessage = 64 << 20
