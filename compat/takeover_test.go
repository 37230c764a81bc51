package compat_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/tlstest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

func TestTakeOver(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer ln.Close()
		client, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		defer client.Close()
		nc, err := ln.Accept()
		require.NoError(t, err)

		s, pumped, err := compat.TakeOver(g.Loops()[0], nc, compat.TakeOverOptions{Unread: []byte("before ")})
		require.NoError(t, err)
		require.False(t, pumped)
		requireEcho(t, g, s, client, "before hello")
	})
}

func TestTakeOverOfTLSIsPumped(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		server := httptest.NewUnstartedServer(nil)
		server.StartTLS() // for its certificate
		config := server.TLS.Clone()
		server.Close()
		near, far := net.Pipe()
		client := tls.Client(near, &tls.Config{InsecureSkipVerify: true})
		s, pumped, err := compat.TakeOver(g.Loops()[0], tls.Server(far, config), compat.TakeOverOptions{})
		require.NoError(t, err)
		require.True(t, pumped)
		require.Equal(t, far.LocalAddr(), s.LocalAddr(), "whose bytes they are")
		require.Equal(t, far.RemoteAddr(), s.RemoteAddr())
		requireEcho(t, g, s, client, "hello")
		require.NoError(t, client.Close())
	})
}

// requireEcho has s echo what client sends, until client ends its side.
func requireEcho(t *testing.T, g *loop.Group, s *loop.Stream, client net.Conn, want string) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		done <- backendtest.Run(t, g, func(context.Context) error {
			_, err := io.Copy(s, s)
			return errors.Join(err, s.Close())
		})
	}()
	_, err := client.Write([]byte("hello"))
	require.NoError(t, err)
	got := make([]byte, len(want))
	_, err = io.ReadFull(client, got)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
	require.NoError(t, client.(interface{ CloseWrite() error }).CloseWrite())
	require.NoError(t, <-done)
}

// A handler of net/http hijacks a connection that package net or a Listener accepted, and
// moves it to a loop. Neither needs a pump.
func TestTakeOverHijacked(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, ours := range []bool{false, true} {
			g := backendtest.Group(t, v, 1)
			var ln net.Listener
			var err error
			if ours {
				ln, err = compat.Listen(g, "127.0.0.1:0", loop.ListenOptions{})
			} else {
				ln, err = net.Listen("tcp", "127.0.0.1:0")
			}
			require.NoError(t, err)
			echoed := make(chan error, 1)
			srv := &httptest.Server{Listener: ln, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				nc, rw, err := w.(http.Hijacker).Hijack()
				if err != nil {
					echoed <- err
					return
				}
				unread, _ := rw.Reader.Peek(rw.Reader.Buffered())
				s, pumped, err := compat.TakeOver(g.Loops()[0], nc, compat.TakeOverOptions{Unread: bytes.Clone(unread)})
				if pumped {
					err = errors.Join(err, errors.New("it was pumped"))
				}
				if err != nil {
					echoed <- err
					return
				}
				echoed <- backendtest.Run(t, g, func(context.Context) error {
					_, err := io.Copy(s, s)
					return errors.Join(err, s.Close())
				})
			})}}
			srv.Start()
			client, err := net.Dial("tcp", ln.Addr().String())
			require.NoError(t, err)
			_, err = io.WriteString(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\nbehind the request, ")
			require.NoError(t, err)
			_, err = io.WriteString(client, "and later")
			require.NoError(t, err)
			require.NoError(t, client.(*net.TCPConn).CloseWrite())
			got, err := io.ReadAll(client)
			require.NoError(t, err)
			require.Equal(t, "behind the request, and later", string(got))
			require.NoError(t, <-echoed)
			require.NoError(t, client.Close())
			srv.Close()
		}
	})
}

// tcpPair returns the two ends of a connection, both of package net.
func tcpPair(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = nc.Close() })
	require.NoError(t, nc.SetDeadline(time.Now().Add(30*time.Second)))
	other, err := ln.Accept()
	require.NoError(t, err)
	return nc.(*net.TCPConn), other.(*net.TCPConn)
}

// A watched connection closes a channel when it is closed.
type watched struct {
	*tls.Conn
	once   sync.Once
	closed chan struct{}
}

func (w *watched) Close() error {
	defer w.once.Do(func() { close(w.closed) })
	return w.Conn.Close()
}

