package tlslayer_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/tlslayer"
	"github.com/noria-go/noria/internal/tlstest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// The defaults of loop.StreamOptions.
const (
	inboxLimit = 256 << 10
	queueLimit = 64 << 10
	linger     = 5 * time.Second
)

// pooled returns a buffer of s's loop.
func pooled(s *loop.Stream, p []byte) *runtime.Buffer {
	b, err := s.Loop().Pool().Friend(key).Copy(64, p)
	if err != nil {
		panic(err)
	}
	return b
}

// writes are the ways in which a task can write p.
var writes = map[string]func(s *loop.Stream, p []byte) error{
	"Write":       func(s *loop.Stream, p []byte) error { _, err := s.Write(p); return err },
	"WriteBuf":    func(s *loop.Stream, p []byte) error { return s.WriteBuf(pooled(s, p[:1]), pooled(s, p[1:])) },
	"shared":      func(s *loop.Stream, p []byte) error { return s.WriteBuf(runtime.NewShared(p)) },
	"TryWriteBuf": func(s *loop.Stream, p []byte) error { return s.TryWriteBuf(pooled(s, p)) },
	"Enqueue": func(s *loop.Stream, p []byte) error {
		return s.Friend(key).Enqueue(pooled(s, p), pooled(s, nil))
	},
	"Grow": func(s *loop.Stream, p []byte) error {
		half := min(len(p)/2, 16<<10)
		to, err := s.Friend(key).Grow(half, len(p))
		if err != nil {
			return err
		}
		copy(to, p)
		if to = s.Friend(key).TryGrow(1); to == nil {
			return fmt.Errorf("TryGrow finds no room of %d bytes", s.Friend(key).TailRoom())
		}
		to[0] = p[half]
		_, err = s.Write(p[half+1:])
		return err
	},
	"handed on": func(s *loop.Stream, p []byte) error {
		s.Unread(runtime.NewShared(p))
		b, err := s.ReadBuf()
		if err == nil {
			err = s.WriteBuf(b)
		}
		return err
	},
}

// reads are the ways in which a task can read up to n bytes.
var reads = map[string]func(ctx context.Context, s *loop.Stream, n int) ([]byte, error){
	"Read": func(_ context.Context, s *loop.Stream, n int) ([]byte, error) {
		p := make([]byte, n)
		n, err := s.Read(p)
		return p[:n], err
	},
	"ReadBuf": func(_ context.Context, s *loop.Stream, n int) ([]byte, error) {
		b, err := s.ReadBuf()
		if err != nil {
			return nil, err
		}
		p := bytes.Clone(b.Bytes()[:min(n, b.Len())])
		b.Advance(len(p))
		s.Unread(b)
		return p, nil
	},
	"TryReadBuf": func(ctx context.Context, s *loop.Stream, n int) ([]byte, error) {
		for {
			if b := s.TryReadBuf(); b != nil {
				p := bytes.Clone(b.Bytes()[:min(n, b.Len())])
				b.Advance(len(p))
				s.Unread(b)
				return p, nil
			}
			if err := s.Friend(key).ReadErr(); err != nil {
				return nil, err
			}
			if _, err := loop.WaitAny(ctx, s.Readable()); err != nil {
				return nil, err
			}
		}
	},
	"ReadInto": func(_ context.Context, s *loop.Stream, n int) ([]byte, error) {
		b := pooled(s, nil)
		defer b.Release()
		for len(b.Room()) > n { // no more than that
			b.Extend(len(b.Room()) - n)
			b.Advance(b.Len())
		}
		_, err := s.ReadInto(b)
		return bytes.Clone(b.Bytes()), err
	},
}

