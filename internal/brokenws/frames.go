package brokenws

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
)

// A failure is an error that has the close code with which to fail the connection.
type failure struct{ code uint16 }

func (f *failure) Error() string { return "failing the connection" }

var (
	protocolError = &failure{1002}
	notUTF8       = &failure{1007}
	tooLarge      = &failure{1009}
	errClosed     = errors.New("closed") // the closing handshake is complete
)

const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

// A conn is a connection after its opening handshake.
type conn struct {
	net.Conn
	r       *bufio.Reader
	quirks  *quirks
	deflate *compression // nil: not negotiated
	client  bool

	open     message
	messages int    // echoed so far
	sent     int    // frames
	note     []byte // what a fault remembers
}

// A message is a message of which some frames have arrived. Its opcode is 0 if there is
// none.
type message struct {
	opcode     byte
	compressed bool
	payload    []byte
	fragments  int
	utf8       validator
}

type header struct {
	fin, masked bool
	rsv, opcode byte
	length      uint64
	mask        [4]byte
}

func (c *conn) readHeader() (h header, err error) {
	var b [8]byte
	if c.quirks.needsWhole {
		if _, err := c.r.Peek(1); err != nil {
			return h, err
		}
		if c.r.Buffered() < 6 {
			return h, protocolError
		}
	}
	if _, err := io.ReadFull(c.r, b[:2]); err != nil {
		return h, err
	}
	h.fin, h.masked, h.rsv, h.opcode = b[0]&0x80 != 0, b[1]&0x80 != 0, b[0]>>4&7, b[0]&15
	least, size := uint64(0), 0
	switch h.length = uint64(b[1] & 0x7f); h.length {
	case 126:
		least, size = 126, 2
		if _, err := io.ReadFull(c.r, b[:2]); err != nil {
			return h, err
		}
		h.length = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		least, size = 1<<16, 8
		if _, err := io.ReadFull(c.r, b[:8]); err != nil {
			return h, err
		}
		h.length = binary.BigEndian.Uint64(b[:])
	}
	if h.masked {
		if _, err := io.ReadFull(c.r, h.mask[:]); err != nil {
			return h, err
		}
	}
	if c.quirks.header != nil {
		c.quirks.header(&h)
	}
	if h.length>>63 != 0 || h.length < least && (c.quirks.takesLong == nil || !c.quirks.takesLong(size, h.length)) {
		return h, protocolError
	}
	return h, nil
}

// wrong reports whether the frame must fail the connection.
func (c *conn) wrong(h header) bool {
	control, inMessage := h.opcode >= opClose, c.open.opcode != 0
	bits := h.rsv
	if c.deflate != nil && !control && h.opcode != opContinuation {
		bits &^= 4
	}
	return h.masked == c.client || bits != 0 ||
		h.opcode > opBinary && h.opcode < opClose || h.opcode > opPong ||
		control && (!h.fin || h.length > 125) ||
		h.opcode == opContinuation && !inMessage ||
		!control && h.opcode != opContinuation && inMessage
}

// serve answers until the connection ends.
func (c *conn) serve() error {
	for {
		h, err := c.readHeader()
		if err != nil {
			return err
		}
		if c.wrong(h) && (c.quirks.excuse == nil || !c.quirks.excuse(c, h)) || c.quirks.refuse != nil && c.quirks.refuse(c, h) {
			return protocolError
		}
		switch {
		case h.opcode == opText || h.opcode == opBinary || h.opcode == opContinuation:
			err = c.data(h)
		case h.opcode >= opClose && h.opcode <= opPong:
			var p []byte
			if p, err = c.readAll(h); err == nil {
				err = c.control(h.opcode, p)
			}
		default:
			_, err = c.readAll(h) // a reserved opcode that a fault accepts
		}
		if err != nil {
			return err
		}
	}
}

// piece reads some of a payload whose first at bytes have been read.
func (c *conn) piece(h header, at uint64) ([]byte, error) {
	if h.length == at {
		return nil, nil
	}
	if _, err := c.r.Peek(1); err != nil {
		return nil, err
	}
	p := make([]byte, min(uint64(c.r.Buffered()), h.length-at))
	if _, err := io.ReadFull(c.r, p); err != nil {
		return nil, err
	}
	if h.masked {
		for i := range p {
			p[i] ^= h.mask[(at+uint64(i))&3]
		}
	}
	return p, nil
}

func (c *conn) readAll(h header) (p []byte, err error) {
	if h.length > 1<<20 {
		return nil, tooLarge
	}
	for uint64(len(p)) < h.length {
		q, err := c.piece(h, uint64(len(p)))
		if err != nil {
			return nil, err
		}
		p = append(p, q...)
	}
	return p, nil
}

