package websocket

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
	"unicode/utf8"
)

// maxReceived limits a message of the endpoint, in bytes.
const maxReceived = 64 << 20

// maxUnasked limits the bytes that the endpoint may send in a case beyond those that
// the case expects. Everything is kept until the case is judged.
const maxUnasked = 16 << 20

// maxLog limits the lines of a session's log.
const maxLog = 200

// A session is a case on its connection, after the opening handshake. One goroutine
// runs the script, another reads what the endpoint sends, so neither side waits for the
// other to read.
type session struct {
	conn     net.Conn
	server   bool // the suite is the server
	patience time.Duration
	quiet    time.Duration // how long to watch that nothing arrives
	messages int           // the most messages that a case may send; 0: as many as its script says
	strict   bool          // nothing may follow the endpoint's close frame
	deflate  *deflateParams
	out      *deflater
	expect   expectation

	mu        sync.Mutex
	changed   chan struct{} // closed and replaced when anything below changes
	received  []event
	kept      int      // the size of received
	owed      int      // the size of the expected events
	fragments int      // data frames since the last message
	masks     []uint32 // of the endpoint's first frames
	violation error
	ended     error // how reading ended
	afterEnd  int   // bytes after a close frame or a violation

	closeSent, closeReceived bool
	closedByMe, droppedByMe  bool
	dropTimeout              bool
	hasRemoteCode            bool
	remoteCode               uint16
	remoteReason             string
	log                      []string

	decided  bool // the script has set behavior and why
	behavior Behavior
	why      string
}

func newSession(conn net.Conn, r *bufio.Reader, server bool, deflate *deflateParams) *session {
	s := &session{conn: conn, server: server, changed: make(chan struct{}), deflate: deflate}
	var in *inflater
	if p := deflate; p != nil {
		if server {
			s.out, in = newDeflater(!p.serverNoContext, p.serverBits), newInflater(!p.clientNoContext, p.clientBits)
		} else {
			s.out, in = newDeflater(!p.clientNoContext, p.clientBits), newInflater(!p.serverNoContext, p.serverBits)
		}
	}
	go s.read(r, in)
	return s
}

// change calls f and wakes the goroutines that wait.
func (s *session) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

// logf adds a line to the log. The caller holds s.mu.
func (s *session) logf(format string, args ...any) {
	if len(s.log) < maxLog {
		s.log = append(s.log, fmt.Sprintf(format, args...))
	}
}

// read reads frames until the connection ends. After an invalid frame it only discards
// bytes until the end.
func (s *session) read(r *bufio.Reader, in *inflater) {
	err := s.readFrames(r, in)
	var v *violation
	if errors.As(err, &v) {
		s.change(func() {
			s.violation = v
			s.logf("the endpoint sent %s", v.what)
		})
	}
	if err == nil || v != nil {
		var n int64
		n, err = io.Copy(io.Discard, r)
		if err == nil {
			err = io.EOF
		}
		s.mu.Lock()
		s.afterEnd += int(n)
		s.mu.Unlock()
	}
	s.change(func() {
		s.ended = err
		s.logf("the endpoint ended the connection: %v", err)
	})
}

// An assembly is a message of which some frames have arrived.
type assembly struct {
	open       bool
	compressed bool
	opcode     byte
	payload    []byte
	frames     int
}

// readFrames returns nil after a close frame.
func (s *session) readFrames(r *bufio.Reader, in *inflater) error {
	var m assembly
	for {
		h, err := readHeader(r)
		if err != nil {
			return err
		}
		if err := h.check(s.server, m.open, in != nil); err != nil {
			return err
		}
		s.keepMask(h)
		if h.opcode >= opClose {
			p, err := readPayload(r, h, nil)
			if err != nil {
				return err
			}
			done, err := s.control(h.opcode, p)
			if done || err != nil {
				return err
			}
			continue
		}
		if h.opcode != opContinuation {
			m = assembly{open: true, compressed: h.rsv != 0, opcode: h.opcode}
		}
		room := s.room()
		if uint64(len(m.payload))+h.length > uint64(room) {
			return &violation{1009, fmt.Sprintf("more than the case expects by far: a message of %d bytes, when %d were left", uint64(len(m.payload))+h.length, room)}
		}
		if m.payload, err = readPayload(r, h, m.payload); err != nil {
			return err
		}
		m.frames++
		if !h.fin {
			continue
		}
		p := m.payload
		if m.compressed {
			if p, err = in.inflate(p, room); err != nil {
				return err
			}
		}
		if m.opcode == opText && !utf8.Valid(p) {
			return &violation{1007, "a text message that is not UTF-8"}
		}
		s.change(func() {
			s.keep(event{kind: "message", payload: p, binary: m.opcode == opBinary})
			s.fragments = m.frames
			s.logf("< message, %d frames: %s", m.frames, quoted(p))
		})
		m = assembly{}
	}
}

