package compat_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// tlsConfigs are a server's and a client's that trusts it. The key exchange is
// a small one, so that there are fewer places to cut a handshake at.
var tlsConfigs = sync.OnceValues(func() (*tls.Config, *tls.Config) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "noria"}, DNSNames: []string{"noria.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	curves := []tls.CurveID{tls.X25519}
	server := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}, CurvePreferences: curves}
	return server, &tls.Config{RootCAs: roots, ServerName: "noria.test", CurvePreferences: curves}
})

// withTLSPeer runs f as a task with a TLSStream, the server's side, and its
// peer: crypto/tls on a goroutine, and the connection beneath that.
func withTLSPeer(t *testing.T, g *loop.Group, client *tls.Config, f func(ctx context.Context, c *compat.TLSStream, peer *tls.Conn, raw net.Conn) error) {
	t.Helper()
	serverConfig, clientConfig := tlsConfigs()
	if client != nil {
		clientConfig = client
	}
	withPeer(t, g, func(ctx context.Context, s *loop.Stream, raw net.Conn) error {
		peer := tls.Client(raw, clientConfig)
		shaken := make(chan error, 1)
		go func() { shaken <- peer.Handshake() }()
		c, err := compat.TLSServer(ctx, s, serverConfig, compat.TLSOptions{})
		if err != nil {
			return err
		}
		if err := loop.Offload(ctx, func() { err = <-shaken }); err != nil {
			return err
		}
		if err != nil {
			return err
		}
		return f(ctx, c, peer, raw)
	})
}

// seeded returns a source of numbers whose seed the test's output tells.
func seeded(t *testing.T) *mathrand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("NORIA_SEED"); s != "" {
		_, err := fmt.Sscan(s, &seed)
		require.NoError(t, err)
	}
	t.Logf("NORIA_SEED=%d", seed)
	return mathrand.New(mathrand.NewPCG(seed, 0))
}

func randomBytes(r *mathrand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// offload runs f off the loop and returns its error.
func offload(ctx context.Context, f func() error) error {
	var err error
	if oerr := loop.Offload(ctx, func() { err = f() }); oerr != nil {
		return oerr
	}
	return err
}

func bulk(t *testing.T) int {
	if testing.Short() {
		return 1 << 20
	}
	return 16 << 20
}

// Both directions at once, by a reading and a writing task, through the calls
// that copy and those that hand over buffers.
func TestTLSBothWaysAtOnce(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				g := backendtest.Group(t, v, 1)
				random := seeded(t)
				data := randomBytes(random, bulk(t))
				sum := sha256.Sum256(data)
				_, config := tlsConfigs()
				config = config.Clone()
				config.MaxVersion = version
				withTLSPeer(t, g, config, func(ctx context.Context, c *compat.TLSStream, peer *tls.Conn, _ net.Conn) error {
					require.Equal(t, version, c.ConnectionState().Version)
					peerDone := make(chan error, 2)
					go func() {
						_, err := peer.Write(data)
						peerDone <- errors.Join(err, peer.CloseWrite())
					}()
					go func() { peerDone <- sameBytes(peer, sum) }()

					writer, err := loop.Go(ctx, "writer", func(context.Context) error {
						if err := writeMixed(c, data, random); err != nil {
							return err
						}
						return c.CloseWrite()
					})
					if err != nil {
						return err
					}
					err = sameBytes(&mixedReader{c: c, r: random}, sum)
					if _, rerr := c.Read(make([]byte, 1)); rerr != io.EOF {
						err = errors.Join(err, fmt.Errorf("reading after the end: %v", rerr))
					}
					return errors.Join(err, writer.Wait(ctx), offload(ctx, func() error { return errors.Join(<-peerDone, <-peerDone) }), c.Close())
				})
			})
		})
	}
}

