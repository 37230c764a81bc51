package tlslayer

import (
	"errors"
	"io"
	"net"
	"slices"
	"time"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// A wire is the net.Conn that crypto/tls uses. Except in the handshake it never waits: a
// Read beyond what has arrived fails with errWait, and a Write is queued even if the queue
// is full.
type wire struct {
	s           *loop.Stream
	handshaking bool              // in the handshake, reads and writes wait
	in          []*runtime.Buffer // what has arrived and is not read
	held        int               // bytes in it
	ended       bool              // the peer has ended the connection after it

	answering bool  // crypto/tls reads, so what it writes is an answer
	failed    error // why an answer could not be queued
}

// errWait is a temporary net.Error, so crypto/tls keeps the part of a record that it has
// read, and can be called again.
var errWait = &waitError{}

type waitError struct{}

func (*waitError) Error() string   { return "more must arrive first" }
func (*waitError) Timeout() bool   { return true }
func (*waitError) Temporary() bool { return true }

func (w *wire) feed(b *runtime.Buffer) {
	w.in = append(w.in, b)
	w.held += b.Len()
}

func (w *wire) drop() {
	for _, b := range w.in {
		b.Release()
	}
	w.in, w.held = nil, 0
}

func (w *wire) Read(p []byte) (n int, err error) {
	if w.handshaking {
		return w.s.Read(p)
	}
	for n < len(p) && len(w.in) > 0 {
		b := w.in[0]
		c := copy(p[n:], b.Bytes())
		n += c
		if b = b.Friend(key).Rest(c); b != nil {
			w.in[0] = b
			break
		}
		w.in = slices.Delete(w.in, 0, 1)
	}
	w.held -= n
	switch {
	case n > 0 || len(p) == 0:
		return n, nil
	case w.ended:
		return 0, io.EOF // crypto/tls decides whether a record was cut
	}
	return 0, errWait
}

func (w *wire) Write(p []byte) (int, error) {
	if w.handshaking {
		return w.s.Write(p)
	}
	if err := w.s.Friend(key).Transmit(p); err != nil {
		if w.answering && errors.Is(err, runtime.ErrBusy) {
			w.failed = err
		}
		return 0, err
	}
	return len(p), nil
}

// crypto/tls closes its connection when a context ends, and sets deadlines before it
// writes close_notify. Neither must reach the stream, so these methods do nothing.

func (w *wire) Close() error                     { return nil }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }
func (w *wire) LocalAddr() net.Addr              { return w.s.LocalAddr() }
func (w *wire) RemoteAddr() net.Addr             { return w.s.RemoteAddr() }
