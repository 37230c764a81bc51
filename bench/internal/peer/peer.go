// Package peer is what the peers share: a port on the command line and a listener on
// the loopback interface.
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

// Listen listens on 127.0.0.1 at the port on the command line. It ends the program if
// it cannot.
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

// ServeHTTP serves h on Listen's listener until the program ends.
func ServeHTTP(h http.HandlerFunc) { log.Fatal((&http.Server{Handler: h}).Serve(Listen())) }

// BufferSize is the size of read buffers, for peers that have this option: enough for
// any message of the benchmark, so that a message takes one read.
const BufferSize = 32 << 10

// MaxMessage is the peers' limit for a message, in bytes.
const MaxMessage = 64 << 20