// Every way to read and every way to write move few bytes and many: the stream echoes what
// the peer sends.
func TestTLSEveryMethod(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		random := backendtest.Rand(t)
		for wname, write := range writes {
			for rname, read := range reads {
				t.Run(wname+"/"+rname, func(t *testing.T) {
					tlstest.WithPeer(t, g, nil, func(ctx context.Context, s *loop.Stream, peer *tls.Conn, _ net.Conn) error {
						for _, n := range []int{2, 500, 20_000, 200_000} {
							data := backendtest.RandomBytes(random, n)
							back := make(chan error, 1)
							go func() {
								got := make([]byte, n)
								_, err := peer.Write(data)
								_, rerr := io.ReadFull(peer, got)
								if err = errors.Join(err, rerr); err == nil && !bytes.Equal(got, data) {
									err = errors.New("the peer got something else")
								}
								back <- err
							}()
							var got []byte
							for len(got) < n {
								p, err := read(ctx, s, n-len(got))
								if err != nil {
									return err
								}
								got = append(got, p...)
							}
							if err := write(s, got); err != nil {
								return err
							}
							if err := errors.Join(s.Flush(), backendtest.Offload(ctx, func() error { return <-back })); err != nil {
								return fmt.Errorf("%d bytes: %w", n, err)
							}
							if s.Queued() != 0 || s.Buffered() != 0 {
								return fmt.Errorf("%d bytes are queued, %d buffered", s.Queued(), s.Buffered())
							}
						}
						if err := backendtest.Offload(ctx, peer.CloseWrite); err != nil {
							return err
						}
						if p, err := read(ctx, s, 1); err != io.EOF || len(p) > 0 {
							return fmt.Errorf("%q, %v, want io.EOF", p, err)
						}
						return s.Close()
					})
				})
			}
		}
	})
}

// io.Copy from a stream with TLS to itself hands over buffers.
func TestTLSCopy(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		data := backendtest.RandomBytes(backendtest.Rand(t), backendtest.Bulk())
		tlstest.WithPeer(t, g, nil, func(ctx context.Context, s *loop.Stream, peer *tls.Conn, _ net.Conn) error {
			done := make(chan error, 2)
			go func() {
				_, err := peer.Write(data)
				done <- errors.Join(err, peer.CloseWrite())
			}()
			go func() {
				got, err := io.ReadAll(peer) // up to the stream's goodbye
				if !bytes.Equal(got, data) {
					err = errors.Join(err, fmt.Errorf("%d bytes came back, which are not those that were sent", len(got)))
				}
				done <- err
			}()
			n, err := io.Copy(s, s)
			if n != int64(len(data)) {
				err = errors.Join(err, fmt.Errorf("%d bytes were copied", n))
			}
			return errors.Join(err, s.CloseWrite(), backendtest.Offload(ctx, func() error { return errors.Join(<-done, <-done) }), s.Close())
		})
	})
}

// A tap counts the records of application data that it passes on.
type tap struct {
	net.Conn
	rest    []byte
	records atomic.Int64
}

func (c *tap) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.rest = append(c.rest, p[:n]...)
	for len(c.rest) >= 5 {
		size := 5 + int(c.rest[3])<<8 + int(c.rest[4])
		if len(c.rest) < size {
			break
		}
		if c.rest[0] == 23 {
			c.records.Add(1)
		}
		c.rest = c.rest[size:]
	}
	return n, err
}

// All that one turn of the loop writes shares a record, in however many pieces. What is
// larger than a record leaves in full records.
func TestTLSShortWritesShareARecord(t *testing.T) {
	server, client := tlstest.Configs()
	server = server.Clone()
	server.DynamicRecordSizingDisabled = true
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		backendtest.WithPeer(t, g, func(ctx context.Context, s *loop.Stream, raw net.Conn) error {
			wire := &tap{Conn: raw}
			peer := tls.Client(wire, client)
			first := make(chan error, 1)
			go func() { _, err := io.ReadFull(peer, make([]byte, 1)); first <- err }()
			if err := tlslayer.Server(ctx, s, server, 0); err != nil {
				return err
			}
			if _, err := s.Write([]byte("x")); err != nil { // the peer has the session tickets with it
				return err
			}
			if err := backendtest.Offload(ctx, func() error { return <-first }); err != nil {
				return err
			}
			for _, turn := range []struct {
				write func() error
				bytes int
				want  int64
			}{
				{func() (err error) {
					for range 100 {
						_, werr := s.Write([]byte("hello"))
						err = errors.Join(err, werr)
					}
					return err
				}, 500, 1},
				{func() error {
					_, err := s.Write([]byte("a"))
					to, gerr := s.Friend(key).Grow(3, 0)
					if gerr == nil {
						copy(to, "bcd")
					}
					return errors.Join(err, gerr, s.WriteBuf(pooled(s, []byte("ef")), runtime.NewShared([]byte("g"))), s.Friend(key).Enqueue(pooled(s, []byte("h"))))
				}, 8, 1},
				{func() error {
					_, err := s.Write(make([]byte, 10_000))
					return errors.Join(err, s.WriteBuf(pooled(s, make([]byte, 30_000)), pooled(s, make([]byte, 100))))
				}, 40_100, 3},
				{func() error { return s.WriteBuf(runtime.NewShared(make([]byte, 64<<10))) }, 64 << 10, 4},
			} {
				before := wire.records.Load()
				if err := turn.write(); err != nil {
					return err
				}
				if err := backendtest.Offload(ctx, func() error { _, err := io.ReadFull(peer, make([]byte, turn.bytes)); return err }); err != nil {
					return err
				}
				if n := wire.records.Load() - before; n != turn.want {
					return fmt.Errorf("%d bytes came in %d records, want %d", turn.bytes, n, turn.want)
				}
			}
			return s.Close()
		})
	})
}

