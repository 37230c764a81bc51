package websocket

import (
	"bytes"
	"fmt"
	"time"
)

// The cases of groups 9 and 10: large messages, many fragments, many writes,
// many messages.

// wholeTime limits a case that has much to send.
const wholeTime = 8 * time.Minute

// pattern returns n bytes of ASCII text.
func pattern(n int) []byte {
	const unit = "BAsd7&jh23 0123456789 abcdefghijklmnop; "
	return bytes.Repeat([]byte(unit), n/len(unit)+1)[:n]
}

// size formats a number of bytes as the cases' descriptions do.
func size(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

var kinds = []struct {
	name   string
	opcode byte
}{{"text", opText}, {"binary", opBinary}}

// echo sends a message with send and sets the verdict by the message that comes back.
func (s *session) echo(opcode byte, p []byte, send func()) (same bool) {
	want := event{kind: "message", payload: p, binary: opcode == opBinary}
	s.mu.Lock()
	before := len(s.received)
	s.owed += want.size()
	s.mu.Unlock()
	send()
	s.await(wholeTime, func() bool { return len(s.received) > before || s.over() })
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.received) <= before {
		s.decide(Failed, "the connection ended before the message came back")
		return false
	}
	got := s.received[before]
	if !got.equal(want) {
		s.decide(Failed, "got %s; sent %s", got, want)
		return false
	}
	s.received = s.received[:before] // it may be large
	s.kept -= got.size()
	s.owed -= want.size()
	s.decide(OK, "what was sent came back")
	return true
}

// large returns a case with one message.
func large(id, what string, opcode byte, n int, send func(s *session, p []byte)) Case {
	c := newCase(id, what, "It comes back; a clean close.", expects(), func(s *session) {
		p := pattern(n)
		s.echo(opcode, p, func() { send(s, p) })
		s.close(1000)
	})
	c.big = n >= 4<<20
	return c
}

func limitCases() (list []Case) {
	for k, kind := range kinds {
		for i, n := range []int{64 << 10, 256 << 10, 1 << 20, 4 << 20, 8 << 20, 16 << 20} {
			list = append(list, large(fmt.Sprintf("9.%d.%d", 1+k, i+1), fmt.Sprintf("A %s message of %s.", kind.name, size(n)), kind.opcode, n, func(s *session, p []byte) {
				s.send(frame{fin: true, opcode: kind.opcode, payload: p})
			}))
		}
		for i, n := range []int{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20} {
			list = append(list, large(fmt.Sprintf("9.%d.%d", 3+k, i+1), fmt.Sprintf("A %s message of 4 MiB in fragments of %s.", kind.name, size(n)), kind.opcode, 4<<20, func(s *session, p []byte) {
				s.sendFragments(kind.opcode, p, n, false)
			}))
		}
		for i, n := range []int{64, 128, 256, 512, 1024, 2048} {
			list = append(list, large(fmt.Sprintf("9.%d.%d", 5+k, i+1), fmt.Sprintf("A %s message of 1 MiB in writes of %d bytes.", kind.name, n), kind.opcode, 1<<20, func(s *session, p []byte) {
				s.sendChopped(n, frame{fin: true, opcode: kind.opcode, payload: p})
			}))
		}
		for i, n := range []int{0, 16, 64, 256, 1024, 4096} {
			list = append(list, newCase(fmt.Sprintf("9.%d.%d", 7+k, i+1), fmt.Sprintf("1000 %s messages of %s, one after the other.", kind.name, size(n)), "All come back; a clean close.", expects(), func(s *session) {
				f := frame{fin: true, opcode: kind.opcode, payload: pattern(n)}
				for range 1000 {
					if !s.echo(kind.opcode, f.payload, func() { s.send(f) }) {
						break
					}
				}
				s.close(1000)
			}))
		}
	}
	return list
}

func miscCases() []Case {
	return []Case{newCase("10.1.1", "A text of 65536 bytes in fragments of 1300.", "It comes back; a clean close.", expects(gotText(stars(65536))), func(s *session) {
		s.sendFragments(opText, []byte(stars(65536)), 1300, false)
		s.closeOrKill()
	})}
}

// sendFragments sends a message in fragments of n bytes (0: unfragmented). Small
// fragments share writes.
func (s *session) sendFragments(opcode byte, p []byte, n int, compressed bool) {
	if n <= 0 {
		n = max(len(p), 1)
	}
	var b []byte
	for i, f := range fragments(opcode, p, n) {
		if i == 0 && compressed {
			f.rsv = rsv1
		}
		if b = f.append(b, !s.server); len(b) >= 64<<10 {
			s.write(b)
			b = b[:0]
		}
	}
	if len(b) > 0 {
		s.write(b)
	}
}
