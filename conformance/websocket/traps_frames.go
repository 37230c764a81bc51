package websocket

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// Cases about frames that Autobahn does not have, for servers and clients alike. The
// number after "trap" is a line of the list of traps that this project started from.
// The cases are stricter than Autobahn's: an endpoint that fails the connection must
// send a close frame with the reason.

// mustFail is the expectation that the endpoint fails the connection with one of these
// codes, in a close frame.
func mustFail(codes ...uint16) expectation {
	e := expectsFailure(codes)
	e.needsCode, e.wrongSideIsFatal = true, true
	return e
}

// trapFail returns a case whose last frame, or each of whose frames, must fail the
// connection.
func trapFail(id, what string, expect expectation, frames ...frame) Case {
	return newCase(id, what, fmt.Sprintf("A close frame with one of %v.", expect.codes), expect, func(s *session) {
		s.send(frames...)
		s.killAfter()
	})
}

// trapEcho returns a case that sends bytes and expects messages.
func trapEcho(id, what string, send func(s *session), events ...event) Case {
	return newCase(id, what, "Everything is answered; a clean close.", expects(events...), func(s *session) {
		send(s)
		s.closeAfter()
	})
}

func frameTraps(o Options) []Case {
	list := lengthTraps()
	list = append(list, assemblyTraps(o)...)
	list = append(list, controlTraps()...)
	list = append(list, compressionTraps(o)...)
	list = append(list, closeTraps()...)
	for i := range list {
		list[i].strict = true
	}
	return list
}

// zeroMask is a case of line 10 for servers.
func zeroMask() Case {
	f := text(hello)
	f.zeroMask = true
	c := trapEcho("trap10.zero-mask", "A text whose mask is 00000000.", func(s *session) { s.send(f) }, gotText(hello))
	c.strict = true
	return c
}

// lengthTraps are the cases of line 4, and the mask of line 10.
func lengthTraps() []Case {
	small := []byte("small")
	announcing := func(n uint64) frame {
		return frame{fin: true, opcode: opBinary, payload: small, announce: n, lengthIn: 8}
	}
	huge := mustFail(1009, 1002)
	unmasked := text(hello)
	unmasked.wrongMask = true
	return []Case{
		trapFail("trap04.top-bit", "A length with the top bit set.", huge, announcing(1<<63|5)),
		trapFail("trap04.all-bits", "A length of 2^64-1.", huge, announcing(1<<64-1)),
		trapFail("trap04.non-minimal-16", "A length of 5 in two bytes.", mustFail(1002), frame{fin: true, opcode: opBinary, payload: small, lengthIn: 2}),
		trapFail("trap04.non-minimal-64", "A length of 5 in eight bytes.", mustFail(1002), frame{fin: true, opcode: opBinary, payload: small, lengthIn: 8}),
		trapFail("trap04.non-minimal-64-of-16", "A length of 65535 in eight bytes.", mustFail(1002), frame{fin: true, opcode: opBinary, payload: make([]byte, 65535), lengthIn: 8}),
		trapFail("trap04.announced", "A length of 2^62, and five bytes.", huge, announcing(1<<62)),
		trapFail("trap10.mask", "A frame without a mask from a client, with one from a server.", mustFail(1002), unmasked),
	}
}

