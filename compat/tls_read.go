package compat

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

const (
	// tlsBuffer is what is decrypted into: two records of the largest size.
	tlsBuffer = 32 << 10

	// tlsHeadroom is what buffers from ReadBuf have in front, as a stream's own
	// have, so that a header can be put there.
	tlsHeadroom = 32
)

// beginRead says whether a read makes sense.
func (c *TLSStream) beginRead() error {
	switch {
	case c.closed:
		return &runtime.OpError{Op: "recv", Handle: c.s.Handle(), Err: runtime.ErrClosed}
	case !c.readBy.IsZero() && !time.Now().Before(c.readBy):
		return &runtime.OpError{Op: "recv", Handle: c.s.Handle(), Err: os.ErrDeadlineExceeded}
	}
	return nil
}

// decrypt reads what has arrived, and never waits. Neither bytes nor an error
// means that more must arrive first. An error that comes with bytes is kept
// for the next call.
func (c *TLSStream) decrypt(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	c.wire.reading = true
	n, err := c.conn.Read(p)
	c.wire.reading = false
	var wait *waitError
	starved := errors.As(err, &wait)
	c.more = !starved // it reads ahead: there may be more records inside it
	switch {
	case c.wire.failed != nil: // crypto/tls tells only the writer, and stumbles over the next record
		c.err = &runtime.OpError{Op: "recv", Handle: c.s.Handle(), Err: c.wire.failed}
	case err == nil || starved:
		// With bytes and starved, it looked for a goodbye behind them.
	case err == io.EOF:
		c.err = err
	default:
		c.err = &runtime.OpError{Op: "recv", Handle: c.s.Handle(), Err: err}
	}
	if n > 0 {
		return n, nil
	}
	return 0, c.err
}

// open decrypts into a buffer: nil if more must arrive first.
func (c *TLSStream) open() (*runtime.Buffer, error) {
	if c.err != nil {
		return nil, c.err
	}
	if !c.pending() {
		return nil, nil
	}
	b, err := c.Loop().Pool().Get(tlsBuffer)
	if err != nil {
		return nil, &runtime.OpError{Op: "recv", Handle: c.s.Handle(), Err: err}
	}
	b.Reset(tlsHeadroom)
	for len(b.Room()) > 0 {
		n, err := c.decrypt(b.Room())
		b.Extend(n)
		if n == 0 || err != nil {
			break
		}
	}
	switch n := b.Len(); {
	case n == 0:
		b.Release()
		return nil, c.err
	case n <= tlsBuffer/4: // memory follows what has arrived
		if small, err := c.Loop().Pool().Copy(tlsHeadroom, b.Bytes()); err == nil {
			b.Release()
			return small, nil
		}
	}
	return b, nil
}

// pending reports whether crypto/tls could have something without waiting.
func (c *TLSStream) pending() bool {
	return c.more || c.s.Buffered() > 0 || c.s.ReadErr() == io.EOF
}

func (c *TLSStream) popPlain() *runtime.Buffer {
	if len(c.plain) == 0 {
		return nil
	}
	b := c.plain[0]
	c.plain = append(c.plain[:0], c.plain[1:]...)
	c.bytes -= b.Len()
	return b
}

// ReadBuf is loop.Stream's: it waits for bytes and returns a buffer of
// them, decrypted, which is the caller's now. It returns io.EOF after the peer
// has said goodbye, or has ended the connection between two records; bytes that
// matter must say themselves where they end.
func (c *TLSStream) ReadBuf() (*runtime.Buffer, error) {
	if !c.Loop().Friend(friend.Key{}).OnLoop() {
		var b *runtime.Buffer
		err := c.elsewhere("recv", func() (err error) {
			b, err = c.ReadBuf()
			return err
		})
		return b, err
	}
	for {
		if err := c.beginRead(); err != nil {
			return nil, err
		}
		if b := c.popPlain(); b != nil {
			return b, nil
		}
		if b, err := c.open(); b != nil || err != nil {
			return b, err
		}
		if err := c.wire.wait(); err != nil && err != io.EOF {
			return nil, err
		}
	}
}

// TryReadBuf is ReadBuf that never waits: nil if nothing is there.
func (c *TLSStream) TryReadBuf() *runtime.Buffer {
	if !c.Loop().Friend(friend.Key{}).OnLoop() || c.closed {
		return nil
	}
	if b := c.popPlain(); b != nil {
		return b
	}
	b, err := c.open()
	c.tryErr = err
	return b
}

// ReadErr returns why a read would fail when TryReadBuf finds nothing and it
// would not wait; nil if it would wait.
func (c *TLSStream) ReadErr() error {
	if err := c.beginRead(); err != nil {
		return err
	}
	if c.err != nil {
		return c.err
	}
	if c.tryErr != nil {
		return c.tryErr
	}
	if err := c.s.ReadErr(); err != nil && err != io.EOF {
		return err
	}
	return nil
}

// Read is net.Conn's.
func (c *TLSStream) Read(p []byte) (n int, err error) {
	if !c.Loop().Friend(friend.Key{}).OnLoop() {
		err = c.elsewhere("recv", func() (err error) {
			n, err = c.Read(p)
			return err
		})
		return n, err
	}
	for {
		if err := c.beginRead(); err != nil || len(p) == 0 {
			return 0, err
		}
		if len(c.plain) > 0 {
			return c.copyOut(p), nil
		}
		if n, err := c.decrypt(p); n > 0 || err != nil {
			return n, err
		}
		if err := c.wire.wait(); err != nil && err != io.EOF {
			return 0, err
		}
	}
}

// copyOut copies from the first of the buffers that were put back.
func (c *TLSStream) copyOut(p []byte) int {
	b := c.popPlain()
	n := copy(p, b.Bytes())
	if b = b.Friend(friend.Key{}).Rest(n); b != nil {
		c.unpop(b)
	}
	return n
}

func (c *TLSStream) unpop(b *runtime.Buffer) {
	c.plain = append(c.plain, nil)
	copy(c.plain[1:], c.plain)
	c.plain[0] = b
	c.bytes += b.Len()
}

// ReadInto reads into the room of b, which stays the caller's.
func (c *TLSStream) ReadInto(b *runtime.Buffer) (int, error) {
	room := b.Room()
	if len(room) == 0 {
		return 0, &runtime.OpError{Op: "recv", Handle: c.s.Handle(), Err: errors.New("the buffer has no room")}
	}
	n, err := c.Read(room)
	b.Extend(n)
	return n, err
}

// Unread puts b, which becomes the stream's, in front of what is to be read.
// It wakes nobody who waits already.
func (c *TLSStream) Unread(b *runtime.Buffer) {
	if !c.Loop().Friend(friend.Key{}).OnLoop() {
		if err := c.elsewhere("unread", func() error { c.Unread(b); return nil }); err != nil {
			b.Release()
		}
		return
	}
	if c.closed || b.Len() == 0 {
		b.Release()
		return
	}
	c.unpop(b)
}

// Buffered returns how many bytes were put back with Unread. What has arrived
// and is not decrypted yet does not count.
func (c *TLSStream) Buffered() int { return c.bytes }

// Readable returns the stream as a Source for loop.WaitAny: it has something
// when TryReadBuf may. That may find nothing all the same, while a record is
// not complete.
func (c *TLSStream) Readable() loop.Source {
	return loop.When(func() bool {
		return c.bytes > 0 || c.err != nil || c.pending() || c.beginRead() != nil
	}, c.s.Readable())
}