// data handles a frame of a message.
func (c *conn) data(h header) error {
	q := c.quirks
	if h.opcode != opContinuation {
		c.open = message{opcode: h.opcode, compressed: h.rsv&4 != 0 && c.deflate != nil, utf8: validator{quirks: q}}
	} else if c.open.opcode == 0 { // a fault accepts it: there is no message to continue
		_, err := c.readAll(h)
		return err
	}
	m := &c.open
	if m.fragments++; q.maxFragments > 0 && m.fragments > q.maxFragments {
		return tooLarge
	}
	length := h.length
	if !q.limitsFrames {
		length += uint64(len(m.payload))
	}
	if q.maxMessage > 0 && length > q.maxMessage {
		return tooLarge
	}
	from := len(m.payload)
	for at := uint64(0); at < h.length; {
		p, err := c.piece(h, at)
		if err != nil {
			return err
		}
		m.payload = append(m.payload, p...)
		n := uint64(len(p))
		if q.utf8Until > 0 {
			p = p[:min(n, q.utf8Until-min(q.utf8Until, at))]
		}
		at += n
		if m.opcode == opText && !m.compressed && !q.noUTF8 && !q.lateUTF8 && !m.utf8.valid(p) {
			return c.badUTF8()
		}
	}
	if q.utf8PerFragment && m.opcode == opText && !m.utf8.done() {
		return c.badUTF8()
	}
	if q.perFragment {
		return c.answer(m.opcode, m.payload[from:])
	}
	if !h.fin {
		return nil
	}
	return c.message()
}

func (c *conn) badUTF8() error {
	if c.quirks.utf8Code != 0 {
		return &failure{c.quirks.utf8Code}
	}
	return notUTF8
}

// message answers the complete message.
func (c *conn) message() error {
	q, m := c.quirks, c.open
	c.open = message{}
	p := m.payload
	if m.compressed {
		var err error
		if p, err = c.deflate.inflate(p); err != nil {
			return err
		}
	}
	if m.opcode == opText && !q.noUTF8 && !(m.compressed && q.inflatedUTF8) {
		if m.compressed || q.lateUTF8 {
			m.utf8 = validator{quirks: q}
			look := p
			if q.utf8Until > 0 {
				look = p[:min(uint64(len(p)), q.utf8Until)]
			}
			if !m.utf8.valid(look) {
				return c.badUTF8()
			}
		}
		if !m.utf8.done() {
			return c.badUTF8()
		}
	}
	return c.answer(m.opcode, p)
}

// answer sends an echo.
func (c *conn) answer(opcode byte, p []byte) error {
	c.messages++
	if c.quirks.message != nil {
		return c.quirks.message(c, opcode, p)
	}
	return c.echo(opcode, p)
}

func (c *conn) echo(opcode byte, p []byte) error {
	if c.deflate != nil {
		return c.send(header{fin: true, rsv: 4, opcode: opcode}, c.deflate.compress(p))
	}
	return c.send(header{fin: true, opcode: opcode}, p)
}

// send sends a frame; it ignores h.length.
func (c *conn) send(h header, p []byte) error {
	q := c.quirks
	if q.sender != nil {
		q.sender.Lock()
		defer q.sender.Unlock()
	}
	h.masked = c.client
	if q.sending != nil {
		q.sending(&h, &p)
	}
	first, mask := h.rsv<<4|h.opcode, byte(0)
	if h.fin {
		first |= 0x80
	}
	if h.masked {
		mask = 0x80
	}
	b := append(make([]byte, 0, len(p)+14), first)
	switch {
	case len(p) > 0xffff || q.longLengths:
		b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(len(p)))
	case len(p) > 125:
		b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(len(p)))
	default:
		b = append(b, mask|byte(len(p)))
	}
	if !h.masked {
		_, err := c.Write(append(b, p...))
		return err
	}
	key := rand.Uint32()
	if q.mask != nil {
		key = q.mask(c.sent)
	}
	c.sent++
	b = binary.BigEndian.AppendUint32(b, key)
	for i, x := range p {
		b = append(b, x^byte(key>>(24-8*(i&3))))
	}
	_, err := c.Write(b)
	return err
}

// control answers a control frame.
func (c *conn) control(opcode byte, p []byte) error {
	q := c.quirks
	switch opcode {
	case opPing:
		if q.ping != nil {
			return q.ping(c, p)
		}
		return c.send(header{fin: true, opcode: opPong}, p)
	case opPong:
		if q.pong != nil {
			return q.pong(c, p)
		}
		return nil
	}
	reply, ok := checkClose(p, q)
	if q.close != nil {
		if err := q.close(c, p); err != nil {
			return err
		}
	} else if !ok {
		return &failure{reply}
	}
	if err := c.send(header{fin: true, opcode: opClose}, p[:min(2, len(p))]); err != nil {
		return err
	}
	return errClosed
}

// checkClose returns the code with which to fail the connection if p is invalid.
func checkClose(p []byte, q *quirks) (fail uint16, ok bool) {
	if len(p) == 0 {
		return 0, true
	}
	if len(p) == 1 {
		return 1002, q.shortClose
	}
	code := binary.BigEndian.Uint16(p)
	switch {
	case slices.Contains(q.refuseCodes, code):
		return 1002, false
	case slices.Contains(q.acceptCodes, code):
	case code < 1000, code > 4999, code > 1014 && code < 3000, code == 1004, code == 1005, code == 1006:
		return 1002, false
	}
	v := validator{quirks: q}
	if !q.closeUTF8 && (!v.valid(p[2:]) || !v.done()) {
		return 1007, false
	}
	return 0, true
}