// assemblyTraps are the cases of lines 3, 5, 9 and 15.
func assemblyTraps(o Options) []Case {
	const empty = 100_000
	wide := strings.Repeat("水", 70_000)
	var burst []frame
	var echoes []event
	for i := range 1000 {
		s := fmt.Sprintf("%04d%s", i, stars(i))[:i]
		burst, echoes = append(burst, text(s)), append(echoes, gotText(s))
	}
	list := []Case{
		newCase("trap05.empty-fragments", fmt.Sprintf("A text in %d empty fragments and one that is not.", empty), "It comes back, or the connection is failed with 1008, 1009 or 1002.", expects(gotText("x")), func(s *session) {
			b := part(opText, "").append(nil, !s.server)
			for range empty {
				b = part(opContinuation, "").append(b, !s.server)
			}
			s.write(lastPart("x").append(b, !s.server))
			s.await(s.patience, func() bool { return len(s.received) > 0 || s.over() })
			if s.refusedWith(1008, 1009, 1002) {
				s.expect = mustFail(1008, 1009, 1002)
				return
			}
			s.closeAfter()
		}),
		trapFail("trap05.stray-continuation", "A continuation of nothing.", mustFail(1002), lastPart("x")),
		trapFail("trap05.new-inside", "A binary message inside a text.", mustFail(1002), part(opText, "a"), binaryMessage([]byte("b"))),
		trapEcho("trap05.pong-inside", "A pong inside a text.", func(s *session) { s.send(part(opText, "a"), pong("x"), lastPart("b")) }, gotText("ab")),
		trapEcho("trap05.ping-inside-binary", "A ping inside a binary message.", func(s *session) { s.send(part(opBinary, "a"), ping("x"), lastPart("b")) }, gotPong("x"), gotBinary([]byte("ab"))),
		trapFail("trap09.far", "A text whose bad byte comes after 70,000 good ones, in one frame.", mustFail(1007), text(strings.Repeat("x", 70_000)+"\xff")),
		trapEcho("trap09.wide", "A text of 70,000 characters of three bytes, so that every buffer ends inside some.", func(s *session) { s.send(text(wide)) }, gotText(wide)),
		trapFail("trap09.first-byte", "A text whose first frame has a bad byte and is not the last.", mustFail(1007), part(opText, "ok\xff")),
		trapFail("trap09.fragments", "A text whose bad character lies across two frames.", mustFail(1007), part(opText, "\xed"), part(opContinuation, "\xa0")),
		trapFail("trap09.unfinished", "A text that ends inside a character.", mustFail(1007), part(opText, "caf\xc3"), lastPart("")),
		trapFail("trap09.close-reason", "A close reason that is not UTF-8.", closedByPeer(1007, 1002), closeFrame(1000, "\xff")),
		trapEcho("trap03.six", "Six texts in one segment.", func(s *session) {
			s.sendTogether(text("m0"), text("m1"), text("m2"), text("m3"), text("m4"), text("m5"))
		}, gotText("m0"), gotText("m1"), gotText("m2"), gotText("m3"), gotText("m4"), gotText("m5")),
		trapEcho("trap03.burst", "1,000 texts of 0 to 999 bytes in one write.", func(s *session) { s.sendTogether(burst...) }, echoes...),
		trapEcho("trap15.slowly", "A text, a byte at a time.", func(s *session) { s.sendChopped(1, text(hello)) }, gotText(hello)),
	}
	if n := o.MaxMessage; n > 0 && n <= maxReceived/2 {
		list = append(list,
			newCase("trap05.at-limit", "A message as long as the endpoint takes.", "It comes back.", expects(), func(s *session) {
				p := bytes.Repeat([]byte("x"), int(n))
				s.echo(opBinary, p, func() { s.send(binaryMessage(p)) })
				s.close(1000)
			}),
			trapFail("trap05.frame-over-limit", "A message longer than the endpoint takes.", mustFail(1009), frame{fin: true, opcode: opBinary, payload: []byte("x"), announce: uint64(n) + 1, lengthIn: 8}),
			newCase("trap05.fragments-over-limit", "A message in two fragments, together longer than the endpoint takes.", "A close frame with 1009.", mustFail(1009), func(s *session) {
				half := make([]byte, n/2+1)
				s.send(frame{opcode: opBinary, payload: half}, frame{fin: true, opcode: opContinuation, payload: half})
				s.killAfter()
			}))
		for i := range list[len(list)-3:] {
			list[len(list)-3+i].big = true
		}
	}
	return list
}

// refusedWith reports whether the endpoint closed with one of the codes.
func (s *session) refusedWith(codes ...uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range codes {
		if s.closeReceived && s.hasRemoteCode && s.remoteCode == c {
			return true
		}
	}
	return false
}

// controlTraps are the cases of line 7.
func controlTraps() (list []Case) {
	for opcode, name := range map[byte]string{opClose: "close", opPing: "ping", opPong: "pong"} {
		long := make([]byte, 126)
		binary.BigEndian.PutUint16(long, 1000)
		expect := mustFail(1002)
		if opcode == opClose {
			expect = closedByPeer(1002)
		}
		list = append(list,
			trapFail("trap07.long-"+name, "A "+name+" of 126 bytes.", expect, frame{fin: true, opcode: opcode, payload: long}),
			trapFail("trap07.fragmented-"+name, "A "+name+" without FIN.", expect, frame{opcode: opcode, payload: long[:2]}))
	}
	for _, bit := range []byte{rsv1, rsv2, rsv3} {
		list = append(list, trapFail(fmt.Sprintf("trap07.rsv%d", map[byte]int{rsv1: 1, rsv2: 2, rsv3: 3}[bit]), "A text with a reserved bit.", mustFail(1002), text(hello).withRSV(bit)))
	}
	list = append(list,
		trapFail("trap07.rsv-ping", "A ping with a reserved bit.", mustFail(1002), ping(hello).withRSV(rsv2)),
		trapFail("trap07.rsv-pong", "A pong with a reserved bit.", mustFail(1002), pong(hello).withRSV(rsv3)))
	for _, opcode := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		list = append(list, trapFail(fmt.Sprintf("trap07.opcode-%d", opcode), fmt.Sprintf("A frame with opcode %d.", opcode), mustFail(1002), frame{fin: true, opcode: opcode}))
	}
	return list
}

