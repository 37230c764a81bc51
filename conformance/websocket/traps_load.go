package websocket

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// Cases with many connections, or with many bytes that the suite does not read.
func loadTraps() []serverTrap {
	return []serverTrap{
		{"trap06.ping-flood", "Pings without end from a client that does not read, then a text.", "Pongs in order (some may be left out, the last may not), and the text.", pingFlood},
		{"trap14.half-frames", "200 clients that send half a frame, and one that sends a whole one.", "That one is answered.", func(x *trapRun) (Behavior, string) {
			b := binaryMessage(make([]byte, 1<<10)).append(nil, true)
			return x.beside(200, func(conn net.Conn) error {
				_, err := conn.Write(b[:512])
				return err
			})
		}},
		{"trap14.never-read", "30 clients that send messages and read nothing, and one that does.", "That one is answered.", func(x *trapRun) (Behavior, string) {
			b := binaryMessage(make([]byte, 64<<10)).append(nil, true)
			return x.beside(30, func(conn net.Conn) error {
				_ = conn.SetWriteDeadline(time.Now().Add(x.target.options.Quiet))
				for range 1000 {
					if _, err := conn.Write(b); err != nil {
						if errors.Is(err, os.ErrDeadlineExceeded) {
							return nil // the server accepts no more, as it should
						}
						return nil // the server ended the connection, which is fine too
					}
				}
				return nil
			})
		}},
	}
}

// open connects with a valid request.
func (x *trapRun) open() (net.Conn, *bufio.Reader, error) {
	key := newKey()
	conn, br, _, err := x.target.connect(x.ctx, newRequest(x.target.url, key, nil), key, nil, &Result{})
	return conn, br, err
}

// beside opens n connections, calls do on each, and then requires an echo on one more.
func (x *trapRun) beside(n int, do func(conn net.Conn) error) (Behavior, string) {
	for range n {
		conn, _, err := x.open()
		if err != nil {
			return Failed, err.Error()
		}
		defer conn.Close()
		if err := do(conn); err != nil {
			return Failed, err.Error()
		}
	}
	return x.accepted(x.request())
}

// pingFlood is the case of line 6.
func pingFlood(x *trapRun) (Behavior, string) {
	const pings = 50_000
	conn, br, err := x.open()
	if err != nil {
		return Failed, err.Error()
	}
	payload := func(i int) string { return fmt.Sprintf("%08d%s", i, stars(100)) }
	sent := 0
	for ; sent < pings; sent++ {
		_ = conn.SetWriteDeadline(time.Now().Add(x.target.options.Quiet))
		if _, err := conn.Write(ping(payload(sent)).append(nil, true)); err != nil {
			break // the server accepts no more, as it should; the last frame may be cut off
		}
	}
	_ = conn.SetDeadline(time.Time{})
	s := newSession(conn, br, false, nil)
	s.patience = x.target.options.Patience
	defer func() { _ = conn.Close() }()
	if sent < pings {
		// A frame that was cut off cannot be completed: check only the order.
		s.await(x.target.options.Quiet, s.over)
	} else {
		s.send(text(hello))
		s.await(s.patience, func() bool {
			return s.over() || len(s.received) > 0 && s.received[len(s.received)-1].kind == "message"
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closeReceived || sent == pings && s.ended != nil {
		// A server may give up on such a client, with 1008 for example.
		if s.violation == nil {
			return OK, "the server closed the connection"
		}
	}
	if s.violation != nil {
		return Failed, s.violation.Error()
	}
	at := -1
	for _, e := range s.received {
		if e.kind != "pong" {
			continue
		}
		var i int
		if _, err := fmt.Sscanf(string(e.payload), "%08d", &i); err != nil || payload(i) != string(e.payload) || i <= at {
			return Failed, fmt.Sprintf("a pong that no ping asked for, or out of order: %s", e)
		}
		at = i
	}
	if sent < pings {
		return OK, fmt.Sprintf("it took %d pings and then no more", sent)
	}
	switch n := len(s.received); {
	case n == 0 || !s.received[n-1].equal(gotText(hello)):
		return Failed, "the text did not come back"
	case at != pings-1:
		return Failed, fmt.Sprintf("the last pong is for ping %d of %d", at, pings)
	}
	return OK, fmt.Sprintf("%d pongs for %d pings", len(s.received)-1, pings)
}