// writeMixed writes data in pieces, some copied and some in buffers.
func writeMixed(c *compat.TLSStream, data []byte, random *mathrand.Rand) error {
	for len(data) > 0 {
		n := min(len(data), 1+random.IntN(40_000))
		piece := data[:n]
		data = data[n:]
		if random.IntN(2) == 0 {
			if _, err := c.Write(piece); err != nil {
				return err
			}
			continue
		}
		var bufs []*runtime.Buffer
		for len(piece) > 0 {
			b, err := c.Loop().Pool().Copy(0, piece[:min(len(piece), 1+random.IntN(5000))])
			if err != nil {
				return err
			}
			piece = piece[b.Len():]
			bufs = append(bufs, b)
		}
		if err := c.WriteBuf(bufs...); err != nil {
			return err
		}
	}
	return nil
}

// A mixedReader reads by one or the other of the calls, and puts bytes back.
type mixedReader struct {
	c *compat.TLSStream
	r *mathrand.Rand
}

func (m *mixedReader) Read(p []byte) (int, error) {
	if m.r.IntN(2) == 0 {
		return m.c.Read(p[:min(len(p), 1+m.r.IntN(len(p)))])
	}
	b, err := m.c.ReadBuf()
	if err != nil {
		return 0, err
	}
	n := copy(p, b.Bytes())
	b.Advance(n)
	m.c.Unread(b) // also when nothing is left
	return n, nil
}

func sameBytes(r io.Reader, sum [sha256.Size]byte) error {
	h := sha256.New()
	n, err := io.Copy(h, struct{ io.Reader }{r})
	if err == nil && [sha256.Size]byte(h.Sum(nil)) != sum {
		err = fmt.Errorf("%d bytes came, and their checksum is another one", n)
	}
	return err
}

// A cutConn writes its first bytes up to a place by themselves, and the rest
// after the loop had a few turns.
type cutConn struct {
	net.Conn
	loop    *loop.Loop
	cut     int // where; negative: between all bytes
	written int
}

func (c *cutConn) Write(p []byte) (n int, err error) {
	for n < len(p) {
		end := len(p)
		if c.cut < 0 {
			end = n + 1
		} else if here := c.cut - c.written; here > 0 && here < len(p)-n {
			end = n + here
		}
		m, err := c.Conn.Write(p[n:end])
		n += m
		c.written += m
		if err != nil {
			return n, err
		}
		if n < len(p) {
			if err := c.loop.Call(context.Background(), "turns", func(ctx context.Context) error {
				return errors.Join(loop.Yield(ctx), loop.Yield(ctx))
			}); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// The handshake, and some bytes after it, cut at every byte of what the peer
// sends, for both sides.
func TestTLSHandshakeAtEveryCut(t *testing.T) {
	serverConfig, clientConfig := tlsConfigs()
	for _, side := range []string{"server", "client"} {
		t.Run(side, func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				g := backendtest.Group(t, v, 1)
				total := 1 << 20 // how much the peer sends: the first run tells
				step := 1
				if testing.Short() {
					step = 23
				}
				for cut := -1; cut < total; cut += step {
					withPeer(t, g, func(ctx context.Context, s *loop.Stream, raw net.Conn) error {
						cc := &cutConn{Conn: raw, loop: s.Loop(), cut: cut}
						var peer *tls.Conn
						if side == "server" {
							peer = tls.Client(cc, clientConfig)
						} else {
							peer = tls.Server(cc, serverConfig)
						}
						peerDone := make(chan error, 1)
						go func() { peerDone <- peerPingPong(peer) }()
						var c *compat.TLSStream
						var err error
						if side == "server" {
							c, err = compat.TLSServer(ctx, s, serverConfig, compat.TLSOptions{})
						} else {
							c, err = compat.TLSClient(ctx, s, clientConfig, compat.TLSOptions{})
						}
						if err != nil {
							return fmt.Errorf("cut at %d: %w", cut, err)
						}
						var p [4]byte
						_, rerr := io.ReadFull(c, p[:])
						_, werr := c.Write(p[:])
						err = errors.Join(rerr, werr, offload(ctx, func() error { return <-peerDone }), c.Close())
						if total == 1<<20 {
							total = cc.written
						}
						if err != nil {
							err = fmt.Errorf("cut at %d: %w", cut, err)
						}
						return err
					})
				}
			})
		})
	}
}

