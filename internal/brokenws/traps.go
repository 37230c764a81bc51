package brokenws

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Faults for the cases that Autobahn does not have, by their number.

// excusing returns a fault that accepts invalid frames.
func excusing(name, cs string, f func(c *conn, h header) bool) Fault {
	return only(name, cs, func(q *quirks) { q.excuse = f })
}

// trapFaults are mistakes of servers and clients.
func trapFaults() []Fault {
	return slices.Concat(lengthFaults(), assemblyFaults(), controlFaults(), inflateFaults(), textFaults(), codeFaults())
}

// lengthFaults are mistakes of lines 4 and 5.
func lengthFaults() []Fault {
	long := func(name, cs string, f func(size int, n uint64) bool) Fault {
		return only(name, cs, func(q *quirks) { q.takesLong = f })
	}
	return []Fault{
		only("waits for 2^64-1 bytes", "trap04.all-bits", func(q *quirks) {
			q.maxMessage, q.header = 0, func(h *header) { h.length &^= 1 << 63 }
		}),
		only("waits for 2^62 bytes", "trap04.announced", func(q *quirks) { q.maxMessage = 0 }),
		long("takes a length in eight bytes that needs one", "trap04.non-minimal-64", func(size int, n uint64) bool { return size == 8 && n < 126 }),
		long("takes a length in eight bytes that needs two", "trap04.non-minimal-64-of-16", func(size int, n uint64) bool { return size == 8 && n >= 126 }),
		only("takes a byte less than it says", "trap05.at-limit", func(q *quirks) { q.maxMessage-- }),
		only("takes a byte more than it says", "trap05.frame-over-limit", func(q *quirks) { q.maxMessage++ }),
		only("limits frames, not messages", "trap05.fragments-over-limit", func(q *quirks) { q.limitsFrames = true }),
	}
}

// assemblyFaults are mistakes of lines 5 and 15.
func assemblyFaults() []Fault {
	return []Fault{
		only("loses the 500th message", "trap03.burst", func(q *quirks) {
			q.message = func(c *conn, opcode byte, p []byte) error {
				if c.messages == 500 {
					return nil
				}
				return c.echo(opcode, p)
			}
		}),
		only("drops who sends 10,000 fragments", "trap05.empty-fragments", func(q *quirks) { q.maxFragments, q.dropsSilently = 10_000, true }),
		excusing("ignores a continuation of nothing", "trap05.stray-continuation", func(c *conn, h header) bool { return h.opcode == opContinuation && c.open.opcode == 0 }),
		excusing("forgets an open message when a new one comes", "trap05.new-inside", func(c *conn, h header) bool {
			return c.open.opcode != 0 && (h.opcode == opText || h.opcode == opBinary)
		}),
		only("wants a whole header at once", "trap15.slowly", func(q *quirks) { q.needsWhole = true }),
	}
}

// controlFaults are mistakes of line 7.
func controlFaults() (list []Fault) {
	for opcode, name := range map[byte]string{opClose: "close", opPing: "ping", opPong: "pong"} {
		list = append(list,
			excusing("takes a "+name+" of 126 bytes", "trap07.long-"+name, func(_ *conn, h header) bool { return h.opcode == opcode && h.length == 126 }),
			excusing("takes a "+name+" without FIN", "trap07.fragmented-"+name, func(_ *conn, h header) bool { return h.opcode == opcode && !h.fin }))
	}
	for _, opcode := range []byte{4, 5, 6, 7, 11, 12, 13, 14, 15} {
		list = append(list, excusing(fmt.Sprintf("ignores frames with opcode %d", opcode), fmt.Sprintf("trap07.opcode-%d", opcode), func(_ *conn, h header) bool { return h.opcode == opcode }))
	}
	for bit, n := range map[byte]int{4: 1, 2: 2, 1: 3} {
		list = append(list, excusing(fmt.Sprintf("ignores RSV%d", n), fmt.Sprintf("trap07.rsv%d", n), func(_ *conn, h header) bool { return h.rsv == bit }))
	}
	return append(list, excusing("takes reserved bits in pongs", "trap07.rsv-pong", func(_ *conn, h header) bool { return h.rsv != 0 && h.opcode == opPong }))
}