// compressionTraps are the cases of line 8.
func compressionTraps(o Options) []Case {
	raw := func(h string) []byte {
		p, err := hex.DecodeString(strings.ReplaceAll(h, " ", ""))
		if err != nil {
			panic(err)
		}
		return p
	}
	deflated := func(c Case) Case {
		run := c.run
		c.offers, c.accept = []deflateParams{{clientNoContext: true, clientBits: -1}}, []deflateParams{{}}
		c.run = func(s *session) {
			if s.out == nil {
				s.expect = expects() // none of what is sent may fail the connection
				s.decide(Unimplemented, "the endpoint does not take permessage-deflate")
				s.close(1000)
				return
			}
			run(s)
		}
		return c
	}
	good := func(id, what string, frames ...frame) Case {
		return deflated(trapEcho(id, what, func(s *session) { s.send(frames...) }, gotText("Hello")))
	}
	first := func(h string) frame { return frame{fin: true, rsv: rsv1, opcode: opText, payload: raw(h)} }
	bad := func(id, what string, codes []uint16, frames ...frame) Case {
		return deflated(trapFail(id, what, mustFail(codes...), frames...))
	}
	open := first("f248cd")
	open.fin = false
	whole := first("f248cdc9c90700")
	whole.fin = false
	rest := frame{fin: true, opcode: opContinuation, payload: raw("c9c90700")}
	list := []Case{
		// The examples of RFC 7692, section 7.2.3.
		good("trap08.rfc-one-block", "RFC 7692's example of one block.", first("f2 48 cd c9 c9 07 00")),
		good("trap08.rfc-fragments", "RFC 7692's example of two fragments.", open, rest),
		good("trap08.empty-last", "A compressed message whose last fragment is empty.", whole, lastPart("")),
		deflated(trapEcho("trap08.ping-inside", "A ping inside a compressed message.", func(s *session) { s.send(open, ping("x"), rest) }, gotPong("x"), gotText("Hello"))),
		good("trap08.pong-inside", "A pong inside a compressed message.", open, pong("x"), rest),
		good("trap08.rfc-stored", "RFC 7692's example of a block that is not compressed.", first("00 05 00 fa ff 48 65 6c 6c 6f 00")),
		good("trap08.rfc-final", "RFC 7692's example of a block with BFINAL.", first("f3 48 cd c9 c9 07 00 00")),
		good("trap08.rfc-two-blocks", "RFC 7692's example of two blocks.", first("f2 48 05 00 00 00 ff ff ca c9 c9 07 00")),
		good("trap08.not-compressed", "A message that is not compressed, though it might be.", text("Hello")),
		remembering(deflated(trapEcho("trap08.rfc-context", "RFC 7692's example of a message that refers to the one before.", func(s *session) {
			s.send(first("f2 48 cd c9 c9 07 00"), first("f2 00 11 00 00"))
		}, gotText("Hello"), gotText("Hello")))),
		remembering(deflated(newCase("trap08.takeover", "300 messages of 4 KiB that refer to those before them.", "All come back; a clean close.", expects(), func(s *session) {
			for i := range 300 {
				p := corpora[0].cut(i, 4<<10)
				if !s.echo(opText, p, func() { s.sendFragments(opText, s.out.compress(p), 0, true) }) {
					break
				}
			}
			s.close(1000)
		}))),
		deflated(trapEcho("trap08.empty", "An empty message, compressed.", func(s *session) { s.send(first("00")) }, gotText(""))),
		bad("trap08.rsv1-ping", "A ping with RSV1.", []uint16{1002}, ping("x").withRSV(rsv1)),
		bad("trap08.rsv1-close", "A close with RSV1.", []uint16{1002}, closeFrame(1000, "").withRSV(rsv1)),
		bad("trap08.rsv1-continuation", "A continuation with RSV1.", []uint16{1002}, open, frame{fin: true, rsv: rsv1, opcode: opContinuation, payload: raw("c9c90700")}),
		bad("trap08.rsv2", "A compressed message with RSV2 too.", []uint16{1002}, first("f248cdc9c90700").withRSV(rsv1|rsv2)),
		bad("trap08.corrupt", "Data that is not DEFLATE.", []uint16{1007, 1002}, first("ff ff ff ff ff ff")),
		bad("trap08.before-beginning", "A distance to before the beginning.", []uint16{1007, 1002}, first("02 02 00 00")),
		bad("trap09.inflated", "A compressed text that is not UTF-8.", []uint16{1007}, frame{fin: true, rsv: rsv1, opcode: opText, payload: bytes.Clone(newDeflater(false, 15).compress([]byte("caf\xe9 au lait")))}),
	}
	list = append(list, deflated(newCase("trap09.inflated-far", "A compressed text whose bad byte comes after 70,000 good ones.", "A close frame with 1007.", mustFail(1007), func(s *session) {
		p := bytes.Clone(newDeflater(false, 15).compress([]byte(strings.Repeat("x", 70_000) + "\xff")))
		s.send(frame{fin: true, rsv: rsv1, opcode: opText, payload: p})
		s.killAfter()
	})))
	if n := o.MaxMessage; n > 0 && n <= maxReceived {
		list = append(list, deflated(newCase("trap08.bomb", "A message that is small, and longer than the endpoint takes when inflated.", "A close frame with 1009.", mustFail(1009), func(s *session) {
			p := bytes.Clone(newDeflater(false, 15).compress(make([]byte, n+1)))
			s.send(frame{fin: true, rsv: rsv1, opcode: opBinary, payload: p})
			s.killAfter()
		})))
	}
	return list
}

