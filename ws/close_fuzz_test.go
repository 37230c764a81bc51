package ws

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzClosePayload compares parseClose with the tables of RFC 6455, section 7.4, and of
// IANA, written in another way: as lists of what must not be sent.
func FuzzClosePayload(f *testing.F) {
	for _, p := range []string{"", "\x03", "\x03\xe8", "\x03\xe8bye", "\x03\xec", "\x03\xed", "\x03\xee", "\x03\xf7", "\x03\xf6", "\x00\x00",
		"\x0b\xb7", "\x0b\xb8", "\x13\x87", "\x13\x88", "\xff\xff", "\x03\xe8\xff", "\x03\xe8\xed\xa0\x80", "\x03\xe8" + strings.Repeat("é", 61)} {
		f.Add([]byte(p))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) > 125 {
			return // too long for a control frame
		}
		given := bytes.Clone(p)
		closed, broken := parseClose(p)
		require.Equal(t, given, p, "it was changed")
		require.True(t, (closed == nil) != (broken == nil))
		switch {
		case len(p) == 0:
			require.Equal(t, StatusNoStatus, closed.Code)
			return
		case len(p) == 1:
			require.Equal(t, StatusProtocolError, broken.Code)
			return
		}
		code := binary.BigEndian.Uint16(p)
		never := code < 1000 || code == 1004 || code == 1005 || code == 1006 || code >= 1015 && code < 3000 || code >= 5000
		valid := strings.ToValidUTF8(string(p[2:]), "") == string(p[2:])
		switch {
		case never:
			require.Equal(t, StatusProtocolError, broken.Code)
		case !valid:
			require.Equal(t, StatusInvalidPayload, broken.Code)
		default:
			require.Equal(t, CloseError{Code: StatusCode(code), Reason: string(p[2:])}, *closed)
		}
	})
}
