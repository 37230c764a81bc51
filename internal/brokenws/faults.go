package brokenws

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

func replacing(old, replacement string) func(string) string {
	return func(s string) string { return strings.Replace(s, old, replacement, 1) }
}

// ofClient names the case that notices f in a client, where the server's case does not:
// Autobahn judges by the echo a client that keeps the connection open and sends nothing
// more.
func ofClient(cs string, f Fault) Fault {
	f.client = cs
	return f
}

// handshakeFaults are mistakes in the opening handshake.
func handshakeFaults() []Fault {
	answers := func(name, old, replacement string) Fault {
		return Fault{Name: name, Case: "1.1.1", Only: old[0] != '1', set: func(q *quirks) { q.answer = replacing(old, replacement) }}
	}
	return []Fault{
		answers("answers with 200", "101 Switching Protocols", "200 OK"),
		answers("answers without Upgrade", "Upgrade: websocket\r\n", ""),
		answers("answers without Connection", "Connection: Upgrade\r\n", ""),
		answers("answers with a wrong Sec-WebSocket-Accept", "Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: x"),
		answers("answers without Sec-WebSocket-Accept", "Sec-WebSocket-Accept", "X-WebSocket-Accept"),
		answers("takes an extension that was not offered", "\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-bzip2\r\n\r\n"),
		{Name: "loses frames that come with the request", Case: "trap03.together", Only: true, set: func(q *quirks) { q.dropsEarly = true }},
		only("takes lines that end with LF alone", "trap02.bare-lf", func(q *quirks) { q.bareLF = true }),
		only("takes folded lines", "trap02.folded", func(q *quirks) { q.folded = true }),
		only("takes a space before a colon", "trap02.space-before-colon", func(q *quirks) { q.excuseLine = func(s string) bool { return strings.Contains(s, " :") } }),
		only("wants no Host", "trap02.no-host", func(q *quirks) { q.noHost = true }),
		only("ignores bodies", "trap02.content-length", func(q *quirks) { q.anyLength = true }),
		only("takes POST", "trap02.method", func(q *quirks) { q.anyMethod = true }),
		only("takes HTTP/1.0", "trap02.http-1.0", func(q *quirks) { q.anyVersion = true }),
		only("wants no Upgrade", "trap02.no-upgrade", func(q *quirks) { q.anyUpgrade = true }),
		only("wants no Connection", "trap02.no-connection", func(q *quirks) { q.anyConnection = true }),
		only("takes any version", "trap02.version-12", func(q *quirks) { q.anyWSVersion = true }),
		only("does not say which version would do", "trap02.version-0", func(q *quirks) { q.plain400 = true }),
		only("takes any key", "trap02.short-key", func(q *quirks) { q.anyKey = true }),
		only("wants header names as the standard writes them", "trap02.lower-case", func(q *quirks) { q.exactNames = true }),
		only("wants Connection in one line", "trap02.two-connections", func(q *quirks) { q.oneConnection = true }),
		only("takes no request of more than 512 bytes", "trap02.long-head", func(q *quirks) { q.maxHead = 512 }),
		only("has a time for each read of a request, not for all", "trap01.slow-handshake", func(q *quirks) { q.timePerRead = true }),
		only("waits for the rest of a request for ever", "trap01.half", func(q *quirks) { q.headTime = time.Hour }),
		only("waits for the first byte of a request for ever", "trap01.silent", func(q *quirks) { q.timeFromFirstByte = true }),
		only("takes any Origin", "trap11.foreign-origin", func(q *quirks) { q.anyOrigin = true }),
		only("takes heads of any length", "trap02.huge-head", func(q *quirks) { q.maxHead = 1 << 30 }),
		{Name: "sends a ping first", Case: "1.1.1", set: func(q *quirks) { q.greets = true }},
	}
}

// serverFaults are mistakes that only a server can make.
func serverFaults() []Fault {
	return []Fault{
		{Name: "unmasks with the mask reversed", Case: "1.2.3", set: func(q *quirks) {
			q.header = func(h *header) { slices.Reverse(h.mask[:]) }
		}},
		refusing("refuses masks of zeros", "trap10.zero-mask", func(_ *conn, h header) bool { return h.mask == [4]byte{} }),
		{Name: "leaves ending the TCP connection to the client", Case: "7.1.1", Only: true, set: func(q *quirks) { q.lingers = true }},
	}
}

