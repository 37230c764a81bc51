package websocket

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// The cases of group 7: closing.

// emptyClose is a close frame without a code.
var emptyClose = frame{fin: true, opcode: opClose}

// closing returns a case in which the suite sends a close frame and waits for the
// answer.
func closing(id, what, result string, expect expectation, frames ...frame) Case {
	expect.codeIsAll = true
	return newCase(id, what, result, expect, func(s *session) {
		s.send(frames...)
		s.killAfter()
	})
}

// badClose is the expectation for an invalid close frame: the endpoint may answer with
// one of these codes, or end the connection.
func badClose(codes ...uint16) expectation {
	e := expects()
	e.clean, e.codes = false, codes
	return e
}

func closeCases() []Case {
	const answered = "It is answered with 1000; a clean close."
	const refused = "It is answered with 1002, or the connection ends."
	normal := closeFrame(1000, "")
	anything := expects(gotText("Hello World!")).or(NonStrict)
	anything.informational = true
	list := []Case{
		newCase("7.1.1", "A text, then a close.", "The text comes back; a clean close.", expects(gotText("Hello World!")), func(s *session) {
			s.send(text("Hello World!"))
			s.closeOrKill()
		}),
		closing("7.1.2", "Two closes.", "The second is ignored; a clean close.", expects(), normal, emptyClose),
		closing("7.1.3", "A ping after a close.", "No pong; a clean close.", expects(), normal, ping("")),
		closing("7.1.4", "A text after a close.", "It is ignored; a clean close.", expects(), normal, text("Hello World!")),
		closing("7.1.5", "A close inside a fragmented text.", "A clean close.", expects(), part(opText, "fragment1"), normal, lastPart("fragment2")),
		closing("7.1.6", "A text of 256 KiB, another, a close and a ping.", "How much comes back before the close is up to the endpoint.", anything,
			text(strings.Repeat("BAsd7&jh23", 26215)[:1<<18]), text("Hello World!"), normal, ping("")),
		closing("7.3.1", "A close without a code.", "A clean close.", expects(), emptyClose),
		closing("7.3.2", "A close of one byte.", refused, badClose(1002), frame{fin: true, opcode: opClose, payload: []byte("a")}),
		closing("7.3.3", "A close with a code.", answered, expects(), normal),
		closing("7.3.4", "A close with a code and a reason.", answered, expects(), closeFrame(1000, "Hello World!")),
		closing("7.3.5", "A close with the longest reason, 123 bytes.", answered, expects(), closeFrame(1000, stars(123))),
		closing("7.3.6", "A close with a reason of 124 bytes.", refused, badClose(1002), closeFrame(1000, stars(124))),
		closing("7.5.1", "A close whose reason is not UTF-8.", "It is answered with 1002 or 1007, or the connection ends.", badClose(1002, 1007), closeFrame(1000, greek+"\xed\xa0\x80edited")),
	}
	for i, code := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		expect := expects()
		expect.codes = []uint16{1000, code}
		list = append(list, closing(fmt.Sprintf("7.7.%d", i+1), fmt.Sprintf("A close with code %d.", code), "It is answered with 1000 or the same code; a clean close.", expect, closeFrame(code, "")))
	}
	for i, code := range []uint16{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999} {
		list = append(list, closing(fmt.Sprintf("7.9.%d", i+1), fmt.Sprintf("A close with code %d, which is not valid.", code), refused, badClose(1002), codeOnly(code)))
	}
	for i, code := range []uint16{5000, 65535} {
		expect := badClose(1000, 1002, code)
		expect.informational = true
		list = append(list, closing(fmt.Sprintf("7.13.%d", i+1), fmt.Sprintf("A close with code %d.", code), "The standard does not say.", expect, codeOnly(code)))
	}
	return list
}

func codeOnly(code uint16) frame {
	return frame{fin: true, opcode: opClose, payload: binary.BigEndian.AppendUint16(nil, code)}
}
