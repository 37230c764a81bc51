package echo

import (
	"crypto/rand"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/gobwas/ws"

	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/loop"
)

// maxBuffer limits what a connection buffers in each direction, in bytes. Payloads are
// taken out of the buffer as they arrive, so it need not hold a message.
const maxBuffer = 64 << 10

// keepPayload is how much of a message's memory is kept for the next message, in bytes.
const keepPayload = 64 << 10

// A conn is one WebSocket connection, used by one task.
type conn struct {
	opts   Options
	client bool // a client masks what it sends
	sync   *compat.GrowableSyncStream
	read   *compat.ReadHalf // of sync
	write  *compat.WriteHalf
	out    io.Writer // writes to write, and waits when it is full

	payload   []byte // the message that is being received
	checked   int    // how many bytes of it have been checked to be UTF-8
	control   [ws.MaxControlFramePayloadSize]byte
	sentClose bool
}

func newConn(s *loop.Stream, o Options, client bool) (*conn, error) {
	sync, err := compat.NewGrowableSyncStream(s, compat.Options{Size: 4 << 10, Max: maxBuffer})
	if err != nil {
		return nil, err
	}
	c := &conn{opts: o.withDefaults(), client: client, sync: sync}
	c.read, c.write = sync.Split()
	c.out = waitingWriter{c.write}
	return c, nil
}

func (c *conn) stream() *loop.Stream { return c.sync.Stream() }

// limit makes reading fail after d.
func (c *conn) limit(d time.Duration) error { return c.stream().SetReadDeadline(time.Now().Add(d)) }

// fill waits for more bytes. It first flushes what has been written.
func (c *conn) fill() error {
	if _, err := c.write.FlushWriteBuf(); err != nil {
		return err
	}
	_, err := c.read.FillReadBuf()
	return err
}