// keep adds an event to received. The caller holds s.mu.
func (s *session) keep(e event) {
	s.received = append(s.received, e)
	s.kept += e.size()
}

// room returns how many more bytes the endpoint may send.
func (s *session) room() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return min(maxReceived, max(0, maxUnasked+s.owed-s.kept))
}

// maxMasks is how many masks a session remembers.
const maxMasks = 16

func (s *session) keepMask(h header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.masked && len(s.masks) < maxMasks {
		s.masks = append(s.masks, h.mask)
	}
}

func readHeader(r *bufio.Reader) (header, error) {
	for want := 2; ; want++ {
		b, err := r.Peek(want)
		if err != nil {
			return header{}, err
		}
		h, n, err := parseHeader(b)
		if err != nil {
			return header{}, err
		}
		if n > 0 {
			_, err = r.Discard(n)
			return h, err
		}
	}
}

// readPayload appends a frame's payload to p. It does not trust the length: memory
// grows with the bytes that arrive.
func readPayload(r *bufio.Reader, h header, p []byte) ([]byte, error) {
	const step = 1 << 20
	at := len(p)
	for left := h.length; left > 0; {
		n := min(left, step)
		from := len(p)
		p = append(p, make([]byte, n)...)
		if _, err := io.ReadFull(r, p[from:]); err != nil {
			return p, err
		}
		left -= n
	}
	if h.masked {
		applyMask(p[at:], h.mask)
	}
	return p, nil
}

// control handles a control frame. It reports whether it was a close frame.
func (s *session) control(opcode byte, p []byte) (done bool, err error) {
	if opcode != opClose {
		kind := "ping"
		if opcode == opPong {
			kind = "pong"
		}
		if s.room() == 0 {
			return false, &violation{1008, "more pings and pongs than the case expects by far"}
		}
		s.change(func() {
			s.keep(event{kind: kind, payload: p})
			s.logf("< %s %s", kind, quoted(p))
		})
		return false, nil
	}
	code, reason, hasCode, err := parseClose(p)
	if err != nil {
		// The report counts an invalid close frame as one, too.
		s.change(func() {
			s.closeReceived, s.hasRemoteCode, s.remoteCode, s.remoteReason = true, hasCode, code, reason
		})
		return false, err
	}
	s.change(func() {
		s.closeReceived, s.hasRemoteCode, s.remoteCode, s.remoteReason = true, hasCode, code, reason
		s.logf("< close %d %q", code, reason)
		// Otherwise a write that the endpoint no longer reads could block forever.
		_ = s.conn.SetWriteDeadline(time.Now().Add(s.patience))
	})
	return true, nil
}

// over reports whether the endpoint has sent a close frame, ended the connection, or
// violated the protocol. The caller holds s.mu.
func (s *session) over() bool { return s.closeReceived || s.ended != nil || s.violation != nil }

func (s *session) isOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over()
}

// await waits until done reports true or d has passed, and returns which. It calls done
// with s.mu held.
func (s *session) await(d time.Duration, done func() bool) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		s.mu.Lock()
		ok, changed := done(), s.changed
		s.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-timer.C:
			return false
		}
	}
}

// awaitEvents waits for n events.
func (s *session) awaitEvents(n int) bool {
	s.await(s.patience, func() bool { return len(s.received) >= n || s.over() })
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.received) >= n
}

// write writes all of b unless the connection is over.
func (s *session) write(b []byte) {
	if s.isOver() {
		return
	}
	if _, err := s.conn.Write(b); err != nil {
		s.mu.Lock()
		s.logf("writing: %v", err)
		s.mu.Unlock()
	}
}

// send sends frames, each in one write.
func (s *session) send(frames ...frame) {
	for _, f := range frames {
		s.note(f)
		s.write(f.append(nil, !s.server))
	}
}

// sendTogether sends frames in one write.
func (s *session) sendTogether(frames ...frame) {
	var b []byte
	for _, f := range frames {
		s.note(f)
		b = f.append(b, !s.server)
	}
	s.write(b)
}

// The first bytes that are sent one at a time are so far apart that the endpoint is
// likely to read them one at a time, too.
const (
	maxPaced = 32
	pace     = 200 * time.Microsecond
)

// sendChopped sends frames in writes of n bytes.
func (s *session) sendChopped(n int, frames ...frame) {
	for _, f := range frames {
		s.note(f)
		b := f.append(nil, !s.server)
		for i := 0; len(b) > 0 && !s.isOver(); i++ {
			k := min(n, len(b))
			s.write(b[:k])
			b = b[k:]
			if n == 1 && i < maxPaced {
				time.Sleep(pace)
			}
		}
	}
}

