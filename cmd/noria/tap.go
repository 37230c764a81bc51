package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/noria-go/noria/ws"
)

// A tap stands between the client and its server and shows the traffic: the two heads,
// and each frame as it is on the wire. It listens on the loopback, where the client
// connects without TLS, and connects to the server itself. So it sees what the client
// really sends and knows nothing of the client's internals.
type tap struct {
	url string // the URL that the client dials

	ln      net.Listener
	server  *url.URL
	tls     *tls.Config
	timeout time.Duration
	out     lockedWriter
	stop    context.CancelFunc
	wg      sync.WaitGroup

	mu  sync.Mutex
	err error // why the server could not be reached
}

// startTap starts a tap in front of u, and changes opts so that the client uses it.
func startTap(u *url.URL, opts *ws.DialOptions, out io.Writer) (*tap, error) {
	if u.Host == "" {
		return nil, fmt.Errorf("%s: the URL has no host: want ws://host:port/path", u.Redacted())
	}
	t := &tap{server: u, timeout: opts.HandshakeTimeout, out: lockedWriter{w: out}}
	local := *u
	if u.Scheme == "wss" || u.Scheme == "https" { // the client judges other schemes
		local.Scheme = "ws"
		t.tls = opts.TLS.Clone()
		if t.tls.ServerName == "" {
			t.tls.ServerName = u.Hostname()
		}
		t.tls.NextProtos = []string{"http/1.1"}
	}
	if opts.Host == "" {
		opts.Host = u.Host
	}
	var err error
	if t.ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	local.Host = t.ln.Addr().String()
	t.url = local.String()
	ctx, stop := context.WithCancel(context.Background())
	t.stop = stop
	t.wg.Go(func() { t.accept(ctx) })
	return t, nil
}

// close ends the tap. Call it when the client has closed its connections. The error
// says that the tap could not reach the server, which is why the client failed.
func (t *tap) close() error {
	t.stop()
	_ = t.ln.Close()
	t.wg.Wait()
	return t.err
}

func (t *tap) accept(ctx context.Context) {
	for {
		client, err := t.ln.Accept()
		if err != nil {
			return
		}
		t.wg.Go(func() {
			defer client.Close()
			t.serve(ctx, client)
		})
	}
}

