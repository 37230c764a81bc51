package ws_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// patience is how long a test waits for something that must happen. It only matters when
// the test fails.
const patience = 30 * time.Second

// serve runs svc on g and returns its address. It ends with the test.
func serve(t testing.TB, g *loop.Group, svc loop.Service) string {
	t.Helper()
	addr, _ := serveUntil(t, g, svc)
	return addr
}

// serveUntil is serve with a function that ends it earlier.
func serveUntil(t testing.TB, g *loop.Group, svc loop.Service) (addr string, stop func()) {
	t.Helper()
	ls, err := g.Listen("127.0.0.1:0", loop.ListenOptions{})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, ls, svc) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-done)
	})
	return ls.Addr().String(), stop
}

// echo sends every message of c back until the peer closes.
func echo(ctx context.Context, c *ws.Conn) error {
	for {
		m, err := c.Receive(ctx)
		if err != nil {
			return err
		}
		if err := c.Send(ctx, m); err != nil {
			return err
		}
	}
}

// echoServer returns an echo that does not wait long for peers that are gone.
func echoServer() *ws.Server {
	return &ws.Server{Handler: echo, Options: ws.Options{
		MaxMessage: 64 << 20, CloseTimeout: 5 * time.Second, Logger: slog.New(slog.DiscardHandler)}}
}

// client runs f as a task with a connection to addr.
func client(t *testing.T, g *loop.Group, url string, opts ws.DialOptions, f func(ctx context.Context, c *ws.Conn) error) {
	t.Helper()
	require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
		c, err := ws.Dial(ctx, url, opts)
		if err != nil {
			return err
		}
		err = f(ctx, c)
		if cerr := c.Close(ws.StatusNormalClosure, ""); err == nil && !errors.Is(cerr, net.ErrClosed) {
			err = cerr
		}
		return err
	}))
}

// A peer is a WebSocket client that sends whatever a test tells it to, right or wrong.
type peer struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

const request = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

// connect opens a connection, with the opening handshake.
func connect(t testing.TB, addr string, after ...byte) *peer {
	t.Helper()
	return upgrade(dialTCP(t, addr), after...)
}

// connectTo is connect with another path than "/".
func connectTo(t testing.TB, addr, path string) *peer {
	t.Helper()
	p := dialTCP(t, addr)
	p.send([]byte(strings.Replace(request, "GET /", "GET "+path, 1)))
	require.Contains(t, p.head(), " 101 ")
	return p
}

func connectOver(t testing.TB, nc net.Conn) *peer {
	return upgrade(newPeer(t, nc))
}

