package tlslayer

import (
	"crypto/tls"
	"errors"
	"io"

	"github.com/noria-go/noria/runtime"
)

const (
	// maxPlain is how many bytes are decrypted into one buffer at most: two records of
	// the largest size.
	maxPlain = 32 << 10

	// maxWire bounds the bytes of the wire that one Open decrypts. Many short records
	// decrypt to little and take long.
	maxWire = 40 << 10

	// headroom is the room in front of the bytes in a buffer, for a header. Buffers of a
	// stream without TLS have the same.
	headroom = 32
)

// A layer is TLS for one stream, after the handshake. It implements the interface of the
// same name in package loop, which documents the methods.
type layer struct {
	conn *tls.Conn
	wire wire

	// inside is how many bytes conn may hold that it has not returned. It decides how
	// large the next buffer is. It may be too large, by at most what last arrived, but
	// never too small.
	inside int
	dry    bool  // conn has returned all that it can decrypt
	err    error // why nothing is decrypted any more
}

// Feed takes b, the next bytes that have arrived.
func (l *layer) Feed(b *runtime.Buffer) {
	if l.err != nil {
		b.Release()
		return
	}
	l.wire.feed(b)
}

// FeedEOF says that the peer has ended the connection.
func (l *layer) FeedEOF() { l.wire.ended = true }

// Open decrypts what has arrived. It returns nil if more must arrive first. The error is
// io.EOF after the peer's close_notify alert, and when the peer has ended the connection
// between two records.
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
		if !returned { // the user's session cache has panicked
			b.Release()
			l.fail(errors.New("crypto/tls has panicked"))
		}
	}()
	b.Reset(headroom)
	l.dry = false
	for !l.dry && l.err == nil && len(b.Room()) > 0 && fed-l.wire.held < maxWire {
		b.Extend(l.decrypt(b.Room()))
	}
	returned = true
	l.inside -= l.wire.held + b.Len()
	if l.dry && b.Len() > 0 {
		l.inside = min(l.inside, fed) // the incomplete record begins in what was fed last
	}
	if b.Len() == 0 {
		b.Release()
		return nil, l.err
	}
	return b, nil
}

// decrypt decrypts into p, and records in dry or err why it has not filled p.
func (l *layer) decrypt(p []byte) int {
	l.wire.answering = true
	n, err := l.conn.Read(p)
	l.wire.answering = false
	var wait *waitError
	switch {
	case l.wire.failed != nil: // Read does not return it: crypto/tls keeps it for the next Write
		l.fail(l.wire.failed)
	case errors.As(err, &wait): // n may be positive: Read looks for close_notify after the bytes
		l.dry = true
	case err != nil:
		l.fail(err)
	}
	return n
}

// fail ends decrypting with err.
func (l *layer) fail(err error) {
	if l.err = err; err != io.EOF {
		l.err = l.failure(err)
	}
	l.wire.drop()
}

// failure returns err as the error of a read.
func (l *layer) failure(err error) error {
	return &runtime.OpError{Op: "recv", Handle: l.wire.s.Friend(key).Handle(), Err: err}
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
