// Package frame reads, checks and writes the headers of WebSocket frames (RFC 6455
// §5), and masks payloads in place. It does no I/O, and its input may arrive in
// pieces of any size.
//
// A Decoder keeps the bytes of an incomplete header, at most 13 of them. It never
// keeps or copies a payload: the caller has the payload in its own buffers and
// passes each piece to Mask.
package frame

import (
	"encoding/binary"
	"fmt"

	gobwas "github.com/gobwas/ws"
)

// An Opcode is the kind of a frame (RFC 6455 §5.2).
type Opcode uint8

// The defined opcodes. All others are reserved.
const (
	Continuation Opcode = 0x0
	Text         Opcode = 0x1
	Binary       Opcode = 0x2
	Close        Opcode = 0x8
	Ping         Opcode = 0x9
	Pong         Opcode = 0xa
)

// IsControl reports whether o is a control frame, which may come between the
// fragments of a message.
func (o Opcode) IsControl() bool { return o&0x8 != 0 }

func (o Opcode) String() string {
	switch o {
	case Continuation:
		return "continuation"
	case Text:
		return "text"
	case Binary:
		return "binary"
	case Close:
		return "close"
	case Ping:
		return "ping"
	case Pong:
		return "pong"
	}
	return fmt.Sprintf("opcode(%#x)", uint8(o))
}

const (
	// MaxHeader is the length of the longest header, in bytes.
	MaxHeader = 14

	// MaxControl is the largest payload of a control frame, in bytes.
	MaxControl = 125
)

// Bits of Header.Rsv.
const (
	Rsv1 = 0x4
	Rsv2 = 0x2
	Rsv3 = 0x1
)

// A Header is the header of a frame.
type Header struct {
	Len    int64 // of the payload, in bytes
	Mask   [4]byte
	Op     Opcode
	Rsv    uint8
	Fin    bool
	Masked bool
}

// Size returns the length of the encoded header in bytes.
func (h *Header) Size() int {
	n := 2
	switch {
	case h.Len > 0xffff:
		n = 10
	case h.Len > 125:
		n = 4
	}
	if h.Masked {
		n += 4
	}
	return n
}

// Put writes h to p in its shortest form and returns the number of bytes written.
// p must have room for it.
func (h *Header) Put(p []byte) int {
	b0 := byte(h.Op) | h.Rsv<<4
	if h.Fin {
		b0 |= 0x80
	}
	p[0] = b0
	var n int
	switch {
	case h.Len <= 125:
		p[1], n = byte(h.Len), 2
	case h.Len <= 0xffff:
		p[1], n = 126, 4
		binary.BigEndian.PutUint16(p[2:], uint16(h.Len))
	default:
		p[1], n = 127, 10
		binary.BigEndian.PutUint64(p[2:], uint64(h.Len))
	}
	if h.Masked {
		p[1] |= 0x80
		n += copy(p[n:n+4], h.Mask[:])
	}
	return n
}

// Mask masks or unmasks p in place. at is the offset of p in its frame's payload.
func Mask(p []byte, key [4]byte, at int64) { gobwas.Cipher(p, key, int(at&3)) }

// An Error is a violation of the protocol by a header.
type Error string

func (e Error) Error() string { return string(e) }

// The violations.
const (
	ErrReserved   = Error("reserved bits are set and no extension was negotiated that defines them")
	ErrOpcode     = Error("a reserved opcode")
	ErrControlLen = Error("a control frame with more than 125 bytes of payload")
	ErrControlFin = Error("a control frame in fragments")
	ErrNotMasked  = Error("a client's frame that is not masked")
	ErrMasked     = Error("a server's frame that is masked")
	ErrTopBit     = Error("a length of 64 bits with the highest one set")
	ErrNotMinimal = Error("a length that is not in its shortest form")
)

// A Decoder reads headers. The zero value is a server's, with no extensions.
type Decoder struct {
	// Client is set if the peer is a server: its frames must not be masked.
	Client bool

	// Rsv is the set of bits that a negotiated extension defines for the first frame
	// of a data message.
	Rsv uint8

	part [MaxHeader]byte
	n    int // bytes in part
}

