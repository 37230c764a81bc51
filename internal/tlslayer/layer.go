package tlslayer

import (
	"crypto/tls"
	"errors"
	"io"

	"github.com/noria-go/noria/runtime"
)

const (
	// maxPlain is what is decrypted into one buffer: two records of the largest
	// size.
	maxPlain = 32 << 10

	// headroom is what buffers of the inbox have in front, as those that a stream
	// receives without TLS have, so that a header can be put there.
	headroom = 32
)

// A layer is TLS for one stream, after the handshake. See loop's interface of the
// same name for what the methods promise.
type layer struct {
	conn *tls.Conn
	wire wire

	// inside is how many bytes conn may have that it has not given out. Too many,
	// if not exact, and then no more than what last arrived: it decides how much
	// memory is taken for them.
	inside int
	dry    bool  // conn has given out all that it could
	err    error // why nothing is decrypted any more
}

// Feed takes what has arrived.
func (l *layer) Feed(b *runtime.Buffer) {
	if l.err != nil {
		b.Release()
		return
	}
	l.wire.feed(b)
}

// FeedEOF says that the peer has ended the connection.
func (l *layer) FeedEOF() { l.wire.ended = true }

// Open decrypts what has arrived: nil if more must arrive first. The error is
// io.EOF after the peer has said goodbye (a close_notify alert), and when it has
// ended the connection between two records.
func (l *layer) Open() (*runtime.Buffer, error) {
	if l.err != nil {
		return nil, l.err
	}
	if l.dry && l.wire.held == 0 && !l.wire.ended {
		return nil, nil
	}
	fed := l.wire.held
	l.inside += fed
	b, err := l.wire.s.Loop().Pool().Get(headroom + max(1, min(l.inside, maxPlain)))
	if err != nil {
		l.inside -= fed
		return nil, l.failure(err)
	}
	returned := false
	defer func() {
		if !returned { // a client's session cache panicked: it is the user's
			b.Release()
			l.fail(errors.New("crypto/tls has panicked"))
		}
	}()
	b.Reset(headroom)
	l.dry = false
	for !l.dry && l.err == nil && len(b.Room()) > 0 {
		b.Extend(l.decrypt(b.Room()))
	}
	returned = true
	l.inside -= l.wire.held + b.Len()
	if l.dry && b.Len() > 0 {
		l.inside = min(l.inside, fed) // the record that is not complete begins in it
	}
	if b.Len() == 0 {
		b.Release()
		return nil, l.err
	}
	return b, nil
}

// decrypt reads what crypto/tls has, and notes in dry or err why that is not more.
func (l *layer) decrypt(p []byte) int {
	l.wire.answering = true
	n, err := l.conn.Read(p)
	l.wire.answering = false
	var wait *waitError
	switch {
	case l.wire.failed != nil: // crypto/tls tells only the writer, and stumbles over the next record
		l.fail(l.wire.failed)
	case errors.As(err, &wait): // perhaps with bytes: then it looked for a goodbye behind them
		l.dry = true
	case err != nil:
		l.fail(err)
	}
	return n
}

// fail ends decrypting.
func (l *layer) fail(err error) {
	if l.err = err; err != io.EOF {
		l.err = l.failure(err)
	}
	l.wire.drop()
}

func (l *layer) failure(err error) error {
	return &runtime.OpError{Op: "recv", Handle: l.wire.s.Handle(), Err: err}
}

// Seal encrypts p.
func (l *layer) Seal(p []byte) error {
	_, err := l.conn.Write(p)
	return err
}

// Goodbye sends close_notify.
func (l *layer) Goodbye() error { return l.conn.CloseWrite() }

// Drop releases what was fed and not decrypted.
func (l *layer) Drop() { l.wire.drop() }
