package brokenws

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"
)

// A Server is an echo server, with or without a fault.
type Server struct {
	listener net.Listener
	quirks   *quirks
	wg       sync.WaitGroup
	mu       sync.Mutex
	conns    map[net.Conn]bool
	closed   bool
}

// MaxMessage is the longest message that a Server accepts, in bytes.
const MaxMessage = 17 << 20

// HandshakeTimeout is how long a Server waits for a request.
const HandshakeTimeout = 2 * time.Second

// Serve serves on ln until Close. f may be nil.
func Serve(ln net.Listener, f *Fault) *Server {
	s := &Server{listener: ln, quirks: f.quirks(), conns: map[net.Conn]bool{}}
	s.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			if s.conns[c] = true; s.closed {
				_ = c.Close()
			}
			s.mu.Unlock()
			s.wg.Go(func() {
				s.handle(c)
				_ = c.Close()
				s.mu.Lock()
				delete(s.conns, c)
				s.mu.Unlock()
			})
		}
	})
	return s
}

// URL returns the server's URL.
func (s *Server) URL() string { return "ws://" + s.listener.Addr().String() + "/" }

// Close ends all connections and waits for them.
func (s *Server) Close() error {
	err := s.listener.Close()
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
	return err
}

func (s *Server) handle(nc net.Conn) {
	var src io.Reader = nc
	if s.quirks.timePerRead {
		src = impatient{nc, HandshakeTimeout}
	}
	if slots := s.quirks.slots; slots != nil {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			_, _ = io.Copy(io.Discard, nc)
			return
		}
	}
	r := bufio.NewReaderSize(src, 64<<10)
	d, err := s.upgrade(nc, r)
	if err != nil {
		drain(nc)
		return
	}
	c := &conn{Conn: nc, r: r, quirks: s.quirks, deflate: d}
	if s.quirks.greets {
		_ = c.send(header{fin: true, opcode: opPing}, []byte("hello"))
	}
	if c.run(); s.quirks.lingers {
		_, _ = io.Copy(io.Discard, nc)
		return
	}
	drain(nc)
}

// impatient limits each read, and so not the whole request.
type impatient struct {
	nc   net.Conn
	time time.Duration
}

func (i impatient) Read(p []byte) (int, error) {
	_ = i.nc.SetReadDeadline(time.Now().Add(i.time))
	return i.nc.Read(p)
}

// run echoes until the connection ends or must end.
func (c *conn) run() {
	var f *failure
	if errors.As(c.serve(), &f) && !c.quirks.dropsSilently {
		_ = c.send(header{fin: true, opcode: opClose}, []byte{byte(f.code >> 8), byte(f.code)})
	}
	if c.quirks.talksOn {
		_ = c.send(header{fin: true, opcode: opText}, []byte("and another thing"))
	}
}

// drain ends a connection so that the sent bytes arrive: closing with unread bytes
// would reset it.
func drain(nc net.Conn) {
	if t, ok := nc.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
	_ = nc.SetReadDeadline(time.Now().Add(2 * time.Second))
	_, _ = io.Copy(io.Discard, nc)
}