// more is fill in the middle of a frame, where the peer's end is an error.
func (c *conn) more() error {
	err := c.fill()
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// header reads the next frame's header. If the header is incomplete, it calls the
// library again from the header's first byte.
func (c *conn) header() (ws.Header, error) {
	for {
		if have := c.read.Buffered(); have > 0 {
			c.read.Checkpoint()
			h, err := ws.ReadHeader(c.read)
			if errors.Is(err, compat.ErrWouldBlock) {
				c.read.Rollback()
				c.read.Commit()
				if err := c.more(); err != nil {
					return h, err
				}
				continue
			}
			c.read.Commit()
			return h, c.check(h, have-c.read.Buffered(), err)
		}
		if err := c.fill(); err != nil { // io.EOF: the peer left without a Close frame
			return ws.Header{}, err
		}
	}
}

// receive returns the next message, which is valid until the next call, and answers
// control frames. It returns errClosed when the peer has closed the connection, and a
// violation when the peer broke the protocol.
func (c *conn) receive() (op ws.OpCode, m []byte, err error) {
	if cap(c.payload) > keepPayload {
		c.payload = nil
	}
	c.payload, c.checked = c.payload[:0], 0
	for {
		h, err := c.header()
		if err != nil {
			return 0, nil, err
		}
		if h.OpCode.IsControl() {
			if err := c.receiveControl(h); err != nil {
				return 0, nil, err
			}
			continue
		}
		switch {
		case op == 0 && h.OpCode == ws.OpContinuation:
			return 0, nil, violation{ws.StatusProtocolError, "a continuation of no message"}
		case op != 0 && h.OpCode != ws.OpContinuation:
			return 0, nil, violation{ws.StatusProtocolError, "a new message inside a fragmented one"}
		case h.Length > int64(c.opts.MaxMessage-len(c.payload)): // by the announced length
			return 0, nil, violation{ws.StatusMessageTooBig, "a message that is too long"}
		case op == 0:
			op = h.OpCode
		}
		if err := c.receivePayload(h, op == ws.OpText); err != nil {
			return 0, nil, err
		}
		if h.Fin {
			if op == ws.OpText && c.checked < len(c.payload) {
				return 0, nil, errNotUTF8
			}
			return op, c.payload, nil
		}
	}
}

// receivePayload appends a frame's payload to the message as it arrives. Its memory
// grows with the bytes that have arrived, whatever length the header announces. It
// checks text with each piece.
func (c *conn) receivePayload(h ws.Header, text bool) error {
	for at := int64(0); at < h.Length; {
		if c.read.Buffered() == 0 {
			if err := c.more(); err != nil {
				return err
			}
			continue
		}
		from, left := len(c.payload), int(h.Length-at) // at most Options.MaxMessage
		n := min(left, c.read.Buffered())
		if cap(c.payload) < from+n {
			c.payload = slices.Grow(c.payload, max(n, min(left, from)))
		}
		c.payload = c.payload[:from+n]
		p := c.payload[from:]
		_, _ = c.read.Read(p) // cannot fail: so many are buffered
		if h.Masked {
			ws.Cipher(p, h.Mask, int(at&3))
		}
		at += int64(n)
		if text && !c.checkText() {
			return errNotUTF8
		}
	}
	return nil
}

// receiveControl reads a control frame's payload and answers the frame.
func (c *conn) receiveControl(h ws.Header) error {
	p := c.control[:h.Length]
	for at := 0; at < len(p); {
		if c.read.Buffered() == 0 {
			if err := c.more(); err != nil {
				return err
			}
		}
		n, err := c.read.Read(p[at:])
		if err != nil {
			return err
		}
		at += n
	}
	if h.Masked {
		ws.Cipher(p, h.Mask, 0)
	}
	switch h.OpCode {
	case ws.OpPing:
		return c.send(ws.OpPong, p)
	case ws.OpClose:
		if err := checkClose(p); err != nil {
			return err
		}
		if err := c.sendClose(p[:min(len(p), 2)]); err != nil { // the peer's code without its reason
			return err
		}
		return errClosed
	}
	return nil
}

// send writes a message or a control frame as one frame. It masks p in place.
func (c *conn) send(op ws.OpCode, p []byte) error {
	h := ws.Header{Fin: true, OpCode: op, Length: int64(len(p)), Masked: c.client}
	if c.client {
		_, _ = rand.Read(h.Mask[:]) // rand.Read never fails; the library's NewMask can be guessed
		ws.Cipher(p, h.Mask, 0)
	}
	if err := ws.WriteHeader(c.out, h); err != nil {
		return err
	}
	_, err := c.out.Write(p)
	return err
}

// sendClose sends a Close frame, once.
func (c *conn) sendClose(body []byte) error {
	if c.sentClose {
		return nil
	}
	c.sentClose = true
	return c.send(ws.OpClose, body)
}

// shut starts the closing handshake and waits for the peer's Close frame.
func (c *conn) shut() error {
	if err := c.limit(c.opts.CloseTimeout); err != nil {
		return err
	}
	if err := c.sendClose(ws.NewCloseFrameBody(ws.StatusNormalClosure, "")); err != nil {
		return err
	}
	for {
		if _, _, err := c.receive(); err != nil {
			return err
		}
	}
}

// end ends a connection after err. It tells the peer which mistake it made, and waits
// for the peer's end so that the sent bytes arrive. A server ends its side first (RFC
// 6455, section 7.1.1). The result is nil if the peer has closed the connection in
// order.
func (c *conn) end(err error) error {
	var v violation
	switch {
	case errors.As(err, &v):
		if serr := c.sendClose(ws.NewCloseFrameBody(v.code, "")); serr != nil {
			return errors.Join(err, serr)
		}
	case !errors.Is(err, errClosed):
		return err
	}
	if lerr := c.limit(c.opts.CloseTimeout); lerr != nil {
		return errors.Join(err, lerr)
	}
	_, werr := c.write.FlushWriteBuf()
	if werr == nil && !c.client {
		werr = c.stream().CloseWrite()
	}
	for rerr := werr; rerr == nil; rerr = c.fill() {
		_ = c.read.Discard(c.read.Buffered())
	}
	if err == errClosed {
		return nil
	}
	return err
}

// A waitingWriter waits where a WriteHalf would not: a task may be suspended inside a
// Write.
type waitingWriter struct{ w *compat.WriteHalf }

func (w waitingWriter) Write(p []byte) (n int, err error) {
	for {
		taken, err := w.w.Write(p[n:])
		n += taken
		if !errors.Is(err, compat.ErrWouldBlock) {
			return n, err
		}
		if _, err := w.w.FlushWriteBuf(); err != nil {
			return n, err
		}
	}
}