// The stream encrypts only what it sends next, so a large buffer does not take twice its
// memory.
func TestTLSEncryptsAsItSends(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		tlstest.WithPeer(t, g, nil, func(ctx context.Context, s *loop.Stream, peer *tls.Conn, raw net.Conn) error {
			const size = 32 << 20
			if err := raw.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
				return err
			}
			before := s.Loop().Pool().Friend(key).Stats().Outstanding
			if err := s.WriteBuf(runtime.NewShared(make([]byte, size))); err != nil {
				return err
			}
			if err := untilStuck(ctx, s, new(int)); err != nil {
				return err
			}
			if n := s.Loop().Pool().Friend(key).Stats().Outstanding - before; n > 10 {
				return fmt.Errorf("%d buffers hold what is encrypted", n)
			}
			if n := s.Queued(); n < size/2 || n > size+4096 {
				return fmt.Errorf("%d bytes are queued", n)
			}
			return errors.Join(backendtest.Offload(ctx, func() error {
				n, err := io.CopyN(io.Discard, peer, size)
				if n != size {
					err = errors.Join(err, fmt.Errorf("%d bytes came", n))
				}
				return err
			}), s.Flush(), s.Close())
		})
	})
}

// exhaust takes all memory of the pool, and returns a function that gives it back.
func exhaust(pool *runtime.Pool) (restore func()) {
	var all []*runtime.Buffer
	for size := 1 << 20; size > 0; {
		b, err := pool.Get(size)
		if err != nil {
			size /= 2
			continue
		}
		all = append(all, b)
	}
	return func() {
		for _, b := range all {
			b.Release()
		}
	}
}

// Without memory for what arrives, reads fail with ErrNoBuffers. They lose nothing, and
// work again when there is memory. The end of the connection is read after that.
func TestTLSWithoutBuffers(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for name, read := range reads {
			t.Run(name, func(t *testing.T) {
				g := backendtest.Group(t, v, 1)
				data := backendtest.RandomBytes(backendtest.Rand(t), 100_000)
				tlstest.WithPeer(t, g, nil, func(ctx context.Context, s *loop.Stream, peer *tls.Conn, raw net.Conn) error {
					one := pooled(s, nil) // of the pool, or ReadInto had nothing to read into
					defer one.Release()
					sent := make(chan error, 1)
					restore := exhaust(s.Loop().Pool())
					go func() {
						_, err := peer.Write(data)
						sent <- errors.Join(err, peer.CloseWrite())
					}()
					for range 3 {
						_, err := s.ReadBuf()
						if !errors.Is(err, runtime.ErrNoBuffers) {
							return fmt.Errorf("reading without memory: %v", err)
						}
						if err := s.Friend(key).ReadErr(); !errors.Is(err, runtime.ErrNoBuffers) {
							return fmt.Errorf("ReadErr without memory: %v", err)
						}
						if _, err := loop.WaitAny(ctx, s.Readable()); err != nil {
							return err
						}
						for range 100 { // more arrives meanwhile, or waits in the kernel
							if err := loop.Yield(ctx); err != nil {
								return err
							}
						}
					}
					restore()
					var got []byte
					for {
						p, err := read(ctx, s, 1000)
						if err == io.EOF {
							break
						}
						if err != nil {
							return err
						}
						got = append(got, p...)
					}
					if !bytes.Equal(got, data) {
						return fmt.Errorf("%d bytes came, which are not those that were sent", len(got))
					}
					return errors.Join(backendtest.Offload(ctx, func() error { return <-sent }), s.Close())
				})
			})
		}
	})
}