// refusing returns a fault that fails the connection because of valid frames.
func refusing(name, cs string, f func(c *conn, h header) bool) Fault {
	return only(name, cs, func(q *quirks) { q.refuse = f })
}

// frameFaults are mistakes in reading and writing frames.
func frameFaults() []Fault {
	sending := func(name, cs string, f func(h *header, p *[]byte)) Fault {
		return Fault{Name: name, Case: cs, set: func(q *quirks) { q.sending = f }}
	}
	reading := func(name, cs string, f func(h *header)) Fault {
		return Fault{Name: name, Case: cs, set: func(q *quirks) { q.header = f }}
	}
	message := func(name, cs string, f func(c *conn, opcode byte, p []byte) error) Fault {
		return Fault{Name: name, Case: cs, set: func(q *quirks) { q.message = f }}
	}
	excuse := func(name, cs string, f func(h header) bool) Fault {
		return Fault{Name: name, Case: cs, set: func(q *quirks) { q.excuse = func(_ *conn, h header) bool { return f(h) } }}
	}
	list := []Fault{
		{Name: "masks its frames, or does not, as the other side must", Case: "1.1.2", Only: true, set: func(q *quirks) {
			q.sending = func(h *header, _ *[]byte) { h.masked = !h.masked }
		}},
		sending("sets RSV1 without an extension", "1.1.3", func(h *header, _ *[]byte) { h.rsv |= 4 }),
		{Name: "sets RSV3", Case: "1.2.2", Only: true, set: func(q *quirks) {
			q.sending = func(h *header, _ *[]byte) { h.rsv |= 1 }
		}},
		sending("never sets FIN on data", "1.1.4", func(h *header, _ *[]byte) { h.fin = h.fin && h.opcode >= opClose }),
		sending("cuts what is longer than 65535 bytes", "1.2.7", func(_ *header, p *[]byte) { *p = (*p)[:min(len(*p), 65535)] }),
		sending("sends data with a reserved opcode", "1.2.1", func(h *header, _ *[]byte) {
			if h.opcode < opClose {
				h.opcode = 5
			}
		}),
		{Name: "writes lengths longer than need be", Case: "1.1.5", Only: true, set: func(q *quirks) { q.longLengths = true }},
		{Name: "wants a whole header in one read", Case: "2.6", Only: true, set: func(q *quirks) { q.needsWhole = true }},
		reading("reads 16-bit lengths as signed", "1.1.6", func(h *header) {
			if h.length > 0x7fff && h.length <= 0xffff {
				h.length &= 0x7fff
			}
		}),
		reading("reads 64-bit lengths as 16-bit", "1.1.7", func(h *header) {
			if h.length > 0xffff {
				h.length &= 0xffff
			}
		}),
		message("echoes texts as binary", "1.1.2", func(c *conn, _ byte, p []byte) error { return c.echo(opBinary, p) }),
		message("echoes binary as text", "1.2.2", func(c *conn, _ byte, p []byte) error { return c.echo(opText, p) }),
		message("does not answer empty messages", "6.1.1", func(c *conn, opcode byte, p []byte) error {
			if len(p) == 0 {
				return nil
			}
			return c.echo(opcode, p)
		}),
		message("adds a NUL", "1.1.1", func(c *conn, opcode byte, p []byte) error { return c.echo(opcode, append(p, 0)) }),
		ofClient("trap07.opcode-3", excuse("ignores reserved opcodes for data", "4.1.1", func(h header) bool { return h.opcode > opBinary && h.opcode < opClose })),
		excuse("ignores opcode 7 with a payload", "4.1.5", func(h header) bool { return h.opcode == 7 }),
		ofClient("trap07.opcode-11", excuse("ignores reserved opcodes for control", "4.2.1", func(h header) bool { return h.opcode > opPong })),
		excuse("ignores opcode 15", "4.2.5", func(h header) bool { return h.opcode == 15 }),
		excuse("takes reserved bits in binary messages", "3.5", func(h header) bool { return h.rsv != 0 && h.opcode == opBinary }),
		{Name: "takes reserved bits in pings", Case: "trap07.rsv-ping", Only: true, set: func(q *quirks) {
			q.excuse = func(_ *conn, h header) bool { return h.rsv != 0 && h.opcode == opPing }
		}},
		{Name: "takes reserved bits in close frames", Case: "3.7", set: func(q *quirks) {
			q.excuse = func(_ *conn, h header) bool { return h.opcode == opClose }
			q.close = func(c *conn, _ []byte) error { return answerClose(c, []byte{0x03, 0xe8}) }
		}},
		{Name: "takes frames that are masked as its own", Case: "trap10.mask", Only: true, set: func(q *quirks) {
			q.excuse = func(c *conn, h header) bool { return h.masked == c.client && h.rsv == 0 && h.opcode <= opBinary }
		}},
		{Name: "ignores the top bit of a length", Case: "trap04.top-bit", Only: true, set: func(q *quirks) {
			q.header, q.takesLong = func(h *header) { h.length &^= 1 << 63 }, func(int, uint64) bool { return true }
		}},
		{Name: "takes lengths longer than need be", Case: "trap04.non-minimal-16", Only: true, set: func(q *quirks) {
			q.takesLong = func(size int, _ uint64) bool { return size == 2 }
		}},
		only("loses every second of messages that arrive together", "trap03.six", func(q *quirks) {
			q.message = func(c *conn, opcode byte, p []byte) error {
				if c.messages%2 == 0 && c.r.Buffered() > 0 {
					return nil
				}
				return c.echo(opcode, p)
			}
		}),
		{Name: "drops the connection without a close frame", Case: "trap07.opcode-3", Only: true, set: func(q *quirks) { q.dropsSilently = true }},
	}
	for rsv := byte(1); rsv <= 4; rsv++ {
		list = append(list, excuse(fmt.Sprintf("takes RSV %d in texts", rsv), fmt.Sprintf("3.%d", rsv), func(h header) bool { return h.rsv == rsv && h.opcode == opText }))
	}
	return list
}

