package compat

import (
	"fmt"
	"io"
	"net"
	"time"

	"github.com/noria-go/noria/runtime"
)

// maxAnswers is how many bytes of answers (to key updates; about 27 bytes each)
// may be queued on top of a full queue. A peer that wants more of them, and
// does not take those that there are, is up to no good.
const maxAnswers = 16 << 10

// A wire is the net.Conn that crypto/tls sees. But for the handshake it never
// waits: reading beyond what has arrived fails with errWait, and writing goes
// into the stream's queue.
type wire struct {
	s       *runtime.Stream
	in      []*runtime.Buffer // arrived, and not read by crypto/tls
	pos     int               // of the first of them, how much was read
	err     error             // io.EOF: no more will arrive
	shaking bool              // the handshake goes on: reads and writes wait
	reading bool              // a read goes on: what is written is an answer
	answers int               // bytes of them since the queue last had room
}

// errWait is temporary: crypto/tls then keeps what it has of a record, and can
// be called again, as after a read deadline.
var errWait = &waitError{}

type waitError struct{}

func (*waitError) Error() string   { return ErrWouldBlock.Error() }
func (*waitError) Timeout() bool   { return true }
func (*waitError) Temporary() bool { return true }

func (w *wire) Read(p []byte) (n int, err error) {
	for w.shaking && len(w.in) == 0 && w.err == nil {
		if err := w.fill(); err != nil {
			return 0, err
		}
	}
	for n < len(p) && len(w.in) > 0 {
		data := w.in[0].Bytes()[w.pos:]
		c := copy(p[n:], data)
		n += c
		if w.pos += c; c == len(data) {
			w.pop()
		}
	}
	switch {
	case n > 0 || len(p) == 0:
		return n, nil
	case w.err != nil:
		return 0, w.err
	}
	return 0, errWait
}

// fill waits until something has arrived. The end of the stream is something
// for crypto/tls to judge; what else goes wrong is not.
func (w *wire) fill() error {
	b, err := w.s.ReadBuf()
	return w.take(b, err)
}

// take adds b, or the end.
func (w *wire) take(b *runtime.Buffer, err error) error {
	switch {
	case err == io.EOF:
		w.err = err
	case err != nil:
		return err
	case b != nil:
		w.in = append(w.in, b)
	}
	return nil
}

func (w *wire) pop() {
	w.in[0].Release()
	w.in = append(w.in[:0], w.in[1:]...)
	w.pos = 0
}

func (w *wire) drop() {
	runtime.Drop(w.in...)
	w.in, w.pos = nil, 0
}

func (w *wire) Write(p []byte) (int, error) {
	if w.shaking {
		return w.s.Write(p)
	}
	if w.reading {
		if w.s.TryWriteBuf() == nil {
			w.answers = 0 // there is room
		}
		if w.answers += len(p); w.answers > maxAnswers {
			return 0, fmt.Errorf("compat: the peer provokes TLS answers and takes none: %d bytes wait: %w", w.answers, ErrTooLarge)
		}
	}
	if err := w.s.WriteNow(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// crypto/tls closes a connection, and moves its deadlines, on its own account:
// at the end of a context, and before it says goodbye. Here all of that is the
// TLSStream's.

func (w *wire) Close() error                     { return nil }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }
func (w *wire) LocalAddr() net.Addr              { return w.s.LocalAddr() }
func (w *wire) RemoteAddr() net.Addr             { return w.s.RemoteAddr() }