// inflateFaults are mistakes of line 8.
func inflateFaults() []Fault {
	data := func(name, cs string, f func(p []byte) ([]byte, error)) Fault {
		return only(name, cs, func(q *quirks) { q.data = f })
	}
	refusingData := func(name, cs string, f func(p []byte) bool) Fault {
		return data(name, cs, func(p []byte) ([]byte, error) {
			if f(p) {
				return nil, notUTF8
			}
			return p, nil
		})
	}
	rsv1 := func(name, cs string, opcode byte) Fault {
		return excusing(name, cs, func(_ *conn, h header) bool { return h.rsv == 4 && h.opcode == opcode })
	}
	flush := []byte("\x00\x00\xff\xff")
	return []Fault{
		only("inflates without the end that is left out", "trap08.rfc-one-block", func(q *quirks) { q.noTail = true }),
		refusing("refuses compressed messages in fragments", "trap08.rfc-fragments", func(c *conn, h header) bool { return h.opcode == opContinuation && c.open.compressed }),
		refusingData("refuses blocks that are not compressed", "trap08.rfc-stored", func(p []byte) bool { return len(p) > 1 && p[0]&6 == 0 }),
		refusingData("refuses a block with BFINAL", "trap08.rfc-final", func(p []byte) bool { return p[0]&1 != 0 }),
		data("inflates as far as the first flush", "trap08.rfc-two-blocks", func(p []byte) ([]byte, error) {
			p, _, _ = bytes.Cut(p, flush)
			return p, nil
		}),
		only("forgets the message before", "trap08.rfc-context", func(q *quirks) { q.forgets = true }),
		only("remembers no more than 1 KiB", "trap08.takeover", func(q *quirks) { q.remembers = 1 << 10 }),
		refusing("wants every message compressed", "trap08.not-compressed", func(c *conn, h header) bool {
			return c.deflate != nil && h.rsv == 0 && (h.opcode == opText || h.opcode == opBinary)
		}),
		refusingData("refuses an empty message, compressed", "trap08.empty", func(p []byte) bool { return len(p) == 1 }),
		rsv1("ignores RSV1 of a ping", "trap08.rsv1-ping", opPing),
		rsv1("ignores RSV1 of a close", "trap08.rsv1-close", opClose),
		rsv1("ignores RSV1 of a continuation", "trap08.rsv1-continuation", opContinuation),
		excusing("ignores RSV2 of a compressed message", "trap08.rsv2", func(_ *conn, h header) bool { return h.rsv == 6 }),
		only("answers what does not inflate", "trap08.corrupt", func(q *quirks) { q.takesAnyData = true }),
		only("has a window of zeros to begin with", "trap08.before-beginning", func(q *quirks) { q.zeroWindow = true }),
		only("limits what is compressed, not what it inflates", "trap08.bomb", func(q *quirks) { q.inflatesAll = true }),
		only("does not check UTF-8 in what it inflates", "trap09.inflated", func(q *quirks) { q.inflatedUTF8 = true }),
	}
}

// textFaults are mistakes of line 9.
func textFaults() []Fault {
	return []Fault{
		only("checks UTF-8 in the first 64 KiB of what it inflates", "trap09.inflated-far", func(q *quirks) { q.utf8Until = 1 << 16 }),
		only("checks UTF-8 4 KiB at a time", "trap09.wide", func(q *quirks) {
			q.message = func(c *conn, opcode byte, p []byte) error {
				for block := range slices.Chunk(p, 4<<10) {
					if opcode == opText && !utf8.Valid(block) {
						return notUTF8
					}
				}
				return c.echo(opcode, p)
			}
		}),
		only("looks at a text when all of it is there", "trap09.first-byte", func(q *quirks) { q.lateUTF8 = true }),
		only("looks at a text of fragments when all of it is there", "trap09.fragments", func(q *quirks) { q.lateUTF8 = true }),
		only("takes a text that ends inside a character", "trap09.unfinished", func(q *quirks) { q.unfinishedUTF8 = true }),
		only("does not look at close reasons", "trap09.close-reason", func(q *quirks) { q.closeUTF8 = true }),
	}
}

// codeFaults are mistakes of line 12.
func codeFaults() []Fault {
	list := []Fault{
		only("answers a close of one byte with 1000", "trap12.one-byte", func(q *quirks) {
			q.close = func(c *conn, p []byte) error {
				if len(p) == 1 {
					p = []byte{0x03, 0xe8}
				}
				return answerClose(c, p[:min(2, len(p))])
			}
		}),
		only("answers a text that comes after a close", "trap12.data-after", goesOn(opText, opText)),
		only("refuses a close of 125 bytes", "trap12.long-reason", func(q *quirks) {
			q.refuse = func(_ *conn, h header) bool { return h.opcode == opClose && h.length == 125 }
		}),
	}
	for _, code := range []uint16{0, 1, 999, 1004, 1005, 1006, 1016, 1999, 2999, 65535} {
		list = append(list, only(fmt.Sprintf("answers close code %d as if it were good", code), fmt.Sprintf("trap12.code-%d", code), func(q *quirks) { q.acceptCodes = []uint16{code} }))
	}
	for _, code := range []uint16{1000, 1001, 1003, 1007, 1011, 1013, 1014, 3000, 4999} {
		list = append(list, only(fmt.Sprintf("refuses close code %d", code), fmt.Sprintf("trap12.valid-%d", code), func(q *quirks) { q.refuseCodes = []uint16{code} }))
	}
	return list
}

