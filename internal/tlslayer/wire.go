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

// A wire is the net.Conn that crypto/tls sees. But for the handshake it never
// waits: reading beyond what has arrived fails with errWait, and what is written is
// queued, whatever is queued already.
type wire struct {
	s       *loop.Stream
	shaking bool              // the handshake goes on: reads and writes wait
	in      []*runtime.Buffer // has arrived and is not read
	held    int               // bytes in it
	ended   bool              // the peer has ended the connection behind it

	answering bool  // a read goes on: what is written is an answer
	failed    error // why an answer could not be queued
}

// errWait is temporary: crypto/tls then keeps what it has of a record, and can be
// called again, as after a read deadline.
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
	runtime.Drop(w.in...)
	w.in, w.held = nil, 0
}

func (w *wire) Read(p []byte) (n int, err error) {
	if w.shaking {
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
		return 0, io.EOF // for crypto/tls to judge
	}
	return 0, errWait
}

func (w *wire) Write(p []byte) (int, error) {
	if w.shaking {
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

// crypto/tls closes a connection, and moves its deadlines, on its own account: at
// the end of a context, and before it says goodbye. Here all of that is the
// stream's.

func (w *wire) Close() error                     { return nil }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }
func (w *wire) LocalAddr() net.Addr              { return w.s.LocalAddr() }
func (w *wire) RemoteAddr() net.Addr             { return w.s.RemoteAddr() }