// remembering changes a case so that the suite's messages refer to earlier ones, unless
// the endpoint forbids it.
func remembering(c Case) Case {
	run := c.run
	c.offers = []deflateParams{{clientBits: -1}}
	c.run = func(s *session) {
		if p := s.deflate; p != nil && (!s.server && p.clientNoContext || s.server && p.serverNoContext) {
			s.decide(OK, "the endpoint does not want it")
			s.close(1000)
			return
		}
		run(s)
	}
	return c
}

// closedByPeer is the expectation for an invalid close frame of the suite: the endpoint
// must answer with one of these codes.
func closedByPeer(codes ...uint16) expectation {
	e := badClose(codes...)
	e.needsCode = true
	return e
}

// closeTraps are the cases of line 12.
func closeTraps() []Case {
	list := []Case{
		closing("trap12.one-byte", "A close of one byte.", "A close frame with 1002.", closedByPeer(1002), frame{fin: true, opcode: opClose, payload: []byte{3}}),
		closing("trap12.data-after", "A text, a ping and half a frame after a close.", "A clean close, nothing else.", expects(), closeFrame(1000, ""), text(hello), ping("x"), frame{fin: true, opcode: opBinary, payload: []byte("x"), announce: 1000, lengthIn: 2}),
		trapEcho("trap12.after-close", "A text, then a close.", func(s *session) { s.send(text(hello)) }, gotText(hello)),
		closing("trap12.reason", "A close whose reason is not ASCII.", "It is answered with 1000; a clean close.", expects(), closeFrame(1000, "Größe, 水車, 🎡")),
		closing("trap12.long-reason", "A close with the longest reason, and not ASCII.", "It is answered with 1000; a clean close.", expects(), closeFrame(1000, strings.Repeat("水", 41))),
		newCase("trap12.no-answer", "An error of the suite's, which then does not answer the close.", "A close frame with 1002, and then the end of the connection.", mustFail(1002), func(s *session) {
			s.send(frame{fin: true, opcode: 3})
			s.await(s.patience, s.over)
			if !s.await(s.patience, func() bool { return s.ended != nil }) {
				s.decide(Failed, "the endpoint waits for an answer to its close frame for ever")
			}
		}),
	}
	for _, code := range []uint16{0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2999, 5000, 65535} {
		list = append(list, closing(fmt.Sprintf("trap12.code-%d", code), fmt.Sprintf("A close with code %d.", code), "A close frame with 1002.", closedByPeer(1002), codeOnly(code)))
	}
	for _, code := range []uint16{1000, 1001, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 4999} {
		expect := expects()
		expect.codes, expect.needsCode = []uint16{1000, code}, true
		list = append(list, closing(fmt.Sprintf("trap12.valid-%d", code), fmt.Sprintf("A close with code %d.", code), "It is answered with 1000 or the same code; a clean close.", expect, codeOnly(code)))
	}
	return list
}