// tlsTakenOver is a connection over TLS, moved to g's loop.
func tlsTakenOver(t *testing.T, g *loop.Group, opts loop.StreamOptions) (s *loop.Stream, client *tls.Conn, raw *net.TCPConn, nc *watched) {
	t.Helper()
	serverConfig, clientConfig := tlstest.Configs()
	raw, server := tcpPair(t)
	nc = &watched{Conn: tls.Server(server, serverConfig), closed: make(chan struct{})}
	s, pumped, err := compat.TakeOver(g.Loops()[0], nc, compat.TakeOverOptions{Stream: opts})
	require.NoError(t, err)
	require.True(t, pumped)
	return s, tls.Client(raw, clientConfig), raw, nc
}

// A pumped connection ends when its stream does, whatever the peer does.
func TestPumpEndsWithItsStream(t *testing.T) {
	for name, test := range map[string]struct {
		silent bool // the client does not even shake hands
		linger time.Duration
		use    func(t *testing.T, g *loop.Group, s *loop.Stream, client *tls.Conn) error
	}{
		"idle peer":                        {},
		"a peer that does not shake hands": {silent: true, linger: 10 * time.Millisecond},
		"a peer whose bytes are not read": {use: func(t *testing.T, g *loop.Group, s *loop.Stream, client *tls.Conn) error {
			_, err := client.Write(make([]byte, 100_000))
			return err
		}},
		"a peer that does not read": {linger: 10 * time.Millisecond, use: func(t *testing.T, g *loop.Group, s *loop.Stream, _ *tls.Conn) error {
			return backendtest.Run(t, g, func(context.Context) error {
				return s.Friend(key).Enqueue(runtime.NewShared(make([]byte, 16<<20)))
			})
		}},
		"a peer that has ended its side": {use: func(t *testing.T, g *loop.Group, s *loop.Stream, client *tls.Conn) error {
			return errors.Join(client.CloseWrite(), backendtest.Run(t, g, func(context.Context) error {
				_, err := io.ReadAll(s)
				return err
			}))
		}},
		"after CloseWrite": {use: func(t *testing.T, g *loop.Group, s *loop.Stream, client *tls.Conn) error {
			err := backendtest.Run(t, g, func(context.Context) error { return s.CloseWrite() })
			_, rerr := io.ReadAll(client)
			return errors.Join(err, rerr)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				g := backendtest.Group(t, v, 1)
				s, client, _, nc := tlsTakenOver(t, g, loop.StreamOptions{Linger: test.linger})
				if !test.silent {
					require.NoError(t, client.Handshake())
				}
				if test.use != nil {
					require.NoError(t, test.use(t, g, s, client))
				}
				select {
				case <-nc.closed:
					require.FailNow(t, "it was closed before its stream")
				default:
				}
				_ = backendtest.Run(t, g, func(context.Context) error { return s.Close() }) // it says what was not sent
				select {
				case <-nc.closed:
				case <-time.After(30 * time.Second):
					require.FailNow(t, "the connection is still open")
				}
			})
		})
	}
}

func TestPumpEndsWithItsLoop(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		_, client, _, nc := tlsTakenOver(t, g, loop.StreamOptions{})
		require.NoError(t, client.Handshake())
		require.NoError(t, g.Stop())
		<-nc.closed
	})
}

// After Write and Close, the bytes in the pump still arrive.
func TestPumpSendsWhatWasWritten(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		s, client, _, nc := tlsTakenOver(t, g, loop.StreamOptions{})
		data := backendtest.RandomBytes(backendtest.Rand(t), backendtest.Bulk())
		closed := make(chan error, 1)
		go func() {
			closed <- backendtest.Run(t, g, func(context.Context) error {
				_, err := s.Write(data)
				return errors.Join(err, s.Close())
			})
		}()
		got, err := io.ReadAll(client)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got), "%d bytes of %d", len(got), len(data))
		require.NoError(t, <-closed)
		<-nc.closed
	})
}

