package tlslayer_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/internal/tlslayer"
	"github.com/noria-go/noria/internal/tlstest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

var key friend.Key // opens what only this module may call: see internal/friend

// A reading and a writing task use both directions at once, with the calls that copy and
// those that move buffers.
func TestTLSBothWaysAtOnce(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				g := backendtest.Group(t, v, 1)
				random := backendtest.Rand(t)
				data := backendtest.RandomBytes(random, backendtest.Bulk())
				sum := sha256.Sum256(data)
				_, config := tlstest.Configs()
				config = config.Clone()
				config.MaxVersion = version
				tlstest.WithPeer(t, g, config, func(ctx context.Context, c *loop.Stream, peer *tls.Conn, _ net.Conn) error {
					state, ok := tlslayer.State(c)
					require.True(t, ok)
					require.Equal(t, version, state.Version)
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
					return errors.Join(err, writer.Wait(ctx), backendtest.Offload(ctx, func() error { return errors.Join(<-peerDone, <-peerDone) }), c.Close())
				})
			})
		})
	}
}

// writeMixed writes data in pieces, some with Write and some with WriteBuf.
func writeMixed(c *loop.Stream, data []byte, random *mathrand.Rand) error {
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
			b, err := c.Loop().Pool().Friend(key).Copy(0, piece[:min(len(piece), 1+random.IntN(5000))])
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

// A mixedReader reads with one call or the other, and sometimes puts bytes back.
type mixedReader struct {
	c *loop.Stream
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

// The handshake, and some bytes after it, succeed for both roles with the peer's bytes cut
// at every place.
func TestTLSHandshakeAtEveryCut(t *testing.T) {
	serverConfig, clientConfig := tlstest.Configs()
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
					backendtest.WithPeer(t, g, func(ctx context.Context, s *loop.Stream, raw net.Conn) error {
						cc := &tlstest.CutConn{Conn: raw, Loop: s.Loop(), Cut: cut}
						var peer *tls.Conn
						if side == "server" {
							peer = tls.Client(cc, clientConfig)
						} else {
							peer = tls.Server(cc, serverConfig)
						}
						peerDone := make(chan error, 1)
						go func() { peerDone <- tlstest.PingPong(peer) }()
						var err error
						if side == "server" {
							err = tlslayer.Server(ctx, s, serverConfig, 0)
						} else {
							err = tlslayer.Client(ctx, s, clientConfig, 0)
						}
						if err != nil {
							return fmt.Errorf("cut at %d: %w", cut, err)
						}
						var p [4]byte
						_, rerr := io.ReadFull(s, p[:])
						_, werr := s.Write(p[:])
						err = errors.Join(rerr, werr, backendtest.Offload(ctx, func() error { return <-peerDone }), s.Close())
						if total == 1<<20 {
							total = cc.Written
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

// A handshake that cannot be completed ends with the error that names the reason.
func TestTLSHandshakeEnds(t *testing.T) {
	serverConfig, clientConfig := tlstest.Configs()
	// stopped cancels the task that is in the handshake.
	stopped := func(kill bool) func(ctx context.Context, s *loop.Stream, _ net.Conn) error {
		return func(ctx context.Context, s *loop.Stream, _ net.Conn) error {
			task, err := loop.Go(ctx, "handshake", func(ctx context.Context) error {
				err := tlslayer.Server(ctx, s, serverConfig, 0)
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
				err := tlslayer.Server(ctx, s, serverConfig, time.Millisecond)
				return err
			}, os.ErrDeadlineExceeded},
			"cancelled": {func(ctx context.Context, s *loop.Stream, _ net.Conn) error {
				ctx, cancel := context.WithCancel(ctx)
				go func() {
					// The task is in the handshake when the loop has time for another one.
					_ = s.Loop().Call(context.Background(), "turn", func(context.Context) error { return nil })
					cancel()
				}()
				err := tlslayer.Server(ctx, s, serverConfig, time.Hour)
				return err
			}, context.Canceled},
			"cancelled before": {func(ctx context.Context, s *loop.Stream, _ net.Conn) error {
				ctx, cancel := context.WithCancel(ctx)
				cancel()
				err := tlslayer.Client(ctx, s, clientConfig, 0)
				return err
			}, context.Canceled},
			"context's deadline": {func(ctx context.Context, s *loop.Stream, _ net.Conn) error {
				ctx, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
				defer cancel()
				err := tlslayer.Client(ctx, s, clientConfig, 0)
				return err
			}, context.DeadlineExceeded},
			"killed":  {stopped(true), runtime.ErrCanceled},
			"drained": {stopped(false), context.Canceled},
			"peer gone": {func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
				_, err := peer.Write([]byte{22, 3, 1, 1, 0, 1, 0})
				require.NoError(t, err)
				require.NoError(t, peer.Close())
				err = tlslayer.Server(ctx, s, serverConfig, 0)
				return err
			}, io.ErrUnexpectedEOF},
		} {
			t.Run(name, func(t *testing.T) {
				backendtest.WithPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
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
			backendtest.WithPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
				_, err := peer.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
				require.NoError(t, err)
				err = tlslayer.Server(ctx, s, serverConfig, 0)
				if !errors.As(err, &tls.RecordHeaderError{}) {
					return fmt.Errorf("got %v", err)
				}
				return s.Close()
			})
		})
	})
}

// A goroutine can use a stream with TLS if the stream allows goroutines.
func TestTLSFromGoroutines(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		data := backendtest.RandomBytes(backendtest.Rand(t), 1<<20)
		sum := sha256.Sum256(data)
		tlstest.WithPeer(t, g, nil, func(ctx context.Context, c *loop.Stream, peer *tls.Conn, _ net.Conn) error {
			if err := backendtest.Offload(ctx, func() error { _, err := c.Read(make([]byte, 1)); return err }); !errors.Is(err, loop.ErrOffLoop) {
				return fmt.Errorf("before AllowGoroutines: %v", err)
			}
			c.Friend(key).AllowGoroutines(ctx)
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
			return backendtest.Offload(ctx, func() error {
				return errors.Join(sameBytes(c, sum), <-done, <-done, <-done, c.Close())
			})
		})
	})
}

// Calls that cannot succeed are refused and leave the stream as it was.
func TestTLSRefuses(t *testing.T) {
	server, client := tlstest.Configs()
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		tlstest.WithPeer(t, g, nil, func(ctx context.Context, s *loop.Stream, peer *tls.Conn, _ net.Conn) error {
			for name, side := range map[string]func(*tls.Config) error{
				"server": func(c *tls.Config) error { return tlslayer.Server(ctx, s, c, 0) },
				"client": func(c *tls.Config) error { return tlslayer.Client(ctx, s, c, 0) },
			} {
				require.Error(t, side(nil), name)
				require.ErrorContains(t, side(server), "has TLS already", name)
				require.ErrorIs(t, backendtest.Offload(ctx, func() error { return side(client) }), loop.ErrOffLoop, name)
			}
			if _, err := s.Write([]byte("ping")); err != nil {
				return err
			}
			return errors.Join(backendtest.Offload(ctx, func() error {
				var p [4]byte
				_, err := io.ReadFull(peer, p[:])
				return err
			}), s.Close())
		})
	})
}