func peerPingPong(peer *tls.Conn) error {
	if _, err := peer.Write([]byte("ping")); err != nil {
		return err
	}
	var p [4]byte
	if _, err := io.ReadFull(peer, p[:]); err != nil {
		return err
	}
	if string(p[:]) != "ping" {
		return fmt.Errorf("the peer got %q", p)
	}
	return nil
}

// What a caller waits for in a handshake that does not come to its end.
func TestTLSHandshakeEnds(t *testing.T) {
	serverConfig, clientConfig := tlsConfigs()
	// stopped cancels the task that is in the handshake.
	stopped := func(kill bool) func(ctx context.Context, s *loop.Stream, _ net.Conn) error {
		return func(ctx context.Context, s *loop.Stream, _ net.Conn) error {
			task, err := loop.Go(ctx, "handshake", func(ctx context.Context) error {
				_, err := compat.TLSServer(ctx, s, serverConfig, compat.TLSOptions{})
				return err
			})
			if err == nil {
				err = loop.Yield(ctx)
			}
			if err != nil {
				return err
			}
			task.Cancel(kill)
			return task.Wait(ctx)
		}
	}
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		for name, tc := range map[string]struct {
			run  func(ctx context.Context, s *loop.Stream, peer net.Conn) error
			want error
		}{
			"timeout": {func(ctx context.Context, s *loop.Stream, _ net.Conn) error {
				_, err := compat.TLSServer(ctx, s, serverConfig, compat.TLSOptions{HandshakeTimeout: time.Millisecond})
				return err
			}, os.ErrDeadlineExceeded},
			"cancelled": {func(ctx context.Context, s *loop.Stream, _ net.Conn) error {
				ctx, cancel := context.WithCancel(ctx)
				go func() {
					// The task is in the handshake when the loop has time for another one.
					_ = s.Loop().Call(context.Background(), "turn", func(context.Context) error { return nil })
					cancel()
				}()
				_, err := compat.TLSServer(ctx, s, serverConfig, compat.TLSOptions{HandshakeTimeout: time.Hour})
				return err
			}, context.Canceled},
			"cancelled before": {func(ctx context.Context, s *loop.Stream, _ net.Conn) error {
				ctx, cancel := context.WithCancel(ctx)
				cancel()
				_, err := compat.TLSClient(ctx, s, clientConfig, compat.TLSOptions{})
				return err
			}, context.Canceled},
			"context's deadline": {func(ctx context.Context, s *loop.Stream, _ net.Conn) error {
				ctx, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
				defer cancel()
				_, err := compat.TLSClient(ctx, s, clientConfig, compat.TLSOptions{})
				return err
			}, context.DeadlineExceeded},
			"killed":  {stopped(true), runtime.ErrCanceled},
			"drained": {stopped(false), context.Canceled},
			"peer gone": {func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
				_, err := peer.Write([]byte{22, 3, 1, 1, 0, 1, 0})
				require.NoError(t, err)
				require.NoError(t, peer.Close())
				_, err = compat.TLSServer(ctx, s, serverConfig, compat.TLSOptions{})
				return err
			}, io.ErrUnexpectedEOF},
		} {
			t.Run(name, func(t *testing.T) {
				withPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
					err := tc.run(ctx, s, peer)
					if !errors.Is(err, tc.want) {
						return fmt.Errorf("got %v, want %v", err, tc.want)
					}
					if err := loop.Yield(ctx); err != nil { // what was posted late must do no harm
						return err
					}
					return s.Close()
				})
			})
		}
		t.Run("not TLS", func(t *testing.T) {
			withPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
				_, err := peer.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
				require.NoError(t, err)
				_, err = compat.TLSServer(ctx, s, serverConfig, compat.TLSOptions{})
				if !errors.As(err, &tls.RecordHeaderError{}) {
					return fmt.Errorf("got %v", err)
				}
				return s.Close()
			})
		})
	})
}