// upgrade does the opening handshake.
func (s *Server) upgrade(nc net.Conn, r *bufio.Reader) (*compression, error) {
	q := s.quirks
	refuse := func(status, fields string) error {
		if q.hangs {
			_, _ = io.Copy(io.Discard, nc)
		}
		_, _ = fmt.Fprintf(nc, "HTTP/1.1 %s\r\n%sContent-Length: 0\r\nConnection: close\r\n\r\n", status, fields)
		return errors.New(status)
	}
	if q.timeFromFirstByte {
		_, _ = r.Peek(1)
	}
	_ = nc.SetReadDeadline(time.Now().Add(q.headTime))
	if q.needsWholeHead {
		_, _ = r.Peek(1)
		if b, _ := r.Peek(r.Buffered()); !bytes.Contains(b, []byte("\r\n\r\n")) {
			return nil, refuse("400 Bad Request", "")
		}
	}
	lines, err := readLines(r, q)
	if err != nil {
		return nil, refuse("400 Bad Request", "")
	}
	_ = nc.SetReadDeadline(time.Time{})
	parts := strings.Split(lines[0], " ")
	fields, good := readFields(lines[1:], q)
	if !good {
		return nil, refuse("400 Bad Request", "")
	}
	get, has := fields.get, fields.has
	goodKey, goodOrigin := oneKey, sameHost
	if q.goodKey != nil {
		goodKey = q.goodKey
	}
	if q.goodOrigin != nil {
		goodOrigin = q.goodOrigin
	}
	switch {
	case len(parts) != 3 || parts[0] != "GET" && !q.anyMethod, parts[2] != "HTTP/1.1" && !q.anyVersion,
		len(fields["host"]) != 1 && !q.noHost,
		!q.anyLength && (get("transfer-encoding") != "" || len(fields["content-length"]) > 0 && get("content-length") != "0"):
		return nil, refuse("400 Bad Request", "")
	case !has("upgrade", "websocket") && !q.anyUpgrade, !has("connection", "upgrade") && !q.anyConnection,
		len(fields["connection"]) > 1 && q.oneConnection,
		q.exactTokens && (get("upgrade") != "websocket" || get("connection") != "Upgrade"):
		return nil, refuse("426 Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")
	case get("sec-websocket-version") != "13" && q.plain400:
		return nil, refuse("400 Bad Request", "")
	case get("sec-websocket-version") != "13" && !q.anyWSVersion:
		return nil, refuse("426 Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")
	case !goodKey(fields["sec-websocket-key"]) && !q.anyKey:
		return nil, refuse("400 Bad Request", "")
	case get("origin") != "" && !goodOrigin(get("origin"), get("host")) && !q.anyOrigin:
		return nil, refuse("403 Forbidden", "")
	}
	answer := "HTTP/1.1 101 Switching Protocols\r\nServer: broken\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: " + accept(get("sec-websocket-key")) + "\r\n"
	var d *compression
	if !q.noDeflate {
		var taken string
		if d, taken = negotiate(get("sec-websocket-extensions"), q); d != nil {
			answer += "Sec-WebSocket-Extensions: " + taken + "\r\n"
		}
	}
	if q.echoesProtocol {
		answer += "Sec-WebSocket-Protocol: " + get("sec-websocket-protocol") + "\r\n"
	}
	answer += "\r\n"
	if q.answer != nil {
		answer = q.answer(answer)
	}
	if q.dropsEarly {
		_, _ = r.Discard(r.Buffered())
	}
	_, err = io.WriteString(nc, answer)
	return d, err
}

func oneKey(keys []string) bool {
	if len(keys) != 1 {
		return false
	}
	b, err := base64.StdEncoding.DecodeString(keys[0])
	return err == nil && len(b) == 16
}

func sameHost(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host == host
}

// accept returns the Sec-WebSocket-Accept for a key.
func accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// fields are the fields of a head, by lower-case name.
type fields map[string][]string

// readFields returns the fields in the lines, and whether all lines are valid.
func readFields(lines []string, q *quirks) (f fields, good bool) {
	f, good = fields{}, true
	for _, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		good = good && (ok && name != "" && !strings.ContainsAny(name, " \t") || q.excuseLine != nil && q.excuseLine(line))
		if q.exactNames && name == strings.ToLower(name) {
			continue
		}
		name = strings.ToLower(strings.TrimSpace(name))
		f[name] = append(f[name], strings.TrimSpace(value))
	}
	return f, good
}

func (f fields) get(name string) string { return strings.Join(f[name], ", ") }

// has reports whether the field's list contains token.
func (f fields) has(name, token string) bool {
	for v := range strings.SplitSeq(f.get(name), ",") {
		if strings.EqualFold(strings.TrimSpace(v), token) {
			return true
		}
	}
	return false
}

// readLines reads a head.
func readLines(r *bufio.Reader, q *quirks) (lines []string, err error) {
	for total := 0; ; {
		var line []byte
		for {
			piece, err := r.ReadSlice('\n')
			line = append(line, piece...)
			if total += len(piece); total > q.maxHead {
				return nil, errors.New("too long")
			}
			if err == nil {
				break
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				return nil, err
			}
		}
		s, ok := strings.CutSuffix(string(line), "\r\n")
		if !ok {
			if !q.bareLF {
				return nil, errors.New("a bare LF")
			}
			s = strings.TrimSuffix(string(line), "\n")
		}
		switch {
		case s == "" && len(lines) > 0:
			return lines, nil
		case s != "" && (s[0] == ' ' || s[0] == '\t'):
			if !q.folded {
				return nil, errors.New("a folded line")
			}
			continue
		}
		lines = append(lines, s)
	}
}
