package compat

import (
	"fmt"
	"io"
	"net"
	"time"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
)

// maxAnswers is how many bytes of answers (to key updates; about 27 bytes each)
// may be queued on top of a full queue. A peer that wants more of them, and
// does not take those that there are, is up to no good.
const maxAnswers = 16 << 10

// A wire is the net.Conn that crypto/tls sees. But for the handshake it never
// waits: reading beyond what has arrived fails with errWait, and writing goes
// into the stream's queue. It holds no bytes: what crypto/tls does not take
// goes back into the stream.
type wire struct {
	s       *loop.Stream
	shaking bool  // the handshake goes on: reads and writes wait
	reading bool  // a read goes on: what is written is an answer
	answers int   // bytes of them since the queue last had room
	failed  error // why an answer could not be given
}

// errWait is temporary: crypto/tls then keeps what it has of a record, and can
// be called again, as after a read deadline.
var errWait = &waitError{}

type waitError struct{}

func (*waitError) Error() string   { return ErrWouldBlock.Error() }
func (*waitError) Timeout() bool   { return true }
func (*waitError) Temporary() bool { return true }

func (w *wire) Read(p []byte) (n int, err error) {
	if w.shaking {
		if err := w.wait(); err != nil {
			return 0, err
		}
	}
	for n < len(p) {
		b := w.s.TryReadBuf()
		if b == nil {
			break
		}
		c := copy(p[n:], b.Bytes())
		n += c
		if b = b.Friend(friend.Key{}).Rest(c); b != nil {
			w.s.Unread(b)
		}
	}
	switch {
	case n > 0 || len(p) == 0:
		return n, nil
	case w.s.ReadErr() == io.EOF:
		return 0, io.EOF // for crypto/tls to judge; what else goes wrong is not
	}
	return 0, errWait
}

// wait waits until the stream has something, or says why it never will.
func (w *wire) wait() error {
	b, err := w.s.ReadBuf()
	if err == nil {
		w.s.Unread(b)
	}
	return err
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
			w.failed = fmt.Errorf("compat: the peer provokes TLS answers and takes none: %d bytes wait: %w", w.answers, ErrTooLarge)
			return 0, w.failed
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
