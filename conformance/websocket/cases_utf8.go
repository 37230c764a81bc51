package websocket

import (
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"
)

// The cases of group 6: UTF-8. Most of the payloads are from Markus Kuhn's "UTF-8
// decoder capability and stress test".

const (
	greek      = "κ\u1f79σμε" // its accent is an oxia
	greekBytes = "cebae1bdb9cf83cebcceb5"
)

// inconsistent is the code for data that does not fit its type, such as a text that is
// not UTF-8.
var inconsistent = []uint16{1007}

// utf8Payloads are the payloads of the subgroups from 6.5 on, in hexadecimal.
var utf8Payloads = map[int]string{
	5: "68656c6c6f24776f726c64 68656c6c6fc2a2776f726c64 68656c6c6fe282ac776f726c64 68656c6c6ff0a4ada2776f726c64 " + greekBytes,
	6: "ce ceba cebae1 cebae1bd cebae1bdb9 cebae1bdb9cf cebae1bdb9cf83 cebae1bdb9cf83ce cebae1bdb9cf83cebc cebae1bdb9cf83cebcce " + greekBytes,
	// the first and the last of each length
	7:  "00 c280 e0a080 f0908080",
	8:  "f888808080 fc8480808080",
	9:  "7f dfbf efbfbf f48fbfbf",
	10: "f7bfbfbf fbbfbfbfbf fdbfbfbfbfbf",
	// around the surrogates and the end
	11: "ed9fbf ee8080 efbfbd f48fbfbf f4908080",
	// continuation bytes without a first byte, first bytes without a continuation
	12: "80 bf 80bf 80bf80 80bf80bf 80bf80bf80 80bf80bf80bf " + run(0x80, 0xbe, ""),
	13: run(0xc0, 0xde, "20") + " " + run(0xe0, 0xee, "20") + " " + run(0xf0, 0xf6, "20") + " " + run(0xf8, 0xfa, "20") + " fc20",
	14: "c0 e080 f08080 f8808080 fc80808080 df efbf f7bfbf fbbfbfbf fdbfbfbfbf",
	15: "c0e080f08080f8808080fc80808080dfefbff7bfbffbbfbfbffdbfbfbfbf",
	16: "fe ff fefeffff",
	// encodings longer than they need be
	17: "c0af e080af f08080af f8808080af fc80808080af",
	18: "c1bf e09fbf f08fbfbf f887bfbfbf fc83bfbfbfbf",
	19: "c080 e08080 f0808080 f880808080 fc8080808080",
	// surrogates, alone and in pairs
	20: "eda080 edadbf edae80 edafbf edb080 edbe80 edbfbf",
	21: "eda080edb080 eda080edbfbf edadbfedb080 edadbfedbfbf edae80edb080 edae80edbfbf edafbfedb080 edafbfedbfbf",
	// code points that are not characters, which are valid all the same
	22: nonCharacters(),
	23: "efbfb9 efbfba efbfbb efbfbc efbfbd efbfbe efbfbf",
}

// run returns the bytes from first to last, each followed by then.
func run(first, last byte, then string) string {
	var b strings.Builder
	for c := first; c <= last; c++ {
		fmt.Fprintf(&b, "%02x%s", c, then)
	}
	return b.String()
}

// nonCharacters returns the last two code points of every plane.
func nonCharacters() string {
	var list []string
	for plane := rune(0); plane <= 16; plane++ {
		list = append(list, hex.EncodeToString([]byte(string(plane<<16|0xfffe))), hex.EncodeToString([]byte(string(plane<<16|0xffff))))
	}
	return strings.Join(list, " ")
}

func utf8Cases() []Case {
	list := utf8FragmentCases()
	for sub := 5; sub <= 23; sub++ {
		for i, h := range strings.Fields(utf8Payloads[sub]) {
			p, err := hex.DecodeString(h)
			if err != nil {
				panic(err)
			}
			list = append(list, utf8Case(fmt.Sprintf("6.%d.%d", sub, i+1), string(p), false))
		}
	}
	return list
}