func upgrade(p *peer, after ...byte) *peer {
	p.t.Helper()
	p.send(append([]byte(request), after...))
	head := p.head()
	require.Contains(p.t, head, " 101 ")
	require.Contains(p.t, head, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
	return p
}

func dialTCP(t testing.TB, addr string) *peer {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	require.NoError(t, nc.SetDeadline(time.Now().Add(patience)))
	t.Cleanup(func() { nc.Close() })
	return newPeer(t, nc)
}

func newPeer(t testing.TB, nc net.Conn) *peer { return &peer{t, nc, bufio.NewReaderSize(nc, 64<<10)} }

// acceptKey returns a server's answer to a key: RFC 6455, section 4.2.2.
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func (p *peer) send(b []byte) {
	p.t.Helper()
	_, err := p.Write(b)
	require.NoError(p.t, err)
}

func (p *peer) head() string {
	p.t.Helper()
	var head strings.Builder
	for {
		line, err := p.r.ReadString('\n')
		require.NoError(p.t, err)
		head.WriteString(line)
		if line == "\r\n" {
			return head.String()
		}
	}
}

// fr makes a masked frame.
func fr(op frame.Opcode, fin bool, payload string) []byte {
	h := frame.Header{Op: op, Fin: fin, Len: int64(len(payload)), Masked: true, Mask: [4]byte{1, 2, 3, byte(len(payload))}}
	b := make([]byte, h.Size()+len(payload))
	n := h.Put(b)
	copy(b[n:], payload)
	frame.Mask(b[n:], h.Mask, 0)
	return b
}

func text(payload string) []byte { return fr(frame.Text, true, payload) }

// read reads a server's frame.
func (p *peer) read() (frame.Header, string, error) {
	var h frame.Header
	d := frame.Decoder{Client: true, Rsv: 7}
	for {
		b, err := p.r.ReadByte()
		if err != nil {
			return h, "", err
		}
		_, ok, err := d.Next([]byte{b}, &h)
		if err != nil {
			return h, "", err
		}
		if ok {
			break
		}
	}
	payload := make([]byte, h.Len)
	_, err := io.ReadFull(p.r, payload)
	return h, string(payload), err
}

func (p *peer) want(op frame.Opcode, payload string) {
	p.t.Helper()
	h, got, err := p.read()
	require.NoError(p.t, err)
	require.Equal(p.t, op, h.Op)
	require.True(p.t, h.Fin)
	if len(payload) > 200 {
		require.True(p.t, payload == got, "%d bytes differ from %d", len(got), len(payload))
	} else {
		require.Equal(p.t, payload, got)
	}
}

// wantClose reads a Close frame with this code, answers it unless it is an answer itself,
// and reads until the end.
func (p *peer) wantClose(code ws.StatusCode) {
	p.t.Helper()
	p.wantCloseFrame(code)
	p.send(fr(frame.Close, true, "\x03\xe8"))
	p.wantEnd()
}

func (p *peer) wantCloseFrame(code ws.StatusCode) {
	p.t.Helper()
	for {
		h, got, err := p.read()
		require.NoError(p.t, err)
		if h.Op != frame.Close {
			continue // an earlier echo
		}
		if code == ws.StatusNoStatus {
			require.Empty(p.t, got)
		} else {
			require.GreaterOrEqual(p.t, len(got), 2)
			require.Equal(p.t, code, ws.StatusCode(got[0])<<8|ws.StatusCode(got[1]))
		}
		return
	}
}

func (p *peer) wantEnd() {
	p.t.Helper()
	_, err := p.r.ReadByte()
	require.Equal(p.t, io.EOF, err, "the connection has an orderly end")
}

func TestEcho(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		addr := serve(t, backendtest.Group(t, v, 2), echoServer())
		p := connect(t, addr, text("at once")...)
		p.want(frame.Text, "at once")
		for _, n := range []int{0, 1, 125, 126, 127, 4096, 65535, 65536, 1 << 20, 5 << 20} {
			msg := strings.Repeat("0123456789abcdef", n/16+1)[:n]
			go func() { _, _ = p.Write(fr(frame.Binary, true, msg)) }()
			p.want(frame.Binary, msg)
		}
		// Fragments, with a ping between them.
		p.send(bytes.Join([][]byte{fr(frame.Text, false, "ab"), fr(frame.Ping, true, "p"), fr(frame.Continuation, false, ""),
			fr(frame.Continuation, false, "cd"), fr(frame.Continuation, true, "ef")}, nil))
		p.want(frame.Pong, "p")
		p.want(frame.Text, "abcdef")
		p.send(fr(frame.Close, true, "\x03\xe8bye"))
		p.wantCloseFrame(ws.StatusNormalClosure)
		p.wantEnd()
	})
}