func (s *session) note(f frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.opcode == opClose && f.rsv == 0 && !s.over() {
		if !s.closeSent {
			s.closedByMe = true
		}
		s.closeSent = true
	}
	s.logf("> opcode %d, fin %v, rsv %d: %s", f.opcode, f.fin, f.rsv, quoted(f.payload))
}

// pause waits for d or for the connection's end. If d passes first, that is an event.
func (s *session) pause(tag string, d time.Duration) {
	if !s.await(d, s.over) {
		s.change(func() { s.received = append(s.received, timedOut(tag)) })
	}
}

// closeAfter waits for as many events as the first of the expected lists has, and then
// closes.
func (s *session) closeAfter() {
	want := len(s.expect.events[0])
	s.await(s.patience, func() bool { return len(s.received) >= want || s.over() })
	s.close(1000)
}

// closeOrKill is closeAfter for the cases in which Autobahn drops the connection if the
// expected events do not happen.
func (s *session) closeOrKill() {
	want := s.expect.events[0]
	s.await(s.patience, func() bool { return len(s.received) >= len(want) || s.over() })
	s.mu.Lock()
	good := sameEvents(s.received, want)
	s.mu.Unlock()
	switch {
	case good:
		s.close(1000)
	case !s.isOver():
		s.drop()
	}
}

func (s *session) close(code uint16) {
	if !s.isOver() {
		s.send(closeFrame(code, ""))
	}
}

// killAfter waits until the endpoint ends the connection, and drops it if it
// does not.
func (s *session) killAfter() {
	if !s.await(s.patience, s.over) {
		s.drop()
	}
}

// drop ends the TCP connection.
func (s *session) drop() {
	s.mu.Lock()
	if s.ended == nil {
		s.droppedByMe = true
	}
	s.mu.Unlock()
	_ = s.conn.Close()
	s.await(s.patience, func() bool { return s.ended != nil })
}

// finish completes the closing handshake.
func (s *session) finish() {
	s.mu.Lock()
	v := s.violation
	s.mu.Unlock()
	if v == nil {
		s.await(s.patience, func() bool { return s.closeReceived || s.ended != nil || s.violation != nil })
		s.mu.Lock()
		v = s.violation
		s.mu.Unlock()
	}
	if v != nil {
		s.fail(v)
		return
	}
	s.reply()
	if s.server {
		// The server must end the connection.
		s.mu.Lock()
		both := s.closeReceived
		s.mu.Unlock()
		if c, ok := s.conn.(interface{ CloseWrite() error }); ok && both {
			_ = c.CloseWrite()
			s.await(s.patience, func() bool { return s.ended != nil })
		}
		_ = s.conn.Close()
		return
	}
	if !s.await(s.patience, func() bool { return s.ended != nil }) {
		s.mu.Lock()
		s.dropTimeout = true
		s.mu.Unlock()
	}
	s.drop()
}

// fail fails the connection because of a violation. As with Autobahn, that counts as
// dropping it.
func (s *session) fail(v error) {
	s.mu.Lock()
	silent := s.closeSent
	s.closeSent = true
	s.mu.Unlock()
	code := uint16(1002)
	if w := (*violation)(nil); errors.As(v, &w) {
		code = w.code
	}
	if !silent {
		_ = s.conn.SetWriteDeadline(time.Now().Add(s.patience))
		_, _ = s.conn.Write(closeFrame(code, "").append(nil, !s.server))
	}
	s.drop()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.droppedByMe = true
	s.logf("> close %d, because of that", code)
}

// reply answers the endpoint's close frame, if there is one and the suite has not sent
// its own.
func (s *session) reply() {
	s.mu.Lock()
	if !s.closeReceived || s.closeSent {
		s.mu.Unlock()
		return
	}
	s.closeSent = true
	f := frame{fin: true, opcode: opClose}
	if s.hasRemoteCode {
		f.payload = binary.BigEndian.AppendUint16(nil, s.remoteCode)
	}
	s.logf("> close in answer")
	s.mu.Unlock()
	_ = s.conn.SetWriteDeadline(time.Now().Add(s.patience))
	_, _ = s.conn.Write(f.append(nil, !s.server))
}

func (s *session) wasClean() bool {
	return s.closeSent && s.closeReceived && !s.dropTimeout
}

func (s *session) uncleanReason() string {
	switch {
	case s.violation != nil:
		return "the endpoint sent " + s.violation.Error()
	case !s.closeReceived:
		return "no close frame came"
	case s.dropTimeout:
		return "the server did not end the TCP connection"
	}
	return "no close frame was sent"
}

// decide sets the verdict, whatever was received.
func (s *session) decide(b Behavior, format string, args ...any) {
	s.decided, s.behavior, s.why = true, b, fmt.Sprintf(format, args...)
}
