package tcp_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/tlstest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/tcp"
)

// dialTLS connects with crypto/tls.
func dialTLS(t *testing.T, addr string) *tls.Conn {
	t.Helper()
	_, config := tlstest.Configs()
	c := tls.Client(dial(t, addr), config)
	require.NoError(t, c.Handshake())
	return c
}

// A server with TLS runs the same handlers, in tasks and on goroutines, and ends its
// connections with close_notify.
func TestTLSServer(t *testing.T) {
	config, _ := tlstest.Configs()
	for _, onGoroutine := range []bool{false, true} {
		t.Run(fmt.Sprintf("goroutine=%v", onGoroutine), func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				started := make(chan bool, 1)
				srv := &tcp.Server{TLS: config, OnGoroutine: onGoroutine, Handler: echo, OnStart: func(c *loop.Stream) {
					state, ok := tcp.TLSState(c)
					started <- ok && state.HandshakeComplete && state.Version == tls.VersionTLS13
				}}
				addr, stop := serve(t, backendtest.Group(t, v, 1), srv)
				c := dialTLS(t, addr)
				data := bytes.Repeat([]byte("hello "), 100_000)
				go func() {
					_, _ = c.Write(data)
					_ = c.CloseWrite()
				}()
				got, err := io.ReadAll(c)
				require.NoError(t, err)
				require.True(t, bytes.Equal(data, got))
				require.True(t, <-started, "OnStart sees no complete handshake")
				require.NoError(t, c.Close())
				require.NoError(t, stop())
				require.Equal(t, tcp.Stats{Accepted: 1}, srv.Stats())
			})
		})
	}
}

// A handshake that fails or takes too long is counted as such, not as a handler's
// failure, and is logged at the level Debug. The server serves further connections.
func TestTLSServerHandshakeFails(t *testing.T) {
	config, client := tlstest.Configs()
	panics := config.Clone()
	panics.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { panic("mine") }
	for name, tc := range map[string]struct {
		config *tls.Config
		peer   func(t *testing.T, nc *net.TCPConn)
		logged string
	}{
		"no TLS": {config, func(t *testing.T, nc *net.TCPConn) {
			_, err := io.WriteString(nc, "GET / HTTP/1.1\r\n\r\n")
			require.NoError(t, err)
		}, "first record does not look like a TLS handshake"},
		"too slow":  {config, func(*testing.T, *net.TCPConn) {}, "not complete after"},
		"goes away": {config, func(t *testing.T, nc *net.TCPConn) { require.NoError(t, nc.CloseWrite()) }, "EOF"},
		"does not trust": {config, func(t *testing.T, nc *net.TCPConn) {
			require.Error(t, tls.Client(nc, &tls.Config{ServerName: "noria.test"}).Handshake())
		}, "remote error"},
		"panic": {panics, func(t *testing.T, nc *net.TCPConn) { require.Error(t, tls.Client(nc, client).Handshake()) }, "panicked"},
	} {
		t.Run(name, func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				var log bytes.Buffer
				var mu sync.Mutex
				srv := &tcp.Server{TLS: tc.config, HandshakeTimeout: 5 * time.Second, Handler: echo,
					OnStart: func(*loop.Stream) { panic("a handler starts") },
					OnEnd:   func(*loop.Stream, error) { panic("a handler has ended") }}
				if name == "too slow" {
					srv.HandshakeTimeout = 10 * time.Millisecond
				}
				srv.Logger = slog.New(slog.NewTextHandler(&lockedWriter{&mu, &log}, &slog.HandlerOptions{Level: slog.LevelDebug}))
				addr, stop := serve(t, backendtest.Group(t, v, 1), srv)
				nc := dial(t, addr)
				tc.peer(t, nc)
				_, err := io.Copy(io.Discard, nc)
				require.False(t, errors.Is(err, os.ErrDeadlineExceeded), "the server does not close the connection")
				require.NoError(t, stop())
				require.Equal(t, tcp.Stats{Accepted: 1, TLSFailed: 1}, srv.Stats())
				mu.Lock()
				defer mu.Unlock()
				require.Contains(t, log.String(), "level=DEBUG msg=\"noria: a TLS handshake failed\"")
				require.Contains(t, log.String(), tc.logged)
			})
		})
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// Dial checks the certificate against the address's host if the configuration has no
// ServerName.
func TestTLSDial(t *testing.T) {
	config, client := tlstest.Configs()
	nameless := client.Clone()
	nameless.ServerName = ""
	wrong := client.Clone()
	wrong.ServerName = "elsewhere.test"
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		addr, stop := serve(t, g, &tcp.Server{TLS: config, Handler: echo})
		_, port, err := net.SplitHostPort(addr)
		require.NoError(t, err)
		open := func(ctx context.Context, address string, config *tls.Config) error {
			c, err := tcp.Dial(ctx, address, tcp.DialOptions{TLS: config})
			if err != nil {
				if c != nil {
					err = errors.New("a stream comes with the error")
				}
				return err
			}
			var p [5]byte
			_, werr := c.Write([]byte("hello"))
			_, rerr := io.ReadFull(c, p[:])
			if string(p[:]) != "hello" {
				rerr = errors.Join(rerr, fmt.Errorf("got %q", p))
			}
			return errors.Join(werr, rerr, c.Close())
		}
		require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
			if err := errors.Join(open(ctx, addr, client), open(ctx, "localhost:"+port, nameless), open(ctx, ":"+port, nameless)); err != nil {
				return err
			}
			for address, config := range map[string]*tls.Config{addr: nameless, "localhost:" + port: wrong} {
				var cert *tls.CertificateVerificationError
				if err := open(ctx, address, config); !errors.As(err, &cert) {
					return fmt.Errorf("%s: %v", address, err)
				}
			}
			return nil
		}))
		require.NoError(t, stop())
	})
}

