package websocket

import (
	"bytes"
	"fmt"
	"strings"
)

// The cases of groups 1 to 5: frames.

const hello = "Hello, world!"

func stars(n int) string { return strings.Repeat("*", n) }

func ofByte(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

// framingCases are group 1.
func framingCases() (list []Case) {
	for i, n := range []int{0, 125, 126, 127, 128, 65535, 65536, 65536} {
		how, chop := "", 0
		if i == 7 {
			how, chop = ", in writes of 997 bytes", 997
		}
		add := func(id, kind string, f frame, e event) {
			list = append(list, newCase(id, fmt.Sprintf("A %s message of %d bytes%s.", kind, n, how), "It comes back; a clean close.",
				expects(e), func(s *session) {
					if chop > 0 {
						s.sendChopped(chop, f)
					} else {
						s.send(f)
					}
					s.closeOrKill()
				}))
		}
		add(fmt.Sprintf("1.1.%d", i+1), "text", text(stars(n)), gotText(stars(n)))
		p := ofByte(0xfe, n)
		add(fmt.Sprintf("1.2.%d", i+1), "binary", binaryMessage(p), gotBinary(p))
	}
	return list
}

// pingCases are group 2.
func pingCases() []Case {
	const unsolicited = "unsolicited pong payload"
	full := string(ofByte(0xfe, 125))
	echoed := func(id, what, payload string) Case {
		return newCase(id, "A ping "+what+".", "A pong with the same payload; a clean close.", expects(gotPong(payload)), func(s *session) {
			if id == "2.6" {
				s.sendChopped(1, ping(payload))
			} else {
				s.send(ping(payload))
			}
			s.closeAfter()
		})
	}
	silent := func(id, what string, payload string) Case {
		return newCase(id, "An unsolicited pong "+what+".", "Nothing; a clean close.", expects(), func(s *session) {
			s.send(pong(payload))
			s.closeAfter()
		})
	}
	ten := func(id, how string, chop int) Case {
		var frames []frame
		var pongs []event
		for i := range 10 {
			payload := fmt.Sprintf("payload-%d", i)
			frames, pongs = append(frames, ping(payload)), append(pongs, gotPong(payload))
		}
		return newCase(id, "Ten pings"+how+".", "Ten pongs with their payloads (the standard would let some be left out); a clean close.", expects(pongs...), func(s *session) {
			if chop > 0 {
				s.sendChopped(chop, frames...)
			} else {
				s.send(frames...)
			}
			s.closeAfter()
		})
	}
	return []Case{
		echoed("2.1", "without payload", ""),
		echoed("2.2", "with a text", hello),
		echoed("2.3", "with bytes that are not UTF-8", "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"),
		echoed("2.4", "of 125 bytes", full),
		newCase("2.5", "A ping of 126 bytes.", "The connection is failed with 1002.", expectsFailure(protocol), func(s *session) {
			s.send(ping(full + "\xfe"))
			s.killAfter()
		}),
		echoed("2.6", "of 125 bytes, a byte at a time", full),
		silent("2.7", "without payload", ""),
		silent("2.8", "with payload", unsolicited),
		newCase("2.9", "An unsolicited pong, then a ping.", "One pong, for the ping; a clean close.", expects(gotPong("ping payload")), func(s *session) {
			s.send(pong(unsolicited), ping("ping payload"))
			s.closeAfter()
		}),
		ten("2.10", "", 0),
		ten("2.11", ", a byte at a time", 1),
	}
}

// protocol is the code of a protocol error.
var protocol = []uint16{1002}

// failing returns a case whose frames must fail the connection. If a text message comes
// first, the endpoint may answer it or not; without an answer the case is not strict.
func failing(id, what string, chop int, frames ...frame) Case {
	expect, result := expectsFailure(protocol), "The connection is failed with 1002."
	if len(frames) > 1 && frames[0].opcode == opText && frames[0].rsv == 0 {
		expect = expectsFailure(protocol, gotText(hello)).or(NonStrict)
		result = "The first message comes back, then the connection is failed with 1002; no pong."
	}
	return newCase(id, what, result, expect, func(s *session) {
		if chop > 0 {
			s.sendChopped(chop, frames...)
		} else {
			s.send(frames...)
		}
		s.killAfter()
	})
}

// reservedCases are group 3.
func reservedCases() []Case {
	first := text(hello)
	return []Case{
		failing("3.1", "A text message with RSV 1.", 0, first.withRSV(1)),
		failing("3.2", "A text message, one with RSV 2, a ping.", 0, first, first.withRSV(2), ping("")),
		failing("3.3", "A text message, one with RSV 3, a ping, each in a segment.", 0, first, first.withRSV(3), ping("")),
		failing("3.4", "A text message, one with RSV 4, a ping, a byte at a time.", 1, first, first.withRSV(4), ping("")),
		failing("3.5", "A binary message with RSV 5.", 0, binaryMessage([]byte("\x00\xff\xfe\xfd\xfc\xfb\x00\xff")).withRSV(5)),
		failing("3.6", "A binary message with RSV 6.", 0, binaryMessage([]byte(hello)).withRSV(6)),
		failing("3.7", "A close with RSV 7.", 0, frame{fin: true, opcode: opClose}.withRSV(7)),
	}
}

// opcodeCases are group 4.
func opcodeCases() (list []Case) {
	for group, from := range []byte{3, 11} {
		for i := range byte(5) {
			f := frame{fin: true, opcode: from + i}
			what := fmt.Sprintf("A frame with opcode %d", f.opcode)
			if i == 1 || i >= 3 {
				f.payload = []byte("reserved opcode payload")
				what += " and a payload"
			}
			id, chop := fmt.Sprintf("4.%d.%d", group+1, i+1), 0
			if i < 2 {
				list = append(list, failing(id, what+".", 0, f))
				continue
			}
			if i == 4 {
				what, chop = what+", a byte at a time", 1
			}
			list = append(list, failing(id, what+", after a text message and before a ping.", chop, text(hello), f, ping("")))
		}
	}
	return list
}

// fragmentationCases are group 5.
func fragmentationCases() []Case {
	one, two := part(opText, "fragment1"), lastPart("fragment2")
	both := gotText("fragment1fragment2")
	const middle = "ping payload"

	valid := func(id, what string, chop int, together bool, expect expectation, frames ...frame) Case {
		return newCase(id, what, "Everything is answered; a clean close.", expect, func(s *session) {
			switch {
			case together:
				s.sendTogether(frames...)
			case chop > 0:
				s.sendChopped(chop, frames...)
			default:
				s.send(frames...)
			}
			s.closeAfter()
		})
	}
	// invalid sends frames in one segment (0), each in its own (1), or a byte at a time
	// (2).
	invalid := func(id, what string, how int, expect expectation, frames ...frame) Case {
		return newCase(id, what, "The connection is failed with 1002.", expect, func(s *session) {
			switch how {
			case 0:
				s.sendTogether(frames...)
			case 1:
				s.send(frames...)
			default:
				s.sendChopped(1, frames...)
			}
			s.killAfter()
		})
	}
	bad := expectsFailure(protocol)
	hows := []string{"in one segment", "a frame at a time", "a byte at a time"}
	list := []Case{
		invalid("5.1", "A ping in two fragments.", 1, bad, part(opPing, "fragment1"), two),
		invalid("5.2", "A pong in two fragments.", 1, bad, part(opPong, "fragment1"), two),
		valid("5.3", "A text in two fragments, in one segment.", 0, true, expects(both), one, two),
		valid("5.4", "A text in two fragments, a frame at a time.", 0, false, expects(both), one, two),
		valid("5.5", "A text in two fragments, a byte at a time.", 1, false, expects(both), one, two),
		valid("5.6", "A text in two fragments with a ping between, in one segment.", 0, true, expects(gotPong(middle), both), one, ping(middle), two),
		valid("5.7", "A text in two fragments with a ping between, a frame at a time.", 0, false, expects(gotPong(middle), both), one, ping(middle), two),
		valid("5.8", "A text in two fragments with a ping between, a byte at a time.", 1, false, expects(gotPong(middle), both), one, ping(middle), two),
	}
	for i, fin := range []bool{true, false} {
		for j, how := range hows {
			stray := frame{fin: fin, opcode: opContinuation, payload: []byte("non-continuation payload")}
			list = append(list, invalid(fmt.Sprintf("5.%d", 9+3*i+j), fmt.Sprintf("A continuation of nothing with FIN %v, then a text, %s.", fin, how), j, bad, stray, text(hello)))
		}
	}
	stray := func(fin bool) []frame {
		round := []frame{{fin: fin, opcode: opContinuation, payload: []byte("fragment1")}, part(opText, "fragment2"), lastPart("fragment3")}
		return append(round, round...)
	}
	return append(list,
		invalid("5.15", "A text in two fragments, a continuation of nothing, another text, in one segment.", 0,
			expectsFailure(protocol, both).or(NonStrict), one, two, part(opContinuation, "fragment3"), text("fragment4")),
		invalid("5.16", "Twice: a continuation of nothing with FIN false, a text in two fragments.", 1, bad, stray(false)...),
		invalid("5.17", "Twice: a continuation of nothing with FIN true, a text in two fragments.", 1, bad, stray(true)...),
		invalid("5.18", "A text in two fragments that both say they are a text.", 0, bad, one, text("fragment2")),
		pongsBetween("5.19", "", (*session).sendTogether),
		pongsBetween("5.20", ", each frame in a segment", (*session).send),
	)
}

// pongsBetween returns a case with a message of five fragments with pings between them.
// The first pong must arrive while the message is still unfinished.
func pongsBetween(id, how string, send func(*session, ...frame)) Case {
	return newCase(id, "A text in five fragments with pings after the second and the fourth"+how+"; the third is sent after the first pong.",
		"The first pong comes before the third fragment is sent, then the second, then the message; a clean close.",
		expects(gotPong("pongme 1!"), gotPong("pongme 2!"), gotText("fragment1fragment2fragment3fragment4fragment5")), func(s *session) {
			send(s, part(opText, "fragment1"), part(opContinuation, "fragment2"), ping("pongme 1!"))
			if !s.awaitEvents(1) {
				s.decide(Failed, "no pong while the message is unfinished")
			}
			send(s, part(opContinuation, "fragment3"), part(opContinuation, "fragment4"), ping("pongme 2!"), lastPart("fragment5"))
			s.closeAfter()
		})
}