// Many messages in flight at once, of all sizes, cut anywhere.
func TestEchoStream(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		seed := backendtest.Seed(t)
		rnd := rand.New(rand.NewPCG(seed, 0))
		addr := serve(t, backendtest.Group(t, v, 1), echoServer())
		p := connect(t, addr)
		var msgs []string
		var all []byte
		for range 500 {
			size := rnd.IntN(300)
			if rnd.IntN(10) == 0 {
				size = rnd.IntN(100_000)
			}
			m := strings.Repeat(string(rune('a'+rnd.IntN(26))), size)
			msgs = append(msgs, m)
			for rnd.IntN(3) == 0 && len(m) > 0 { // in fragments
				n := rnd.IntN(len(m) + 1)
				op := frame.Text
				if m != msgs[len(msgs)-1] {
					op = frame.Continuation
				}
				if n == 0 && op == frame.Text {
					break
				}
				all = append(all, fr(op, false, m[:n])...)
				m = m[n:]
			}
			op := frame.Text
			if m != msgs[len(msgs)-1] {
				op = frame.Continuation
			}
			all = append(all, fr(op, true, m)...)
		}
		go func() {
			for len(all) > 0 {
				n := min(1+rnd.IntN(50_000), len(all))
				if rnd.IntN(3) == 0 {
					n = min(1+rnd.IntN(20), len(all))
				}
				if _, err := p.Write(all[:n]); err != nil {
					return
				}
				all = all[n:]
			}
		}()
		for _, m := range msgs {
			p.want(frame.Text, m)
		}
	})
}

func TestDial(t *testing.T) {
	for _, secure := range []bool{false, true} {
		for _, compressed := range []bool{false, true} {
			t.Run(fmt.Sprintf("tls=%v,deflate=%v", secure, compressed), func(t *testing.T) {
				backendtest.Each(t, func(t *testing.T, v backendtest.Variant) { testDial(t, v, secure, compressed) })
			})
		}
	}
}

func testDial(t *testing.T, v backendtest.Variant, secure, compressed bool) {
	g := backendtest.Group(t, v, 2)
	srv := echoServer()
	opts := ws.DialOptions{Options: ws.Options{MaxMessage: 4 << 20}}
	scheme := "ws://"
	if secure {
		srv.TLS, opts.TLS = tlsConfigs()
		scheme = "wss://"
	}
	if compressed {
		srv.Compression, opts.Compression = &ws.Compression{}, &ws.Compression{}
	}
	client(t, g, scheme+serve(t, g, srv)+"/chat", opts, func(ctx context.Context, c *ws.Conn) error {
		if c.Compressed() != compressed {
			return fmt.Errorf("compressed: %v", c.Compressed())
		}
		for _, n := range []int{0, 1, 125, 2000, 70_000, 1 << 20} {
			want := bytes.Repeat([]byte("noria turns "), n/12+1)[:n]
			if err := c.SendBinary(ctx, want); err != nil {
				return err
			}
			m, err := c.Receive(ctx)
			if err != nil {
				return err
			}
			if m.Len() != n || len(bytes.Join(m.Segments(), nil)) != n {
				return fmt.Errorf("%d bytes came back as %d", n, m.Len())
			}
			if !bytes.Equal(m.Bytes(), want) || m.Type() != ws.TypeBinary {
				return fmt.Errorf("%d bytes came back as %d of %v", n, m.Len(), m.Type())
			}
			// The received message is sent again, and masked in place.
			if err := c.Send(ctx, m); err != nil {
				return err
			}
			if m, err = c.Receive(ctx); err != nil {
				return err
			}
			if !bytes.Equal(m.Bytes(), want) {
				return fmt.Errorf("%d bytes came back differently", n)
			}
			m.Release()
		}
		// Many at once.
		for i := range 300 {
			if err := c.SendText(ctx, strings.Repeat("x", i*i%5000)); err != nil {
				return err
			}
		}
		for i := range 300 {
			m, err := c.Receive(ctx)
			if err != nil {
				return err
			}
			if m.Len() != i*i%5000 || m.Type() != ws.TypeText {
				return fmt.Errorf("message %d came back with %d bytes", i, m.Len())
			}
			m.Release()
		}
		return nil
	})
}

// tlsConfigs returns the configuration of a server, and that of a client that trusts it.
func tlsConfigs() (server, client *tls.Config) {
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS() // for its certificate
	defer s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return &tls.Config{Certificates: s.TLS.Certificates}, &tls.Config{RootCAs: pool, ServerName: "example.com"}
}
