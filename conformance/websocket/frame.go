package websocket

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"unicode/utf8"
)

// Opcodes (RFC 6455 section 5.2).
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// The bits of a frame's rsv, as the cases number them.
const (
	rsv3 = 1
	rsv2 = 2
	rsv1 = 4
)

// A frame is one frame. The fields after payload are for sending invalid frames.
type frame struct {
	fin     bool
	rsv     byte
	opcode  byte
	payload []byte

	wrongMask bool   // mask if the sender must not, and do not mask if it must
	zeroMask  bool   // a mask of zeros, which is valid
	lengthIn  int    // 2 or 8: encode the length in that many bytes, even if it is short
	announce  uint64 // if not 0, the length in the header
}

func text(s string) frame              { return frame{fin: true, opcode: opText, payload: []byte(s)} }
func binaryMessage(p []byte) frame     { return frame{fin: true, opcode: opBinary, payload: p} }
func ping(s string) frame              { return frame{fin: true, opcode: opPing, payload: []byte(s)} }
func pong(s string) frame              { return frame{fin: true, opcode: opPong, payload: []byte(s)} }
func part(opcode byte, s string) frame { return frame{opcode: opcode, payload: []byte(s)} }
func lastPart(s string) frame          { return frame{fin: true, opcode: opContinuation, payload: []byte(s)} }

func (f frame) withRSV(rsv byte) frame {
	f.rsv = rsv
	return f
}

// closeFrame returns a close frame with the code and the reason.
func closeFrame(code uint16, reason string) frame {
	p := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(reason)), code)
	return frame{fin: true, opcode: opClose, payload: append(p, reason...)}
}

// append appends the encoded frame, as the client (masked) or the server sends it.
func (f frame) append(b []byte, masked bool) []byte {
	masked = masked != f.wrongMask
	first := f.rsv<<4 | f.opcode
	if f.fin {
		first |= 0x80
	}
	var maskBit byte
	if masked {
		maskBit = 0x80
	}
	n := uint64(len(f.payload))
	if f.announce != 0 {
		n = f.announce
	}
	b = append(b, first)
	switch {
	case f.lengthIn == 8 || n > 0xffff:
		b = binary.BigEndian.AppendUint64(append(b, maskBit|127), n)
	case f.lengthIn == 2 || n > 125:
		b = binary.BigEndian.AppendUint16(append(b, maskBit|126), uint16(n))
	default:
		b = append(b, maskBit|byte(n))
	}
	if !masked {
		return append(b, f.payload...)
	}
	mask := rand.Uint32()
	if f.zeroMask {
		mask = 0
	}
	b = binary.LittleEndian.AppendUint32(b, mask)
	at := len(b)
	b = append(b, f.payload...)
	applyMask(b[at:], mask)
	return b
}

// applyMask masks or unmasks p. The lowest byte of mask applies to p's first byte.
func applyMask(p []byte, mask uint32) {
	wide := uint64(mask)<<32 | uint64(mask)
	for len(p) >= 8 {
		binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^wide)
		p = p[8:]
	}
	for i := range p {
		p[i] ^= byte(wide >> (8 * i))
	}
}

// A violation is a mistake of the peer, and the code with which to fail the connection.
type violation struct {
	code uint16
	what string
}

func (v *violation) Error() string { return v.what }

func protocolError(format string, args ...any) *violation {
	return &violation{code: 1002, what: fmt.Sprintf(format, args...)}
}

// A header is a frame's header.
type header struct {
	fin, masked bool
	rsv, opcode byte
	length      uint64
	mask        uint32
}

// parseHeader parses a header at the start of b. It returns the header's length, or 0
// if b does not hold all of it.
func parseHeader(b []byte) (h header, n int, err error) {
	if len(b) < 2 {
		return h, 0, nil
	}
	h.fin, h.rsv, h.opcode = b[0]&0x80 != 0, b[0]>>4&7, b[0]&0x0f
	h.masked = b[1]&0x80 != 0
	n = 2
	switch short := b[1] & 0x7f; short {
	case 126:
		if n += 2; len(b) < n {
			return h, 0, nil
		}
		if h.length = uint64(binary.BigEndian.Uint16(b[2:])); h.length < 126 {
			return h, 0, protocolError("a length of %d in two bytes: it must be written as short as it can be", h.length)
		}
	case 127:
		if n += 8; len(b) < n {
			return h, 0, nil
		}
		switch h.length = binary.BigEndian.Uint64(b[2:]); {
		case h.length>>63 != 0:
			return h, 0, protocolError("a length with the top bit set")
		case h.length <= 0xffff:
			return h, 0, protocolError("a length of %d in eight bytes: it must be written as short as it can be", h.length)
		}
	default:
		h.length = uint64(short)
	}
	if h.masked {
		if n += 4; len(b) < n {
			return h, 0, nil
		}
		h.mask = binary.LittleEndian.Uint32(b[n-4:])
	}
	return h, n, nil
}

// check returns what is wrong with a header from a client or a server, inside a
// fragmented message or not, with compression negotiated or not.
func (h header) check(fromClient, inMessage, deflate bool) error {
	control := h.opcode >= 8
	switch {
	case h.masked != fromClient && fromClient:
		return protocolError("a client's frame without a mask")
	case h.masked != fromClient:
		return protocolError("a server's frame with a mask")
	case h.opcode > opBinary && h.opcode < opClose || h.opcode > opPong:
		return protocolError("reserved opcode %d", h.opcode)
	case h.rsv&^rsv1 != 0, h.rsv != 0 && (!deflate || control || h.opcode == opContinuation):
		return protocolError("reserved bits %03b in a frame with opcode %d", h.rsv, h.opcode)
	case control && !h.fin:
		return protocolError("a fragmented control frame")
	case control && h.length > 125:
		return protocolError("a control frame of %d bytes", h.length)
	case h.opcode == opContinuation && !inMessage:
		return protocolError("a continuation of nothing")
	case !control && h.opcode != opContinuation && inMessage:
		return protocolError("a new message inside a fragmented one")
	}
	return nil
}

// parseClose parses a close frame's payload. hasCode is false if it is empty.
func parseClose(p []byte) (code uint16, reason string, hasCode bool, err error) {
	switch {
	case len(p) == 0:
		return 0, "", false, nil
	case len(p) == 1:
		return 0, "", false, protocolError("a close frame of one byte")
	}
	code, reason = binary.BigEndian.Uint16(p), string(p[2:])
	if !validCloseCode(code) {
		return code, reason, true, protocolError("close code %d", code)
	}
	if !utf8.ValidString(reason) {
		return code, reason, true, &violation{1007, "a close reason that is not UTF-8"}
	}
	return code, reason, true, nil
}

// validCloseCode knows the codes of RFC 6455 section 7.4, and those that IANA has
// registered since (1012 to 1014).
func validCloseCode(code uint16) bool {
	switch {
	case code >= 3000 && code <= 4999:
		return true
	case code == 1004, code == 1005, code == 1006:
		return false
	}
	return code >= 1000 && code <= 1014
}