// utf8Case returns a case that sends a text in one frame, or in frames of one byte.
func utf8Case(id, payload string, bytewise bool) Case {
	how := ""
	if bytewise {
		how = ", in fragments of one byte"
	}
	frames := []frame{text(payload)}
	if bytewise {
		frames = fragments(opText, []byte(payload), 1)
	}
	if utf8.ValidString(payload) {
		return newCase(id, fmt.Sprintf("A text that is UTF-8%s: %x.", how, payload), "It comes back; a clean close.", expects(gotText(payload)), func(s *session) {
			s.send(frames...)
			if strings.HasPrefix(id, "6.1.") || strings.HasPrefix(id, "6.2.") {
				s.closeAfter()
			} else {
				s.closeOrKill()
			}
		})
	}
	return newCase(id, fmt.Sprintf("A text that is not UTF-8%s: %x.", how, payload), "The connection is failed with 1007.", notUTF8(), func(s *session) {
		s.send(frames...)
		s.killAfter()
	})
}

func notUTF8(events ...event) expectation {
	e := expectsFailure(inconsistent, events...)
	e.wrongSideIsFatal = true
	return e
}

// fragments cuts a message into fragments of n bytes.
func fragments(opcode byte, p []byte, n int) (list []frame) {
	for {
		k := min(n, len(p))
		f := frame{opcode: opcode, payload: p[:k], fin: k == len(p)}
		list = append(list, f)
		if p, opcode = p[k:], opContinuation; len(p) == 0 {
			return list
		}
	}
}

func utf8FragmentCases() []Case {
	const umlauts = "Hello-µ@ßöäüàá-UTF-8!!"
	notValid := greek + "\xed\xa0\x80edited"
	return []Case{
		utf8Case("6.1.1", "", false),
		newCase("6.1.2", "A text in three fragments, all empty.", "An empty text comes back; a clean close.", expects(gotText("")), func(s *session) {
			s.sendTogether(part(opText, ""), part(opContinuation, ""), lastPart(""))
			s.closeAfter()
		}),
		newCase("6.1.3", "A text in three fragments, the first and the last empty.", "The text comes back; a clean close.", expects(gotText("middle frame payload")), func(s *session) {
			s.sendTogether(part(opText, ""), part(opContinuation, "middle frame payload"), lastPart(""))
			s.closeAfter()
		}),
		utf8Case("6.2.1", umlauts, false),
		newCase("6.2.2", "A text in two fragments, cut between characters.", "It comes back; a clean close.", expects(gotText(umlauts)), func(s *session) {
			s.send(part(opText, umlauts[:len("Hello-µ@ßöä")]), lastPart(umlauts[len("Hello-µ@ßöä"):]))
			s.closeAfter()
		}),
		utf8Case("6.2.3", umlauts, true),
		utf8Case("6.2.4", greek, true),
		utf8Case("6.3.1", notValid, false),
		utf8Case("6.3.2", notValid, true),
		failFast("6.4.1", true, greek, "\xf4\x90\x80\x80", "edited"),
		failFast("6.4.2", true, greek+"\xf4", "\x90", "\x80\x80edited"),
		failFast("6.4.3", false, greek, "\xf4\x90\x80\x80", "edited"),
		failFast("6.4.4", false, greek+"\xf4", "\x90", "\x80\x80edited"),
	}
}

// failFast returns a case that sends a text in three frames, or in three pieces of one
// frame. The second part makes it invalid.
func failFast(id string, frames bool, one, two, three string) Case {
	how := "pieces of one frame"
	if frames {
		how = "fragments"
	}
	expect := notUTF8(timedOut("A")).or(NonStrict, timedOut("A"), timedOut("B"))
	return newCase(id, fmt.Sprintf("A text in three %s with waits between; the second one makes it no UTF-8: %x, %x, %x.", how, one, two, three),
		"Nothing happens after the first. The connection is failed with 1007 after the second; after the third is not strict.", expect, func(s *session) {
			pieces := [][]byte{[]byte(one), []byte(two), []byte(three)}
			send := func(i int) { s.write(pieces[i]) }
			if frames {
				list := []frame{part(opText, one), part(opContinuation, two), lastPart(three)}
				send = func(i int) { s.send(list[i]) }
			} else {
				b := text(one+two+three).append(nil, !s.server)
				payload := b[len(b)-len(one+two+three):]
				s.write(b[:len(b)-len(payload)])
				pieces = [][]byte{payload[:len(one)], payload[len(one) : len(one)+len(two)], payload[len(one)+len(two):]}
			}
			send(0)
			s.pause("A", s.quiet)
			send(1)
			s.pause("B", s.patience)
			send(2)
			s.killAfter()
		})
}