// pingFaults are mistakes in answering pings and pongs.
func pingFaults() []Fault {
	ping := func(name, cs string, f func(c *conn, p []byte) error) Fault {
		return Fault{Name: name, Case: cs, set: func(q *quirks) { q.ping = f }}
	}
	pongWith := func(c *conn, p []byte) error { return c.send(header{fin: true, opcode: opPong}, p) }
	return []Fault{
		ping("does not answer pings", "2.1", func(*conn, []byte) error { return nil }),
		ping("answers pings without their payload", "2.2", func(c *conn, _ []byte) error { return pongWith(c, nil) }),
		ping("answers pings with a text", "2.3", func(c *conn, p []byte) error { return pongWith(c, bytes.ToValidUTF8(p, []byte("?"))) }),
		ping("cuts a pong's payload at 124 bytes", "2.4", func(c *conn, p []byte) error { return pongWith(c, p[:min(len(p), 124)]) }),
		ping("answers a ping with a ping", "2.9", func(c *conn, p []byte) error { return c.send(header{fin: true, opcode: opPing}, p) }),
		ping("answers every second ping", "2.10", func(c *conn, p []byte) error {
			if c.messages++; c.messages%2 == 0 {
				return nil
			}
			return pongWith(c, p)
		}),
		ping("answers a ping when the message is complete", "5.19", func(c *conn, p []byte) error {
			c.note = append(c.note, p...)
			if c.open.opcode == 0 {
				return pongWith(c, p)
			}
			return nil
		}),
		ping("forgets the open message when a ping comes", "5.6", func(c *conn, p []byte) error {
			c.open.payload = nil
			return pongWith(c, p)
		}),
		{Name: "answers pongs", Case: "2.7", set: func(q *quirks) { q.pong = pongWith }},
		{Name: "closes when a pong comes that it did not ask for", Case: "2.8", set: func(q *quirks) {
			q.pong = func(*conn, []byte) error { return protocolError }
		}},
		{Name: "takes pings of more than 125 bytes", Case: "2.5", set: func(q *quirks) {
			q.excuse = func(_ *conn, h header) bool { return h.opcode == opPing && h.length > 125 && h.fin && h.rsv == 0 }
		}},
	}
}

