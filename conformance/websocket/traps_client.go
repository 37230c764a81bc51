package websocket

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"
)

// clientTraps returns the client's cases that Autobahn does not have.
func clientTraps(o Options) (list []fuzzCase, err error) {
	var all []fuzzCase
	for _, c := range frameTraps(o) {
		all = append(all, fuzzCase{c.ID, c.Description, c.Expectation, func(f *Fuzzer, conn net.Conn, br *bufio.Reader, hello clientHello, r *Result) {
			f.runCase(c, conn, br, hello, r)
		}})
	}
	for _, c := range slices.Concat(all, answerTraps(), maskTraps()) {
		ok, err := selected(c.id, o.Include, o.Exclude)
		if err != nil {
			return nil, err
		}
		if ok {
			list = append(list, c)
		}
	}
	return list, nil
}

// answerTraps are the cases of lines 2, 3 and 8 for a client: invalid answers, after
// which it must end the connection, and valid ones that look odd.
func answerTraps() []fuzzCase {
	bad := func(id, what string, spoil func(hello clientHello) string) fuzzCase {
		return fuzzCase{id, what, "The client ends the connection.", func(f *Fuzzer, conn net.Conn, br *bufio.Reader, hello clientHello, r *Result) {
			r.Closing, r.ClosingWhy = CloseOK, "closed as it should be"
			raw := spoil(hello)
			r.Response = raw[:min(len(raw), 4096)]
			_ = conn.SetDeadline(time.Now().Add(f.options.Patience))
			sent := make(chan error, 1)
			go func() {
				_, err := io.WriteString(conn, raw+string(text(hello2).append(nil, false)))
				sent <- err
			}()
			n, err := io.Copy(io.Discard, br)
			switch {
			case isTimeout(err):
				r.Behavior, r.Why = Failed, "the connection stays open"
			case n > 16: // more than a close frame, so it is the echo
				r.Behavior, r.Why = Failed, fmt.Sprintf("the client still uses the connection: it sent %d bytes", n)
			default:
				r.Behavior, r.Why = OK, "the client ended the connection"
			}
			_ = conn.Close()
			<-sent
		}}
	}
	good := func(id, what string, answer func(hello clientHello) string) fuzzCase {
		return fuzzCase{id, what, "A text after it comes back; a clean close.", func(f *Fuzzer, conn net.Conn, br *bufio.Reader, hello clientHello, r *Result) {
			r.Response = answer(hello)
			if _, err := io.WriteString(conn, r.Response+string(text(hello2).append(nil, false))); err != nil {
				r.Behavior, r.Closing, r.Why = Failed, CloseFailed, err.Error()
				return
			}
			c := Case{strict: true, expect: expects(gotText(hello2)), run: (*session).closeAfter}
			play(f.ctx, newSession(conn, br, true, nil), c, f.options, r)
		}}
	}
	replace := func(old, replacement string) func(hello clientHello) string {
		return func(hello clientHello) string { return strings.Replace(hello.answer(""), old, replacement, 1) }
	}
	extensions := func(s string) func(hello clientHello) string {
		return func(hello clientHello) string { return hello.answer(s) }
	}
	return []fuzzCase{
		bad("trap02.answer-200", "An answer with status 200.", replace("101 Switching Protocols", "200 OK")),
		bad("trap02.answer-400", "An answer with status 400.", replace("101 Switching Protocols", "400 Bad Request")),
		bad("trap02.answer-no-upgrade", "An answer without Upgrade.", replace("Upgrade: websocket\r\n", "")),
		bad("trap02.answer-no-connection", "An answer without Connection.", replace("Connection: Upgrade\r\n", "")),
		bad("trap02.answer-wrong-accept", "An answer with another key's Sec-WebSocket-Accept.", func(hello clientHello) string {
			hello.key = newKey()
			return hello.answer("")
		}),
		bad("trap02.answer-no-accept", "An answer without Sec-WebSocket-Accept.", replace("Sec-WebSocket-Accept", "X-Accept")),
		bad("trap02.answer-subprotocol", "An answer with a subprotocol that was not asked for.", replace("Connection:", "Sec-WebSocket-Protocol: chat\r\nConnection:")),
		bad("trap02.answer-bare-lf", "An answer whose lines end with LF alone.", func(hello clientHello) string { return strings.ReplaceAll(hello.answer(""), "\r\n", "\n") }),
		bad("trap02.answer-endless", "An answer with a line of 20 MB.", func(hello clientHello) string {
			return replace("Connection:", "X-Filler: "+strings.Repeat("x", 20_000_000)+"\r\nConnection:")(hello)
		}),
		bad("trap02.answer-garbage", "An answer that is not HTTP.", func(clientHello) string { return "SSH-2.0-OpenSSH_9.6\r\n\r\n" }),
		bad("trap08.answer-unknown-extension", "An extension that was not offered.", extensions("permessage-bzip2")),
		bad("trap08.answer-unknown-parameter", "A parameter that does not exist.", extensions(extension+"; frobnicate")),
		bad("trap08.answer-twice", "A parameter twice.", extensions(extension+"; server_no_context_takeover; server_no_context_takeover")),
		bad("trap08.answer-bits-16", "server_max_window_bits=16.", extensions(extension+"; server_max_window_bits=16")),
		bad("trap08.answer-bits-7", "client_max_window_bits=7.", extensions(extension+"; client_max_window_bits=7")),
		bad("trap08.answer-two", "The extension twice.", extensions(extension+", "+extension)),
		good("trap03.together", "A text in the same segment as the answer.", extensions("")),
		good("trap02.answer-lower-case", "An answer with header names in lower case.", func(hello clientHello) string {
			lines := strings.Split(hello.answer(""), "\r\n")
			for i, line := range lines[1:] {
				name, value, ok := strings.Cut(line, ":")
				if ok {
					lines[1+i] = strings.ToLower(name) + ":" + value
				}
			}
			return strings.Join(lines, "\r\n")
		}),
		good("trap02.answer-two-connections", "An answer with a Connection in two lines.", replace("Connection:", "Connection: keep-alive\r\nConnection:")),
		good("trap02.answer-long", "An answer that sets a cookie as long as browsers take them.", replace("Connection:", "Set-Cookie: "+longCookie+"\r\nConnection:")),
	}
}