// Without memory in the pool, the stream encrypts into Go's: what was accepted is sent.
func TestTLSEncryptsWithoutBuffers(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		tlstest.WithPeer(t, g, nil, func(ctx context.Context, s *loop.Stream, peer *tls.Conn, _ net.Conn) error {
			data := backendtest.RandomBytes(backendtest.Rand(t), 100_000)
			restore := exhaust(s.Loop().Pool())
			err := s.WriteBuf(runtime.NewShared(data))
			got := make([]byte, len(data))
			err = errors.Join(err, backendtest.Offload(ctx, func() error { _, err := io.ReadFull(peer, got); return err }))
			restore()
			if err == nil && !bytes.Equal(got, data) {
				err = errors.New("the peer got something else")
			}
			return errors.Join(err, s.Close())
		})
	})
}

// The stream stops receiving when InboxLimit decrypted bytes wait, and receives again when
// they are read.
func TestTLSInboxLimit(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		tlstest.WithPeer(t, g, nil, func(ctx context.Context, s *loop.Stream, peer *tls.Conn, _ net.Conn) error {
			const size = 8 << 20
			sent := make(chan error, 1)
			go func() { _, err := peer.Write(make([]byte, size)); sent <- err }()
			s.Friend(key).ReadAhead()
			for still, before := 0, -1; still < 1000; still++ {
				if s.Buffered() != before || before < inboxLimit {
					still, before = 0, s.Buffered()
				}
				if err := loop.Yield(ctx); err != nil {
					return err
				}
			}
			if n := s.Buffered(); n > size/2 { // what the kernel had when it was told may have followed
				return fmt.Errorf("%d bytes wait", n)
			}
			n, err := io.CopyN(io.Discard, s, size)
			if n != size {
				err = errors.Join(err, fmt.Errorf("%d bytes came", n))
			}
			return errors.Join(err, backendtest.Offload(ctx, func() error { return <-sent }), s.Close())
		})
	})
}

// Reads distinguish the ends of a connection: close_notify, an end between two records,
// and an end in the middle of one. What came before is read first.
func TestTLSEnds(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		for name, tc := range map[string]struct {
			end  func(peer *tls.Conn, raw net.Conn) error
			want error
		}{
			"goodbye":      {func(peer *tls.Conn, _ net.Conn) error { return peer.CloseWrite() }, io.EOF},
			"both":         {func(peer *tls.Conn, _ net.Conn) error { return peer.Close() }, io.EOF},
			"between":      {func(_ *tls.Conn, raw net.Conn) error { return raw.(*net.TCPConn).CloseWrite() }, io.EOF},
			"in a record":  {cutRecord([]byte{23, 3, 3, 0, 100, 1, 2, 3}), io.ErrUnexpectedEOF},
			"in a header":  {cutRecord([]byte{23, 3}), io.ErrUnexpectedEOF},
			"before bytes": {cutRecord([]byte{23, 3, 3, 0, 100}), io.ErrUnexpectedEOF},
		} {
			t.Run(name, func(t *testing.T) {
				tlstest.WithPeer(t, g, nil, func(ctx context.Context, s *loop.Stream, peer *tls.Conn, raw net.Conn) error {
					if err := backendtest.Offload(ctx, func() error {
						_, err := io.WriteString(peer, "the last words")
						return errors.Join(err, tc.end(peer, raw))
					}); err != nil {
						return err
					}
					got, err := io.ReadAll(struct{ io.Reader }{s})
					if tc.want == io.EOF && err == nil {
						err = io.EOF
					}
					if string(got) != "the last words" || !errors.Is(err, tc.want) {
						return fmt.Errorf("got %q, %v", got, err)
					}
					if _, err := s.ReadBuf(); !errors.Is(err, tc.want) {
						return fmt.Errorf("again: %v", err)
					}
					return s.Close()
				})
			})
		}
	})
}

func cutRecord(p []byte) func(*tls.Conn, net.Conn) error {
	return func(_ *tls.Conn, raw net.Conn) error {
		_, err := raw.Write(p)
		return errors.Join(err, raw.(*net.TCPConn).CloseWrite())
	}
}