// fragmentFaults are mistakes in assembling fragmented messages.
func fragmentFaults() []Fault {
	excuse := func(name, cs string, f func(c *conn, h header) bool) Fault {
		return Fault{Name: name, Case: cs, set: func(q *quirks) { q.excuse = f }}
	}
	stray := func(h header, c *conn) bool { return h.opcode == opContinuation && c.open.opcode == 0 }
	return []Fault{
		refusing("refuses pongs inside a message", "trap05.pong-inside", func(c *conn, h header) bool { return h.opcode == opPong && c.open.opcode != 0 }),
		refusing("refuses pings inside a binary message", "trap05.ping-inside-binary", func(c *conn, h header) bool { return h.opcode == opPing && c.open.opcode == opBinary }),
		{Name: "echoes each fragment", Case: "5.3", set: func(q *quirks) { q.perFragment = true }},
		excuse("takes fragmented pings", "5.1", func(_ *conn, h header) bool { return h.opcode == opPing && !h.fin || h.opcode == opContinuation }),
		ofClient("trap07.fragmented-pong", excuse("takes fragmented pongs", "5.2", func(_ *conn, h header) bool { return h.opcode == opPong && !h.fin || h.opcode == opContinuation })),
		excuse("ignores a continuation of nothing with FIN", "5.9", func(c *conn, h header) bool { return stray(h, c) && h.fin }),
		excuse("ignores a continuation of nothing without FIN", "5.12", func(c *conn, h header) bool { return stray(h, c) && !h.fin }),
		excuse("ignores a continuation after a message", "5.15", func(c *conn, h header) bool { return stray(h, c) && c.messages > 0 }),
		excuse("takes a new message inside a fragmented one", "5.18", func(c *conn, h header) bool {
			return c.open.opcode != 0 && (h.opcode == opText || h.opcode == opBinary)
		}),
	}
}

// utf8Faults are mistakes in checking texts.
func utf8Faults() []Fault {
	return []Fault{
		with("does not check UTF-8", "6.3.1", func(q *quirks) { q.noUTF8 = true }),
		with("does not check UTF-8 across fragments", "6.3.2", func(q *quirks) { q.noUTF8 = true }),
		with("checks UTF-8 a fragment at a time", "6.2.3", func(q *quirks) { q.utf8PerFragment = true }),
		with("checks UTF-8 only when the message is complete", "6.4.1", func(q *quirks) { q.lateUTF8 = true }),
		with("checks UTF-8 only when the frame is complete", "6.4.3", func(q *quirks) { q.lateUTF8 = true }),
		with("answers bad UTF-8 with 1002", "6.6.1", func(q *quirks) { q.utf8Code = 1002 }),
		with("takes surrogates", "6.20.1", func(q *quirks) { q.surrogates = true }),
		with("takes pairs of surrogates", "6.21.1", func(q *quirks) { q.surrogates = true }),
		with("takes overlong encodings", "6.17.1", func(q *quirks) { q.overlong = true }),
		with("takes code points beyond U+10FFFF", "6.11.5", func(q *quirks) { q.beyond = true }),
		with("takes sequences of five bytes", "6.8.1", func(q *quirks) { q.longUTF8 = true }),
		with("takes texts that end inside a character", "6.6.3", func(q *quirks) { q.unfinishedUTF8 = true }),
		with("refuses U+0000", "6.7.1", func(q *quirks) { q.refuseNUL = true }),
		// kosoku encodes the payloads of its text cases from 6.5 on twice, so these
		// characters never reach the endpoint.
		{Name: "refuses non-characters", Case: "6.22.1", Only: true, set: func(q *quirks) { q.refuseNonCharacters = true }},
		only("checks UTF-8 in the first 64 KiB of a frame", "trap09.far", func(q *quirks) { q.utf8Until = 1 << 16 }),
		with("repairs bad UTF-8", "6.12.1", func(q *quirks) {
			q.noUTF8 = true
			q.message = func(c *conn, opcode byte, p []byte) error {
				if opcode == opText && !utf8.Valid(p) {
					p = bytes.ToValidUTF8(p, []byte("\ufffd"))
				}
				return c.echo(opcode, p)
			}
		}),
	}
}

func answerClose(c *conn, p []byte) error {
	if err := c.send(header{fin: true, opcode: opClose}, p); err != nil {
		return err
	}
	return errClosed
}