// Partial returns how many bytes of an incomplete header the Decoder keeps.
func (d *Decoder) Partial() int { return d.n }

// Next reads the header at the start of p, or the rest of one whose first bytes
// were passed to earlier calls. n is how many bytes of p belong to the header; ok
// reports whether it is complete. An error is returned at the first byte that shows
// it, and the Decoder must not be used afterwards.
func (d *Decoder) Next(p []byte, h *Header) (n int, ok bool, err error) {
	if d.n > 0 {
		return d.resume(p, h)
	}
	if len(p) >= 2 {
		n, err = d.parse(p, h)
		if n > 0 || err != nil {
			return n, n > 0, err
		}
	} else if len(p) == 1 {
		if err := d.first(p[0]); err != nil {
			return 0, false, err
		}
	}
	d.n = copy(d.part[:], p)
	return d.n, false, nil
}

// resume adds bytes to the incomplete header until it is complete. It is not on the
// fast path, since few headers are split.
func (d *Decoder) resume(p []byte, h *Header) (n int, ok bool, err error) {
	for n < len(p) {
		d.part[d.n] = p[n]
		d.n++
		n++
		if d.n < 2 {
			continue
		}
		size, err := d.parse(d.part[:d.n], h)
		if err != nil {
			return n, false, err
		}
		if size > 0 {
			d.n = 0
			return n, true, nil
		}
	}
	return n, false, nil
}

// first checks what the first byte alone can show.
func (d *Decoder) first(b0 byte) error {
	op := Opcode(b0 & 0xf)
	if rsv := b0 >> 4 & 0x7; rsv != 0 && (rsv&^d.Rsv != 0 || op.IsControl() || op == Continuation) {
		return ErrReserved
	}
	if op > Pong || op > Binary && op < Close {
		return ErrOpcode
	}
	if op.IsControl() && b0&0x80 == 0 {
		return ErrControlFin
	}
	return nil
}

// parse reads a header from p, which has at least two bytes. It returns 0 if p does
// not hold all of the header.
func (d *Decoder) parse(p []byte, h *Header) (n int, err error) {
	b0, b1 := p[0], p[1]
	if b0 != 0x80|byte(Text) && b0 != 0x80|byte(Binary) { // the two most frequent ones are valid
		if err := d.first(b0); err != nil {
			return 0, err
		}
	}
	masked := b1&0x80 != 0
	if masked == d.Client {
		if masked {
			return 0, ErrMasked
		}
		return 0, ErrNotMasked
	}
	length := int64(b1 & 0x7f)
	n = 2
	if length > 125 {
		if Opcode(b0 & 0xf).IsControl() {
			return 0, ErrControlLen
		}
		if length, n, err = longLength(p, length); n == 0 || err != nil {
			return 0, err
		}
	}
	if masked {
		if len(p) < n+4 {
			return 0, nil
		}
		h.Mask = [4]byte(p[n:])
		n += 4
	}
	h.Len, h.Masked = length, masked
	h.Op, h.Rsv, h.Fin = Opcode(b0&0xf), b0>>4&0x7, b0&0x80 != 0
	return n, nil
}

// longLength reads a 16-bit or 64-bit length. n is 0 if p does not hold all of it.
func longLength(p []byte, kind int64) (length int64, n int, err error) {
	if kind == 126 {
		if len(p) < 4 {
			return 0, 0, nil
		}
		if length = int64(binary.BigEndian.Uint16(p[2:])); length < 126 {
			return 0, 0, ErrNotMinimal
		}
		return length, 4, nil
	}
	if len(p) > 2 && p[2]&0x80 != 0 {
		return 0, 0, ErrTopBit
	}
	if len(p) < 10 {
		return 0, 0, nil
	}
	if length = int64(binary.BigEndian.Uint64(p[2:])); length <= 0xffff {
		return 0, 0, ErrNotMinimal
	}
	return length, 10, nil
}