func (t *tap) dial(ctx context.Context) (net.Conn, error) {
	address := t.server.Host
	if t.server.Port() == "" {
		port := "80"
		if t.tls != nil {
			port = "443"
		}
		address = net.JoinHostPort(t.server.Hostname(), port)
	}
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	if t.tls != nil {
		return (&tls.Dialer{Config: t.tls}).DialContext(ctx, "tcp", address)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

func (t *tap) serve(ctx context.Context, client net.Conn) {
	server, err := t.dial(ctx)
	if err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.err == nil && ctx.Err() == nil {
			t.err = fmt.Errorf("dial %s: %w", t.server.Redacted(), err)
		}
		return
	}
	defer server.Close()
	defer context.AfterFunc(ctx, func() { _ = server.SetDeadline(time.Now()) })()
	var both sync.WaitGroup
	both.Go(func() { t.pump(server, client, ">") })
	both.Go(func() { t.pump(client, server, "<") })
	both.Wait()
}

// pump copies one direction and shows what it copies.
func (t *tap) pump(to, from net.Conn, arrow string) {
	shown := &wirePrinter{out: &t.out, arrow: arrow}
	r := bufio.NewReaderSize(from, 64<<10)
	if shown.head(r, to) == nil {
		_ = shown.frames(r, to)
	}
	// Bytes that are not frames, and those after an error of the wirePrinter, pass without
	// being shown.
	_, _ = io.Copy(to, r)
	if c, ok := to.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}

// A wirePrinter shows one direction of the traffic.
type wirePrinter struct {
	out   io.Writer
	arrow string // > to the server, < from the server
}

const maxShown = 256 // bytes of a frame's payload

// head passes the head on and shows it.
func (s *wirePrinter) head(r *bufio.Reader, to io.Writer) error {
	var head strings.Builder
	var first string
	for {
		line, err := r.ReadString('\n')
		if _, werr := io.WriteString(to, line); werr != nil {
			return werr
		}
		if err != nil {
			return err
		}
		if line = strings.TrimRight(line, "\r\n"); line == "" {
			break
		}
		if first == "" {
			first = line
		}
		fmt.Fprintf(&head, "%s %s\n", s.arrow, escape(withoutSecret(line), "\t"))
	}
	_, err := io.WriteString(s.out, head.String())
	_, status, _ := strings.Cut(first, " ")
	if s.arrow == "<" && err == nil && !strings.HasPrefix(status, strconv.Itoa(http.StatusSwitchingProtocols)) {
		return errors.New("no WebSocket")
	}
	return err
}

// withoutSecret returns a header's line as it is shown: without its password, if it has
// one.
func withoutSecret(line string) string {
	name, _, _ := strings.Cut(line, ":")
	if strings.EqualFold(name, "Authorization") || strings.EqualFold(name, "Proxy-Authorization") {
		return name + ": xxxxx"
	}
	return line
}

// frames passes frames on as they arrive, and shows each once its first bytes have
// arrived.
func (s *wirePrinter) frames(r *bufio.Reader, to io.Writer) error {
	for {
		f, err := readFrameHead(r)
		if len(f.raw) > 0 {
			if _, werr := to.Write(f.raw); werr != nil {
				return werr
			}
		}
		if err != nil {
			return err
		}
		shown := make([]byte, min(f.length, maxShown))
		n, err := io.ReadFull(r, shown)
		shown = shown[:n]
		if _, werr := to.Write(shown); werr != nil {
			return werr
		}
		if f.masked {
			for i := range shown {
				shown[i] ^= f.mask[i&3]
			}
		}
		if _, werr := io.WriteString(s.out, f.describe(s.arrow, shown)); werr != nil {
			return werr
		}
		if err != nil {
			return err
		}
		if _, err := io.CopyN(to, r, f.length-int64(len(shown))); err != nil {
			return err
		}
	}
}

// A frameHead is a frame's header as it arrived (RFC 6455 §5.2), valid or not.
type frameHead struct {
	raw    []byte
	length int64
	masked bool
	mask   [4]byte
}

func readFrameHead(r *bufio.Reader) (f frameHead, err error) {
	more := func(n int) []byte {
		if err != nil {
			return make([]byte, n)
		}
		p := make([]byte, n)
		n, err = io.ReadFull(r, p)
		f.raw = append(f.raw, p[:n]...)
		return p
	}
	b := more(2)
	f.masked = b[1]&0x80 != 0
	switch n := b[1] & 0x7f; n {
	case 126:
		f.length = int64(binary.BigEndian.Uint16(more(2)))
	case 127:
		length := binary.BigEndian.Uint64(more(8))
		if length >= 1<<63 && err == nil {
			err = errors.New("a length of more than 63 bits")
		}
		f.length = int64(length &^ (1 << 63))
	default:
		f.length = int64(n)
	}
	if f.masked {
		copy(f.mask[:], more(4))
	}
	return f, err
}

var opcodeNames = [16]string{"continuation", "text", "binary", "3", "4", "5", "6", "7", "close", "ping", "pong", "11", "12", "13", "14", "15"}

// describe returns the lines for a frame whose payload begins with p, unmasked.
func (f *frameHead) describe(arrow string, p []byte) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", arrow, opcodeNames[f.raw[0]&15])
	if f.raw[0]&0x80 != 0 {
		b.WriteString(" FIN")
	}
	for i, name := range []string{"RSV1", "RSV2", "RSV3"} {
		if f.raw[0]&(0x40>>i) != 0 {
			b.WriteString(" " + name)
		}
	}
	fmt.Fprintf(&b, ", %d bytes", f.length)
	if f.masked {
		fmt.Fprintf(&b, ", mask %x", f.mask)
	}
	if f.raw[0]&15 == 8 && len(p) >= 2 {
		fmt.Fprintf(&b, ", code %d %q", binary.BigEndian.Uint16(p), p[2:])
	}
	b.WriteString(", header " + hex.EncodeToString(f.raw) + "\n")
	for line := range strings.Lines(hex.Dump(p)) {
		b.WriteString(arrow + "   " + line)
	}
	if int64(len(p)) < f.length {
		fmt.Fprintf(&b, "%s   … %d more\n", arrow, f.length-int64(len(p)))
	}
	return b.String()
}

// A lockedWriter lets several goroutines write lines.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