// A lineServer speaks a protocol of lines that starts without TLS.
func lineServer(config *tls.Config) tcp.Handler {
	return func(ctx context.Context, c *loop.Stream) error {
		if _, err := io.WriteString(c, "220 ready\r\n"); err != nil {
			return err
		}
		for {
			line, err := readLine(c)
			if err != nil {
				return err
			}
			switch {
			case line == "STARTTLS":
				if _, err := io.WriteString(c, "220 go ahead\r\n"); err != nil {
					return err
				}
				if err := tcp.StartTLSServer(ctx, c, config); err != nil {
					return err
				}
			case line == "QUIT":
				_, err := io.WriteString(c, "221 bye\r\n")
				return err
			default:
				_, secure := tcp.TLSState(c)
				if _, err := fmt.Fprintf(c, "250 %s, secure=%v\r\n", line, secure); err != nil {
					return err
				}
			}
		}
	}
}

// readLine reads a line and no byte after it.
func readLine(c io.Reader) (string, error) {
	var line strings.Builder
	for !strings.HasSuffix(line.String(), "\r\n") {
		var p [1]byte
		if _, err := io.ReadFull(c, p[:]); err != nil {
			return "", err
		}
		line.Write(p[:])
	}
	return strings.TrimSuffix(line.String(), "\r\n"), nil
}

// lineClient is the client of a lineServer. It asks for TLS half-way.
func lineClient(c io.ReadWriter, secure func() (io.ReadWriter, error)) error {
	ask := func(line, want string) error {
		if line != "" {
			if _, err := io.WriteString(c, line+"\r\n"); err != nil {
				return err
			}
		}
		got, err := readLine(c)
		if err == nil && got != want {
			err = fmt.Errorf("%s: got %q, want %q", line, got, want)
		}
		return err
	}
	if err := errors.Join(ask("", "220 ready"), ask("NOOP", "250 NOOP, secure=false"), ask("STARTTLS", "220 go ahead")); err != nil {
		return err
	}
	s, err := secure()
	if err != nil {
		return err
	}
	c = s
	return errors.Join(ask("NOOP", "250 NOOP, secure=true"), ask("QUIT", "221 bye"))
}

// StartTLSServer and StartTLSClient work with each other and with crypto/tls.
func TestStartTLS(t *testing.T) {
	server, client := tlstest.Configs()
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		srv := &tcp.Server{Handler: lineServer(server)}
		addr, stop := serve(t, g, srv)
		t.Run("both", func(t *testing.T) {
			require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
				c, err := tcp.Dial(ctx, addr, tcp.DialOptions{})
				if err != nil {
					return err
				}
				err = lineClient(c, func() (io.ReadWriter, error) { return c, tcp.StartTLSClient(ctx, c, client) })
				return errors.Join(err, c.Close())
			}))
		})
		t.Run("server", func(t *testing.T) {
			nc := dial(t, addr)
			require.NoError(t, lineClient(nc, func() (io.ReadWriter, error) { return tls.Client(nc, client), nil }))
			require.NoError(t, nc.Close())
		})
		t.Run("client", func(t *testing.T) {
			backendtest.WithPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
				served := make(chan error, 1)
				go func() { served <- serveLines(peer, server) }()
				err := lineClient(s, func() (io.ReadWriter, error) { return s, tcp.StartTLSClient(ctx, s, client) })
				if oerr := loop.Offload(ctx, func() { err = errors.Join(err, <-served) }); oerr != nil {
					return oerr
				}
				return errors.Join(err, s.Close())
			})
		})
		require.NoError(t, stop())
		require.Zero(t, srv.Stats().Failed)
	})
}

// serveLines is a server for lineClient with crypto/tls.
func serveLines(nc net.Conn, config *tls.Config) error {
	_, err := io.WriteString(nc, "220 ready\r\n")
	for _, answer := range []string{"250 NOOP, secure=false", "220 go ahead", "250 NOOP, secure=true", "221 bye"} {
		if strings.HasSuffix(answer, "true") {
			nc = tls.Server(nc, config)
		}
		_, rerr := readLine(nc)
		_, werr := io.WriteString(nc, answer+"\r\n")
		err = errors.Join(err, rerr, werr)
	}
	return err
}