// The peer's crypto/tls sees the close_notify of CloseWrite, after which the stream can
// still read, and that of Close, after all that was written.
func TestTLSGoodbye(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		for name, end := range map[string]func(s *loop.Stream) error{
			"CloseWrite": (*loop.Stream).CloseWrite,
			"Close":      (*loop.Stream).Close,
		} {
			for _, size := range []int{0, 5, 1 << 20} {
				t.Run(fmt.Sprintf("%s after %d", name, size), func(t *testing.T) {
					tlstest.WithPeer(t, g, nil, func(ctx context.Context, s *loop.Stream, peer *tls.Conn, raw net.Conn) error {
						type result struct {
							n   int
							err error
						}
						read := make(chan result, 1)
						go func() {
							p, err := io.ReadAll(peer)
							if err == nil { // an end without a goodbye is io.EOF too, but not from the connection
								if raw.SetReadDeadline(time.Unix(1, 0)) == nil && name == "CloseWrite" {
									_, rerr := raw.Read(make([]byte, 1))
									if nerr, ok := rerr.(net.Error); !ok || !nerr.Timeout() {
										err = fmt.Errorf("the socket has ended too: %v", rerr)
									}
								}
							}
							read <- result{len(p), err}
						}()
						if err := s.Friend(key).Enqueue(runtime.NewShared(bytes.Repeat([]byte("x"), size))); err != nil {
							return err
						}
						if err := end(s); err != nil {
							return err
						}
						if err := backendtest.Offload(ctx, func() error {
							if r := <-read; r.n != size || r.err != nil {
								return fmt.Errorf("the peer got %d bytes, %v", r.n, r.err)
							}
							return nil
						}); err != nil || name == "Close" {
							return err
						}
						if _, err := s.Write([]byte("x")); !errors.Is(err, runtime.ErrClosed) {
							return fmt.Errorf("writing after CloseWrite: %v", err)
						}
						if err := backendtest.Offload(ctx, func() error {
							_, err := io.WriteString(peer, "still")
							return errors.Join(err, peer.CloseWrite())
						}); err != nil {
							return err
						}
						if p, err := io.ReadAll(s); string(p) != "still" || err != nil {
							return fmt.Errorf("reading after CloseWrite: %q, %v", p, err)
						}
						return s.Close()
					})
				})
			}
		}
	})
}

// panicky is a client's session cache that panics. crypto/tls calls it when a ticket
// arrives, outside any task.
type panicky struct{}

func (panicky) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (panicky) Put(string, *tls.ClientSessionState)        { panic("mine") }

// A peer that sends single bytes, with TLS or without, fills the inbox with buffers that
// hold one each: their number has a limit too. Nothing is lost by it.
func TestInboxOfSingleBytes(t *testing.T) {
	const size = 4000
	fill := func(ctx context.Context, s *loop.Stream, peer io.Writer) error {
		s.Friend(key).ReadAhead()
		before := s.Loop().Pool().Friend(key).Stats().Outstanding
		for range size {
			there := s.Buffered()
			if _, err := peer.Write([]byte("x")); err != nil {
				return err
			}
			for n := 0; n < 100 && s.Buffered() == there; n++ { // each by itself, while there is room
				if err := loop.Yield(ctx); err != nil {
					return err
				}
			}
		}
		if n := s.Loop().Pool().Friend(key).Stats().Outstanding - before; n > inboxLimit/512+10 {
			return fmt.Errorf("%d buffers hold %d bytes", n, s.Buffered())
		}
		n, err := io.CopyN(io.Discard, s, size)
		if n != size {
			err = errors.Join(err, fmt.Errorf("%d bytes came", n))
		}
		return errors.Join(err, s.Close())
	}
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		backendtest.WithPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error { return fill(ctx, s, peer) })
		tlstest.WithPeer(t, g, nil, func(ctx context.Context, s *loop.Stream, peer *tls.Conn, _ net.Conn) error { return fill(ctx, s, peer) })
	})
}

// moody is a source of randomness that panics once it is told to. crypto/tls asks it for
// each record that it encrypts with an old cipher suite.
type moody struct{ angry atomic.Bool }

func (m *moody) Read(p []byte) (int, error) {
	if m.angry.Load() {
		panic("mine")
	}
	return rand.Read(p)
}