// closeFaults are mistakes in the closing handshake.
func closeFaults() []Fault {
	list := []Fault{
		with("does not answer a close", "7.3.3", func(q *quirks) { q.close = func(*conn, []byte) error { return errClosed } }),
		with("answers a ping after a close", "7.1.3", goesOn(opPing, opPong)),
		with("echoes a text after a close", "7.1.4", goesOn(opText, opText)),
		with("completes a message after a close", "7.1.5", goesOn(opContinuation, opText)),
		with("answers an empty close with 1005", "7.3.1", func(q *quirks) {
			q.close = func(c *conn, p []byte) error {
				if len(p) == 0 {
					p = []byte{0x03, 0xed}
				}
				return answerClose(c, p[:2])
			}
		}),
		with("answers every close with 1000", "7.9.1", func(q *quirks) {
			q.close = func(c *conn, _ []byte) error { return answerClose(c, []byte{0x03, 0xe8}) }
		}),
		with("answers every close with 1001", "7.3.4", func(q *quirks) {
			q.close = func(c *conn, _ []byte) error { return answerClose(c, []byte{0x03, 0xe9}) }
		}),
		with("takes a close of one byte", "7.3.2", func(q *quirks) {
			q.shortClose = true
			q.close = func(c *conn, p []byte) error {
				if len(p) == 1 {
					return answerClose(c, []byte{0x03, 0xe8})
				}
				return answerClose(c, p[:min(2, len(p))])
			}
		}),
		with("takes a close of more than 125 bytes", "7.3.6", func(q *quirks) {
			q.excuse = func(_ *conn, h header) bool { return h.opcode == opClose && h.length > 125 }
		}),
		with("echoes a close reason that is not UTF-8", "7.5.1", func(q *quirks) {
			q.closeUTF8 = true
			q.close = func(c *conn, p []byte) error {
				if len(p) > 2 {
					return answerClose(c, p[:2])
				}
				if fail, ok := checkClose(p, q); !ok {
					return &failure{fail}
				}
				return nil
			}
		}),
		with("refuses codes of applications", "7.7.12", func(q *quirks) { q.refuseCodes = []uint16{4000} }),
		with("refuses codes of libraries", "7.7.10", func(q *quirks) { q.refuseCodes = []uint16{3000} }),
		with("refuses 1011", "7.7.9", func(q *quirks) { q.refuseCodes = []uint16{1011} }),
		only("refuses reasons that are not ASCII", "trap12.reason", func(q *quirks) {
			q.close = func(c *conn, p []byte) error {
				if bytes.ContainsFunc(p[min(2, len(p)):], func(r rune) bool { return r > 0x7f }) {
					return notUTF8
				}
				return nil
			}
		}),
		only("sends a text after its close frame", "trap12.after-close", func(q *quirks) { q.talksOn = true }),
		only("sends a text after the close frame that it fails a connection with", "trap12.no-answer", func(q *quirks) { q.talksOn = true }),
		{Name: "refuses 1012", Case: "trap12.valid-1012", Only: true, set: func(q *quirks) { q.refuseCodes = []uint16{1012} }},
		{Name: "takes 1015", Case: "trap12.code-1015", Only: true, set: func(q *quirks) { q.acceptCodes = []uint16{1015} }},
		{Name: "takes 5000", Case: "trap12.code-5000", Only: true, set: func(q *quirks) { q.acceptCodes = []uint16{5000} }},
	}
	for i, code := range []uint16{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999} {
		list = append(list, with(fmt.Sprintf("takes close code %d", code), fmt.Sprintf("7.9.%d", i+1), func(q *quirks) { q.acceptCodes = []uint16{code} }))
	}
	return list
}