// serverTrapFaults are mistakes that only a server can make.
func serverTrapFaults() []Fault {
	key := func(name, cs string, good func(keys []string) bool) Fault {
		return only(name, cs, func(q *quirks) { q.goodKey = good })
	}
	decodes := func(s string) int {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return -1
		}
		return len(b)
	}
	origin := func(name, cs string, good func(origin, host string) bool) Fault {
		return only(name, cs, func(q *quirks) { q.goodOrigin = good })
	}
	list := []Fault{
		only("takes lines of any length", "trap02.endless-line", func(q *quirks) { q.maxHead = 1 << 30 }),
		only("takes one line that ends with LF alone", "trap02.one-bare-lf", func(q *quirks) { q.bareLF = true }),
		only("ignores a folded line before the headers", "trap02.folded-first", func(q *quirks) { q.folded = true }),
		only("takes a line without a colon", "trap02.no-colon", func(q *quirks) { q.excuseLine = func(s string) bool { return !strings.Contains(s, ":") } }),
		only("takes a header without a name", "trap02.empty-name", func(q *quirks) { q.excuseLine = func(s string) bool { return s[0] == ':' } }),
		only("takes two Hosts", "trap02.two-hosts", func(q *quirks) { q.noHost = true }),
		only("takes two Content-Lengths", "trap02.two-content-lengths", func(q *quirks) { q.anyLength = true }),
		only("ignores Transfer-Encoding", "trap02.transfer-encoding", func(q *quirks) { q.anyLength = true }),
		only("takes any Upgrade", "trap02.other-upgrade", func(q *quirks) { q.anyUpgrade = true }),
		only("takes any Connection", "trap02.keep-alive", func(q *quirks) { q.anyConnection = true }),
		only("wants no version", "trap02.no-version", func(q *quirks) { q.anyWSVersion = true }),
		only("wants Upgrade and Connection word for word", "trap02.tokens", func(q *quirks) { q.exactTokens = true }),
		key("takes a request without a key", "trap02.no-key", func(keys []string) bool { return len(keys) == 0 }),
		key("takes keys of more than 16 bytes", "trap02.long-key", func(keys []string) bool { return len(keys) == 1 && decodes(keys[0]) >= 16 }),
		key("takes keys that are not base64", "trap02.bad-key", func(keys []string) bool { return len(keys) == 1 && len(keys[0]) == 24 }),
		key("takes the first of two keys", "trap02.two-keys", func(keys []string) bool { return len(keys) > 0 && decodes(keys[0]) == 16 }),
		only("does not answer what it refuses", "trap02.garbage", func(q *quirks) { q.hangs = true }),
		only("repeats a subprotocol as it came", "trap02.subprotocol-injection", func(q *quirks) { q.echoesProtocol = true }),
		only("wants a request in one read", "trap03.bytewise", func(q *quirks) { q.needsWholeHead = true }),
		only("loses half a frame that comes with the request", "trap03.half", func(q *quirks) { q.dropsEarly = true }),
		only("answers pings of a flood with another's payload", "trap06.ping-flood", func(q *quirks) {
			q.ping = func(c *conn, p []byte) error {
				if c.messages++; c.messages%100 == 0 {
					p = c.note
				}
				c.note = p
				return c.send(header{fin: true, opcode: opPong}, p)
			}
		}),
		origin("takes Origins that begin as the host does", "trap11.similar-origin", func(origin, host string) bool { return strings.HasPrefix(origin, "http://"+host) }),
		origin("takes the Origin null", "trap11.null-origin", func(origin, _ string) bool { return origin == "null" }),
		origin("refuses every Origin", "trap11.same-origin", func(string, string) bool { return false }),
		only("serves no more than 100 connections", "trap14.half-frames", func(q *quirks) { q.slots = make(chan struct{}, 100) }),
		only("sends to one connection at a time", "trap14.never-read", func(q *quirks) { q.sender = &sync.Mutex{} }),
	}
	for _, id := range []string{"unknown", "bits-7", "bits-16", "bits-zero", "bits-none", "client-bits-7", "client-text", "flag-value", "server-value"} {
		list = append(list, only("takes the offer "+id, "trap08.offer-"+id, func(q *quirks) { q.takesBadOffers = true }))
	}
	return list
}

// goesOn makes the echo answer one more frame before it answers a close frame.
func goesOn(opcode, reply byte) func(q *quirks) {
	return func(q *quirks) {
		q.close = func(c *conn, p []byte) error {
			_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			if h, err := c.readHeader(); err == nil && h.opcode == opcode {
				if p, err := c.readAll(h); err == nil {
					_ = c.send(header{fin: true, opcode: reply}, p)
				}
			}
			return answerClose(c, p[:min(2, len(p))])
		}
	}
}