// When reading a pumped connection fails, the stream's reads return that error, not io.EOF.
func TestPumpTellsHowReadingEnded(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(client *tls.Conn, raw *net.TCPConn) error
		want func(t *testing.T, err error)
	}{
		"goodbye": {
			func(client *tls.Conn, _ *net.TCPConn) error { return client.CloseWrite() },
			func(t *testing.T, err error) { require.Equal(t, io.EOF, err) },
		},
		"bad record": {
			func(_ *tls.Conn, raw *net.TCPConn) error {
				_, err := raw.Write(append([]byte{23, 3, 3, 0, 40}, make([]byte, 40)...))
				return err
			},
			func(t *testing.T, err error) {
				var alert *net.OpError
				require.ErrorAs(t, err, &alert)
				require.Equal(t, "local error", alert.Op)
			},
		},
		"cut in a record": {
			func(_ *tls.Conn, raw *net.TCPConn) error {
				_, err := raw.Write([]byte{23, 3, 3, 0, 40, 1, 2, 3})
				return errors.Join(err, raw.CloseWrite())
			},
			func(t *testing.T, err error) { require.ErrorIs(t, err, io.ErrUnexpectedEOF) },
		},
		"reset": {
			func(_ *tls.Conn, raw *net.TCPConn) error { return errors.Join(raw.SetLinger(0), raw.Close()) },
			func(t *testing.T, err error) { require.ErrorIs(t, err, syscall.ECONNRESET) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				for _, into := range []bool{false, true} {
					g := backendtest.Group(t, v, 1)
					s, client, raw, _ := tlsTakenOver(t, g, loop.StreamOptions{})
					_, err := client.Write([]byte("half a mess"))
					require.NoError(t, err)
					var first, again error
					require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
						got := make([]byte, len("half a mess"))
						if _, err := io.ReadFull(s, got); err != nil {
							return err
						}
						if err := backendtest.Offload(ctx, func() error { return test.end(client, raw) }); err != nil {
							return err
						}
						if into {
							b, err := s.Loop().Pool().Get(1000)
							if err != nil {
								return err
							}
							defer b.Release()
							_, first = s.ReadInto(b)
						} else {
							_, first = s.ReadBuf()
						}
						_, again = s.Read(got)
						return s.Close()
					}))
					test.want(t, first)
					require.Equal(t, first, again)
				}
			})
		})
	}
}

// A halfBroken takes no bytes.
type halfBroken struct{ net.Conn }

var errBroken = errors.New("it takes no bytes")

func (halfBroken) Write([]byte) (int, error) { return 0, errBroken }

// When a connection that is pumped takes no more bytes, writing to the stream fails with
// the connection's own error, and reading continues.
func TestPumpTellsHowWritingEnded(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		client, server := tcpPair(t)
		s, pumped, err := compat.TakeOver(g.Loops()[0], halfBroken{server}, compat.TakeOverOptions{})
		require.NoError(t, err)
		require.True(t, pumped)
		require.NoError(t, backendtest.Run(t, g, func(context.Context) error {
			for err == nil {
				_, err = s.Write(make([]byte, 64<<10))
			}
			if ferr := s.Flush(); !errors.Is(err, errBroken) || !errors.Is(ferr, errBroken) {
				return fmt.Errorf("Write: %w, Flush: %w", err, ferr)
			}
			if _, err := io.WriteString(client, "hello"); err != nil {
				return err
			}
			got := make([]byte, len("hello"))
			if _, err := io.ReadFull(s, got); err != nil || string(got) != "hello" {
				return fmt.Errorf("%q, %w", got, err)
			}
			if err := s.Close(); !errors.Is(err, errBroken) {
				return fmt.Errorf("Close: %w", err)
			}
			return nil
		}))
	})
}

// A peeking connection holds bytes that it has read, and changes those that are written.
type peeking struct {
	net.Conn
	front []byte
}