// limitFaults are mistakes with large messages and with many of them.
func limitFaults() []Fault {
	return []Fault{
		{Name: "takes no more than 1 MiB", Case: "9.1.4", set: func(q *quirks) { q.maxMessage = 1 << 20 }},
		only("answers without end", "trap12.after-close", func(q *quirks) {
			q.message = func(c *conn, _ byte, _ []byte) error {
				for p := make([]byte, 1<<20); ; {
					if err := c.echo(opBinary, p); err != nil {
						return err
					}
				}
			}
		}),
		only("sends pongs without end", "trap12.after-close", func(q *quirks) {
			q.message = func(c *conn, _ byte, _ []byte) error {
				for {
					if err := c.send(header{fin: true, opcode: opPong}, nil); err != nil {
						return err
					}
				}
			}
		}),
		{Name: "takes no more than 8 MiB", Case: "9.2.6", set: func(q *quirks) { q.maxMessage = 8 << 20 }},
		{Name: "takes no more than 10,000 fragments", Case: "9.4.1", set: func(q *quirks) { q.maxFragments = 10000 }},
		{Name: "takes no more than 32 fragments", Case: "10.1.1", set: func(q *quirks) { q.maxFragments = 32 }},
		{Name: "loses a byte of large messages", Case: "9.2.3", set: func(q *quirks) {
			q.message = func(c *conn, opcode byte, p []byte) error {
				if len(p) >= 1<<20 {
					p = p[1:]
				}
				return c.echo(opcode, p)
			}
		}},
		{Name: "closes after 899 messages", Case: "9.8.2", set: func(q *quirks) {
			q.message = func(c *conn, opcode byte, p []byte) error {
				if c.messages == 900 {
					return &failure{1008}
				}
				return c.echo(opcode, p)
			}
		}},
		{Name: "spoils the 900th message", Case: "9.7.2", Only: true, set: func(q *quirks) {
			q.message = func(c *conn, opcode byte, p []byte) error {
				if c.messages == 900 {
					p = bytes.Repeat([]byte("x"), len(p))
				}
				return c.echo(opcode, p)
			}
		}},
	}
}

// deflateFaults are mistakes in permessage-deflate.
func deflateFaults() []Fault {
	return []Fault{
		with("does no compression", "12.1.1", func(q *quirks) { q.noDeflate = true }),
		with("forgets what it inflated before", "12.1.4", func(q *quirks) { q.forgets = true }),
		refusing("refuses pings inside a compressed message", "trap08.ping-inside", func(c *conn, h header) bool { return h.opcode == opPing && c.open.compressed }),
		refusing("refuses pongs inside a compressed message", "trap08.pong-inside", func(c *conn, h header) bool { return h.opcode == opPong && c.open.compressed }),
		refusing("refuses an empty end of a compressed message", "trap08.empty-last", func(c *conn, h header) bool {
			return h.opcode == opContinuation && h.length == 0 && h.fin && c.open.compressed
		}),
		with("sets RSV1 on what it does not compress", "12.2.1", func(q *quirks) {
			q.message = func(c *conn, opcode byte, p []byte) error {
				rsv := byte(0)
				if c.deflate != nil {
					rsv = 4
				}
				return c.send(header{fin: true, rsv: rsv, opcode: opcode}, p)
			}
		}),
		with("does not set RSV1 on what it compresses", "12.3.1", func(q *quirks) {
			q.message = func(c *conn, opcode byte, p []byte) error {
				if c.deflate != nil {
					p = c.deflate.compress(p)
				}
				return c.send(header{fin: true, opcode: opcode}, p)
			}
		}),
		only("looks back further than the window it agreed to", "13.3.4", func(q *quirks) { q.wideWindow = true }),
		with("looks back to before the first message", "12.1.5", func(q *quirks) { q.stale = bytes.Repeat([]byte(`"active": true, "balance": `), 40) }),
	}
}

// serverDeflateFaults are mistakes in a server's answers to offers.
func serverDeflateFaults() []Fault {
	return []Fault{
		only("looks back further than that, without context", "13.5.5", func(q *quirks) { q.wideWindow = true }),
		only("answers window bits of 16", "13.3.1", func(q *quirks) {
			q.answer = replacing("server_max_window_bits=9", "server_max_window_bits=16")
		}),
		only("does not promise server_max_window_bits", "trap08.answers-bits", func(q *quirks) { q.answer = replacing("; server_max_window_bits=9", "") }),
		only("does not promise server_no_context_takeover", "trap08.answers-no-context", func(q *quirks) { q.answer = replacing("; server_no_context_takeover", "") }),
		only("answers more window bits than were offered", "trap08.answers-both", func(q *quirks) { q.answer = replacing("window_bits=9", "window_bits=10") }),
		only("repeats a parameter", "13.2.1", func(q *quirks) {
			q.answer = replacing("server_no_context_takeover", "server_no_context_takeover; server_no_context_takeover")
		}),
		only("answers a parameter that does not exist", "13.1.1", func(q *quirks) {
			q.answer = replacing("permessage-deflate", "permessage-deflate; window=9")
		}),
		{Name: "takes offers that are wrong", Case: "trap08.offer-twice", Only: true, set: func(q *quirks) { q.takesBadOffers = true }},
	}
}