// Bytes that a peer sends between STARTTLS and the handshake, for example in one segment
// with STARTTLS, are never read as if they had come encrypted. A handshake that comes in
// one segment with STARTTLS succeeds.
func TestStartTLSTakesNoPlaintext(t *testing.T) {
	server, client := tlstest.Configs()
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		ended := make(chan error, 1)
		addr, stop := serve(t, backendtest.Group(t, v, 1), &tcp.Server{Handler: lineServer(server), OnEnd: func(_ *loop.Stream, err error) { ended <- err }})
		t.Run("injected", func(t *testing.T) {
			nc := dial(t, addr)
			_, err := io.WriteString(nc, "STARTTLS\r\nINJECTED\r\n")
			require.NoError(t, err)
			err = tls.Client(&ahead{nc, bufio.NewReader(nc)}, client).Handshake()
			require.Error(t, err)
			got := <-ended
			require.ErrorAs(t, got, new(tls.RecordHeaderError))
			require.ErrorContains(t, got, "tcp: tls handshake")
		})
		t.Run("handshake", func(t *testing.T) {
			nc := dial(t, addr)
			// The peer skips the server's lines, and sends its first flight together with
			// the request.
			c := tls.Client(&prefixed{ahead{nc, bufio.NewReader(nc)}, []byte("STARTTLS\r\n")}, client)
			_, err := io.WriteString(c, "NOOP\r\nQUIT\r\n")
			require.NoError(t, err)
			got, err := io.ReadAll(c)
			require.NoError(t, err)
			require.Equal(t, "250 NOOP, secure=true\r\n221 bye\r\n", string(got))
			require.NoError(t, <-ended)
		})
		require.NoError(t, stop())
	})
}

// ahead skips the two lines that the server sends first.
type ahead struct {
	net.Conn
	r *bufio.Reader
}

func (c *ahead) Read(p []byte) (int, error) {
	for {
		b, err := c.r.Peek(4)
		if err != nil {
			return 0, err
		}
		if string(b) != "220 " {
			return c.r.Read(p)
		}
		if _, err := c.r.ReadString('\n'); err != nil {
			return 0, err
		}
	}
}

// A prefixed conn sends a prefix before the first bytes that are written.
type prefixed struct {
	ahead
	prefix []byte
}

func (c *prefixed) Write(p []byte) (int, error) {
	n := len(c.prefix)
	w, err := c.Conn.Write(append(c.prefix, p...))
	c.prefix = nil
	return max(w-n, 0), err
}

// The end of the context ends the handshake.
func TestStartTLSContext(t *testing.T) {
	server, client := tlstest.Configs()
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		for name, start := range map[string]func(context.Context, *loop.Stream) error{
			"server": func(ctx context.Context, s *loop.Stream) error { return tcp.StartTLSServer(ctx, s, server) },
			"client": func(ctx context.Context, s *loop.Stream) error { return tcp.StartTLSClient(ctx, s, client) },
		} {
			t.Run(name, func(t *testing.T) {
				backendtest.WithPeer(t, g, func(ctx context.Context, s *loop.Stream, _ net.Conn) error {
					if _, ok := tcp.TLSState(s); ok {
						return errors.New("there is TLS before the handshake")
					}
					short, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
					defer cancel()
					if err := start(short, s); !errors.Is(err, context.DeadlineExceeded) {
						return fmt.Errorf("got %v", err)
					}
					if _, ok := tcp.TLSState(s); ok {
						return errors.New("there is TLS after a handshake that failed")
					}
					return s.Close()
				})
			})
		}
	})
}

// A connection that goroutines may use is upgraded from goroutines too, on both sides.
func TestStartTLSFromGoroutines(t *testing.T) {
	server, client := tlstest.Configs()
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		srv := &tcp.Server{OnGoroutine: true, Handler: func(ctx context.Context, c *loop.Stream) error {
			if err := tcp.StartTLSServer(ctx, c, server); err != nil {
				return err
			}
			return echo(ctx, c)
		}}
		addr, stop := serve(t, g, srv)
		c, err := tcp.Dial(t.Context(), addr, tcp.DialOptions{Net: loop.DialOptions{Group: g}})
		require.NoError(t, err)
		require.NoError(t, tcp.StartTLSClient(t.Context(), c, client))
		state, ok := tcp.TLSState(c)
		require.True(t, ok && state.HandshakeComplete)
		_, err = io.WriteString(c, "hello")
		require.NoError(t, err)
		got := make([]byte, 5)
		_, err = io.ReadFull(c, got)
		require.NoError(t, err)
		require.Equal(t, "hello", string(got))
		require.NoError(t, c.Close())
		require.NoError(t, stop())
		require.Zero(t, srv.Stats().Failed)

		ln, err := net.Listen("tcp", "127.0.0.1:0") // no handshake ends here
		require.NoError(t, err)
		defer ln.Close()
		c, err = tcp.Dial(t.Context(), ln.Addr().String(), tcp.DialOptions{Net: loop.DialOptions{Group: g}})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, tcp.StartTLSClient(ctx, c, client), context.DeadlineExceeded)
		require.NoError(t, c.Close())
	})
}