// maskTraps are the cases about the masks and keys of line 10, which a client must
// choose anew (RFC 6455 sections 4.1 and 5.3). The cases "again" are two, so that the
// second sees the values of the first.
func maskTraps() (list []fuzzCase) {
	var texts []frame
	var events []event
	for i := range 8 {
		s := fmt.Sprintf("%s %d", hello2, i)
		texts, events = append(texts, text(s)), append(events, gotText(s))
	}
	add := func(id, what string, judge func(f *Fuzzer, hello clientHello, masks []uint32) (wrong string)) {
		const expectation = "All come back; a clean close."
		list = append(list, fuzzCase{id, what, expectation, func(f *Fuzzer, conn net.Conn, br *bufio.Reader, hello clientHello, r *Result) {
			f.runCase(newCase(id, what, expectation, expects(events...), func(s *session) {
				s.send(texts...)
				s.closeAfter()
				s.mu.Lock()
				defer s.mu.Unlock()
				if wrong := judge(f, hello, s.masks); wrong != "" {
					s.decide(Failed, "%s", wrong)
				}
			}), conn, br, hello, r)
		}})
	}
	add("trap10.masks", "Eight texts, whose echoes have masks of their own.", func(_ *Fuzzer, _ clientHello, masks []uint32) string {
		steps := map[uint32]bool{}
		for i := 1; i < len(masks); i++ {
			if slices.Contains(masks[:i], masks[i]) {
				return fmt.Sprintf("the mask %08x comes twice in %d frames", masks[i], len(masks))
			}
			steps[masks[i]-masks[i-1]] = true
		}
		if len(masks) > 2 && len(steps) == 1 {
			return fmt.Sprintf("the masks are easily guessed: %08x", masks)
		}
		return ""
	})
	for n := 1; n <= 2; n++ {
		add(fmt.Sprintf("trap10.again-%d", n), "Eight texts. The connection's key and the masks are not those of another.", func(f *Fuzzer, hello clientHello, masks []uint32) string {
			switch {
			case hello.usedBefore:
				return "another connection had the same Sec-WebSocket-Key"
			case len(masks) > 1 && f.seenBefore(fmt.Sprint(masks)):
				return "another connection had the same masks"
			}
			return ""
		})
	}
	return list
}

// hello2 is longer than a close frame's payload.
const hello2 = "Hello, client, do you read this?"