// WaitAny works with the calls that never wait. The peer's bytes arrive one at a time, so
// that most of them do not complete a record.
func TestTLSReadable(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		tlstest.WithPeer(t, g, nil, func(ctx context.Context, c *loop.Stream, peer *tls.Conn, _ net.Conn) error {
			peerDone := make(chan error, 1)
			go func() {
				_, err := peer.Write([]byte("hello"))
				peerDone <- errors.Join(err, peer.CloseWrite())
			}()
			var got []byte
			for c.Buffered() > 0 || c.Friend(key).ReadErr() == nil {
				if b := c.TryReadBuf(); b != nil {
					got = append(got, b.Bytes()...)
					b.Release()
					continue
				}
				if _, err := loop.WaitAny(ctx, c.Readable()); err != nil {
					return err
				}
			}
			if string(got) != "hello" || c.Friend(key).ReadErr() != io.EOF {
				return fmt.Errorf("got %q, %v", got, c.Friend(key).ReadErr())
			}
			if i, err := loop.WaitAny(ctx, c.Writable(), c.Readable()); err != nil || i != 0 {
				return fmt.Errorf("%d, %v", i, err)
			}
			b, err := c.Loop().Pool().Friend(key).Copy(0, []byte("bye"))
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
			return errors.Join(backendtest.Offload(ctx, func() error {
				p, err := io.ReadAll(peer)
				if string(p) != "bye" {
					err = errors.Join(err, fmt.Errorf("the peer got %q", p))
				}
				return errors.Join(err, <-peerDone)
			}), c.Close())
		})
	})
}
