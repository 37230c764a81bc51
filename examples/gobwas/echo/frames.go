package echo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// A violation is the peer's mistake, and the close code that the peer gets for it.
type violation struct {
	code   ws.StatusCode
	detail string
}

func (v violation) Error() string {
	return fmt.Sprintf("closed with code %d: the peer sent %s", v.code, v.detail)
}

// errClosed means that the peer has closed the connection, and that its Close frame has
// been answered.
var errClosed = errors.New("the peer has closed the connection")

var errNotUTF8 = violation{ws.StatusInvalidFramePayloadData, "text that is not UTF-8"}

// check checks a header of size bytes that the library has read with the result err.
// The library itself refuses only a length with the highest bit set.
func (c *conn) check(h ws.Header, size int, err error) error {
	wrong := ""
	switch {
	case errors.Is(err, ws.ErrHeaderLengthMSB):
		wrong = "a length with the highest bit set"
	case err != nil:
		return err
	case h.Rsv != 0:
		wrong = "reserved bits"
	case h.OpCode.IsReserved():
		wrong = "a reserved opcode"
	case h.Masked == c.client:
		wrong = "a masked frame where the mask is forbidden, or an unmasked one where it is required"
	case h.OpCode.IsControl() && !h.Fin:
		wrong = "a control frame in fragments"
	case h.OpCode.IsControl() && h.Length > ws.MaxControlFramePayloadSize:
		wrong = "a control frame that is too long"
	case size != ws.HeaderSize(h):
		wrong = "a length that is not in its shortest form"
	default:
		return nil
	}
	return violation{ws.StatusProtocolError, wrong}
}

// checkText reports whether the text that has arrived can be the beginning of valid
// UTF-8. The library's CheckUTF8 looks at each byte; unicode/utf8 is much faster, but
// must not be given the incomplete character at the end.
func (c *conn) checkText() bool {
	p := c.payload[c.checked:]
	n := len(p)
	for i := 1; i < utf8.UTFMax && i <= len(p); i++ {
		if tail := p[len(p)-i:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) { // it can still become valid
				n -= i
			}
			break
		}
	}
	c.checked += n
	return utf8.Valid(p[:n])
}

// checkClose checks a Close frame's payload (RFC 6455, sections 5.5.1 and 7.4). The
// library's CheckCloseFrameData refuses 1012 to 1014 and accepts 5000.
func checkClose(p []byte) error {
	switch {
	case len(p) == 0:
		return nil
	case len(p) == 1:
		return violation{ws.StatusProtocolError, "a Close frame with half a status code"}
	case !utf8.Valid(p[2:]):
		return violation{ws.StatusInvalidFramePayloadData, "a Close frame whose reason is not UTF-8"}
	}
	code := binary.BigEndian.Uint16(p)
	if code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014 || code >= 3000 && code <= 4999 {
		return nil
	}
	return violation{ws.StatusProtocolError, fmt.Sprintf("a Close frame with the status code %d", code)}
}
