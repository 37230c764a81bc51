// Package frame is the codec of WebSocket frames (RFC 6455, section 5), without
// any I/O: it reads headers out of bytes that have arrived, in pieces of any
// size, checks them, unmasks payloads in place, and writes headers in front of
// payloads.
//
// A Decoder keeps what has come of a header that is not complete, at most 13
// bytes. Payloads are never kept or copied here: the caller has them in its own
// buffers and gives each piece to Mask as it comes.
package frame

import (
	"encoding/binary"
	"fmt"

	gobwas "github.com/gobwas/ws"
)

// An Opcode says what a frame is: RFC 6455, section 5.2.
type Opcode uint8

// The opcodes there are. All others are reserved.
const (
	Continuation Opcode = 0x0
	Text         Opcode = 0x1
	Binary       Opcode = 0x2
	Close        Opcode = 0x8
	Ping         Opcode = 0x9
	Pong         Opcode = 0xa
)

// IsControl reports whether frames of this kind may come between the fragments
// of a message.
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

	// MaxControl is how many bytes of payload a control frame may have.
	MaxControl = 125
)

// Bits of Header.Rsv.
const (
	Rsv1 = 0x4
	Rsv2 = 0x2
	Rsv3 = 0x1
)

// A Header is what stands in front of a frame's payload.
type Header struct {
	Len    int64 // of the payload, in bytes
	Mask   [4]byte
	Op     Opcode
	Rsv    uint8
	Fin    bool
	Masked bool
}

// Size returns how many bytes h takes.
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

// Put writes h to p, which must have room for it, in the shortest form, and
// returns how many bytes that took.
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

// Mask masks or unmasks p in place. at is where in its frame's payload p
// begins.
func Mask(p []byte, key [4]byte, at int64) { gobwas.Cipher(p, key, int(at&3)) }

// An Error says how a header breaks the protocol.
type Error string

func (e Error) Error() string { return string(e) }

// What can be wrong with a header, whoever sends it.
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

// A Decoder reads headers. The zero value is a server's, without extensions.
type Decoder struct {
	// Client says that the peer is a server: its frames must not be masked.
	Client bool

	// Rsv are the bits that a negotiated extension defines for the first frame
	// of a data message.
	Rsv uint8

	part [MaxHeader]byte
	n    int // of part
}

// Partial returns how many bytes of an incomplete header have come.
func (d *Decoder) Partial() int { return d.n }

// Next reads the header that p begins with, or goes on with one whose first
// bytes came earlier. n is how many bytes of p belong to it; ok says that it is
// complete. What breaks the protocol is reported by the first byte that shows
// it, and the Decoder is of no use afterwards.
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

// resume adds bytes to the incomplete header until it is complete. It is off
// the fast path: headers that are cut are rare.
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

// parse reads a header from p, which has at least two bytes. It returns 0 if
// there are not enough.
func (d *Decoder) parse(p []byte, h *Header) (n int, err error) {
	b0, b1 := p[0], p[1]
	if b0 != 0x80|byte(Text) && b0 != 0x80|byte(Binary) { // the most frequent two are right
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

// longLength reads a length of 16 or 64 bits. n is 0 if it is not all there.
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