// A server's handler on a goroutine has the same methods.
func TestTLSFromGoroutines(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		data := randomBytes(seeded(t), 1<<20)
		sum := sha256.Sum256(data)
		withTLSPeer(t, g, nil, func(ctx context.Context, c *compat.TLSStream, peer *tls.Conn, _ net.Conn) error {
			if err := offload(ctx, func() error { _, err := c.Read(make([]byte, 1)); return err }); !errors.Is(err, loop.ErrOffLoop) {
				return fmt.Errorf("before AllowGoroutines: %v", err)
			}
			c.AllowGoroutines(ctx)
			done := make(chan error, 3)
			go func() {
				_, err := peer.Write(data)
				done <- errors.Join(err, peer.CloseWrite())
			}()
			go func() { done <- sameBytes(peer, sum) }()
			go func() {
				_, err := c.Write(data)
				done <- errors.Join(err, c.CloseWrite())
			}()
			return offload(ctx, func() error {
				return errors.Join(sameBytes(c, sum), <-done, <-done, <-done, c.Close())
			})
		})
	})
}

func TestTLSOnlyInATask(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		_, nc, stop, err := pipe(backendtest.Group(t, v, 2))()
		require.NoError(t, err)
		defer stop()
		server, client := tlsConfigs()
		s := nc.(*compat.Conn).Stream
		_, err = compat.TLSServer(context.Background(), s, server, compat.TLSOptions{})
		require.ErrorIs(t, err, loop.ErrOffLoop)
		_, err = compat.TLSClient(context.Background(), s, client, compat.TLSOptions{})
		require.ErrorIs(t, err, loop.ErrOffLoop)
	})
}

// WaitAny and the calls that never wait: one byte at a time, so that most of
// what arrives is not a record yet.
func TestTLSReadable(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		withTLSPeer(t, g, nil, func(ctx context.Context, c *compat.TLSStream, peer *tls.Conn, _ net.Conn) error {
			peerDone := make(chan error, 1)
			go func() {
				_, err := peer.Write([]byte("hello"))
				peerDone <- errors.Join(err, peer.CloseWrite())
			}()
			var got []byte
			for c.ReadErr() == nil {
				if b := c.TryReadBuf(); b != nil {
					got = append(got, b.Bytes()...)
					b.Release()
					continue
				}
				if _, err := loop.WaitAny(ctx, c.Readable()); err != nil {
					return err
				}
			}
			if string(got) != "hello" || c.ReadErr() != io.EOF {
				return fmt.Errorf("got %q, %v", got, c.ReadErr())
			}
			if i, err := loop.WaitAny(ctx, c.Writable(), c.Readable()); err != nil || i != 0 {
				return fmt.Errorf("%d, %v", i, err)
			}
			b, err := c.Loop().Pool().Copy(0, []byte("bye"))
			if err != nil {
				return err
			}
			if err := c.TryWriteBuf(b); err != nil {
				return err
			}
			if err := c.CloseWrite(); err != nil {
				return err
			}
			if _, err := c.Write([]byte("x")); !errors.Is(err, runtime.ErrClosed) {
				return fmt.Errorf("writing after CloseWrite: %v", err)
			}
			return errors.Join(offload(ctx, func() error {
				p, err := io.ReadAll(peer)
				if string(p) != "bye" {
					err = errors.Join(err, fmt.Errorf("the peer got %q", p))
				}
				return errors.Join(err, <-peerDone)
			}), c.Close())
		})
	})
}