func (p *peeking) Read(b []byte) (int, error) {
	if len(p.front) > 0 {
		n := copy(b, p.front)
		p.front = p.front[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

func (p *peeking) Write(b []byte) (int, error) { return p.Conn.Write(bytes.ToUpper(b)) }

// A peekingTCP also has the methods of its *net.TCPConn, such as SyscallConn, ReadFrom and
// WriteTo, which would bypass those of peeking.
type peekingTCP struct {
	*net.TCPConn
	p peeking
}

func (p *peekingTCP) Read(b []byte) (int, error)  { return p.p.Read(b) }
func (p *peekingTCP) Write(b []byte) (int, error) { return p.p.Write(b) }

// A peekingConn is a peekingTCP over a Conn.
type peekingConn struct {
	*compat.Conn
	p peeking
}

func (p *peekingConn) Read(b []byte) (int, error)  { return p.p.Read(b) }
func (p *peekingConn) Write(b []byte) (int, error) { return p.p.Write(b) }

// TakeOver does not bypass a type that wraps a connection.
func TestTakeOverOfAWrapperIsPumped(t *testing.T) {
	for name, wrap := range map[string]func(nc net.Conn) net.Conn{
		"wraps":              func(nc net.Conn) net.Conn { return &peeking{nc, []byte("front ")} },
		"embeds a TCPConn":   func(nc net.Conn) net.Conn { return &peekingTCP{nc.(*net.TCPConn), peeking{nc, []byte("front ")}} },
		"embeds a Conn":      func(nc net.Conn) net.Conn { return &peekingConn{nc.(*compat.Conn), peeking{nc, []byte("front ")}} },
		"another loop's own": func(nc net.Conn) net.Conn { return nc },
	} {
		t.Run(name, func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				g := backendtest.Group(t, v, 2)
				var client, nc net.Conn
				if name == "embeds a Conn" || name == "another loop's own" {
					c1, c2, stop, err := pipe(g)()
					require.NoError(t, err)
					defer stop()
					client, nc = c1, c2
				} else {
					client, nc = tcpPair(t)
				}
				l := g.Loops()[0]
				if c, ok := nc.(*compat.Conn); ok && c.Loop() == l {
					l = g.Loops()[1]
				}
				want := "front HELLO"
				if wrap(nc) == nc {
					want = "hello"
				}
				s, pumped, err := compat.TakeOver(l, wrap(nc), compat.TakeOverOptions{})
				require.NoError(t, err)
				require.True(t, pumped)
				_, err = client.Write([]byte("hello"))
				require.NoError(t, err)
				require.NoError(t, l.Call(context.Background(), t.Name(), func(context.Context) error {
					got := make([]byte, len(want))
					if _, err := io.ReadFull(s, got); err != nil {
						return err
					}
					_, err := s.Write(got)
					return errors.Join(err, s.Close())
				}))
				got, err := io.ReadAll(client)
				require.NoError(t, err)
				if want != "hello" {
					require.Equal(t, "FRONT HELLO", string(got))
				} else {
					require.Equal(t, want, string(got))
				}
			})
		})
	}
}

// TakeOver refuses a datagram connection and a loop's stream, and does not change them.
func TestTakeOverRefuses(t *testing.T) {
	for name, open := range map[string]func(s *loop.Stream, dir string) (net.Conn, error){
		"a stream": func(s *loop.Stream, _ string) (net.Conn, error) { return s, nil },
		"udp": func(*loop.Stream, string) (net.Conn, error) {
			return net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		},
		"wrapped udp": func(*loop.Stream, string) (net.Conn, error) {
			c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			return &peeking{Conn: c}, err
		},
		"unixgram": func(_ *loop.Stream, dir string) (net.Conn, error) {
			return net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(dir, "s")})
		},
	} {
		t.Run(name, func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				dir, g := t.TempDir(), backendtest.Group(t, v, 1)
				withPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
					if _, err := peer.Write([]byte("x")); err != nil {
						return err
					}
					nc, err := open(s, dir)
					if err != nil {
						return err
					}
					if err := backendtest.Offload(ctx, func() error {
						_, _, err := compat.TakeOver(g.Loops()[0], nc, compat.TakeOverOptions{})
						return err
					}); !errors.Is(err, errors.ErrUnsupported) {
						return errors.Join(errors.New("it was taken"), err)
					}
					_, err = s.Read([]byte{0})
					err = errors.Join(err, nc.Close())
					_ = s.Close() // it may have been nc
					return err
				})
			})
		})
	}
}

// TakeOver of a Conn that has ended fails, and does not lose Unread in silence.
func TestTakeOverOfAConnThatHasEnded(t *testing.T) {
	for name, end := range map[string]func(g *loop.Group, nc net.Conn) error{
		"closed":     func(_ *loop.Group, nc net.Conn) error { return nc.Close() },
		"loop ended": func(g *loop.Group, _ net.Conn) error { return g.Stop() },
	} {
		t.Run(name, func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				g := backendtest.Group(t, v, 1)
				_, nc, stop, err := pipe(g)()
				require.NoError(t, err)
				defer stop()
				require.NoError(t, end(g, nc))
				s, _, err := compat.TakeOver(g.Loops()[0], nc, compat.TakeOverOptions{Unread: []byte("precious")})
				require.ErrorIs(t, err, net.ErrClosed)
				require.Nil(t, s)
			})
		})
	}
}
