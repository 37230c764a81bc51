package compat_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/tlstest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

func TestAfterClose(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		withPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
			ss, err := compat.NewSyncStream(s, compat.Options{})
			if err != nil {
				return err
			}
			if _, err := io.WriteString(ss, "pending"); err != nil {
				return err
			}
			if err := ss.Close(); err != nil {
				return err
			}
			_, werr := ss.Write([]byte("x"))
			_, rerr := ss.Read(make([]byte, 1))
			_, ferr := ss.FillReadBuf()
			for _, err := range []error{werr, rerr, ferr} {
				if !errors.Is(err, net.ErrClosed) {
					return fmt.Errorf("got %v, want net.ErrClosed", err)
				}
			}
			return backendtest.Offload(ctx, func() error {
				p, err := io.ReadAll(peer)
				if string(p) != "pending" {
					err = errors.Join(err, fmt.Errorf("the peer got %q", p))
				}
				return err
			})
		})
	})
}

// Take puts back what was buffered, and what was read since a checkpoint that was not
// committed.
func TestTakePutsBack(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		for _, fixed := range []bool{true, false} {
			withPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
				var ss *compat.SyncStream
				var err error
				if fixed {
					ss, err = compat.NewSyncStream(s, compat.Options{})
				} else {
					var gs *compat.GrowableSyncStream
					if gs, err = compat.NewGrowableSyncStream(s, compat.Options{}); err == nil {
						ss = &gs.SyncStream
					}
				}
				if err != nil {
					return err
				}
				s.Unread(runtime.NewShared([]byte("shared "))) // as TakeOver does
				if _, err := peer.Write([]byte("one two three")); err != nil {
					return err
				}
				if err := peer.(*net.TCPConn).CloseWrite(); err != nil {
					return err
				}
				var p [4]byte
				r, _ := ss.Split()
				for r.Buffered() < len("shared one two three") {
					if _, err := ss.FillReadBuf(); err != nil {
						return err
					}
				}
				if _, err := io.ReadFull(ss, p[:]); err != nil || string(p[:]) != "shar" {
					return fmt.Errorf("%q, %w", p, err)
				}
				r.Checkpoint()
				if _, err := io.ReadFull(ss, p[:]); err != nil || string(p[:]) != "ed o" {
					return fmt.Errorf("%q, %w", p, err)
				}
				if _, err := io.WriteString(ss, "answer"); err != nil {
					return err
				}
				taken, err := ss.Take()
				if err != nil {
					return err
				}
				rest, err := io.ReadAll(taken)
				if string(rest) != "ed one two three" {
					return fmt.Errorf("taken back: %q, %w", rest, err)
				}
				return errors.Join(err, taken.Close(), backendtest.Offload(ctx, func() error {
					p, err := io.ReadAll(peer)
					if string(p) != "answer" {
						err = errors.Join(err, fmt.Errorf("the peer got %q", p))
					}
					return err
				}))
			})
		}
	})
}

// A waiting is a way for one half of a sync stream to wait for a peer that does nothing.
type waiting struct {
	growable bool
	tls      bool
	// begin leaves a task waiting. end waits for the task and returns how many bytes it has
	// written, and its error.
	begin func(ctx context.Context, ss *compat.SyncStream) (end func() (written int, err error), err error)
}

var waitings = map[string]waiting{
	"fill fixed":              {begin: fillWaits(1000)},
	"fill":                    {growable: true, begin: fillWaits(1000)},
	"fill, received directly": {growable: true, begin: fillWaits(1 << 20)},
	"fill over TLS":           {growable: true, tls: true, begin: fillWaits(1 << 20)},
	"flush":                   {begin: flushWaits},
	"flush over TLS":          {tls: true, begin: flushWaits},
}

func fillWaits(want int) func(context.Context, *compat.SyncStream) (func() (int, error), error) {
	return func(ctx context.Context, ss *compat.SyncStream) (func() (int, error), error) {
		if err := ss.Want(want); !errors.Is(err, compat.ErrWouldBlock) {
			return nil, err
		}
		reader, err := loop.Go(ctx, "reader", func(context.Context) error {
			_, err := ss.FillReadBuf()
			return err
		})
		if err != nil {
			return nil, err
		}
		return func() (int, error) { return 0, reader.Wait(ctx) }, standsStill(ctx, new(int))
	}
}

// inTheWay is more bytes than the sockets of withEither and narrow take.
const inTheWay = 8 << 20

// narrow keeps the kernel from buffering more and more for a peer that does not read.
func narrow(peer net.Conn) error { return peer.(*net.TCPConn).SetReadBuffer(64 << 10) }

func flushWaits(ctx context.Context, ss *compat.SyncStream) (func() (int, error), error) {
	written := inTheWay
	if err := ss.Stream().Friend(key).Enqueue(runtime.NewShared(make([]byte, inTheWay))); err != nil {
		return nil, err
	}
	writer, err := loop.Go(ctx, "writer", func(context.Context) error {
		for {
			n, err := ss.Write(make([]byte, 4<<10))
			if err == nil {
				written += n
				_, err = ss.FlushWriteBuf()
			}
			if err != nil {
				return err
			}
		}
	})
	if err != nil {
		return nil, err
	}
	err = standsStill(ctx, &written)
	return func() (int, error) {
		err := writer.Wait(ctx)
		return written, err
	}, err
}

// closings are the places from which a sync stream is closed.
var closings = map[string]func(ctx context.Context, ss *compat.SyncStream) error{
	"task":      func(_ context.Context, ss *compat.SyncStream) error { return ss.Close() },
	"callback":  func(ctx context.Context, ss *compat.SyncStream) error { return inCallback(ctx, ss, ss.Close) },
	"goroutine": func(ctx context.Context, ss *compat.SyncStream) error { return backendtest.Offload(ctx, ss.Close) },
}

// inCallback runs f on the loop, outside any task.
func inCallback(ctx context.Context, ss *compat.SyncStream, f func() error) error {
	var done loop.Event
	var err error
	ss.Stream().Loop().Friend(key).NextTurn(func() {
		err = f()
		done.Set()
	})
	if err := done.Wait(ctx); err != nil {
		return fmt.Errorf("the function was never called: %w", err)
	}
	return err
}

// Close, from anywhere, while the other half waits: the waiting task gets ErrClosed,
// operations in flight are joined, all bytes that were written arrive, and no buffer is left.
func TestCloseWhileTheOtherHalfWaits(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for name, w := range waitings {
			for from, closeIt := range closings {
				t.Run(name+"/"+from, func(t *testing.T) {
					g := backendtest.Group(t, v, 1)
					withEither(t, g, w.tls, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
						return closeWhileWaiting(ctx, w, closeIt, s, peer)
					})
				})
			}
		}
	})
}

// withEither is withPeer, with TLS or without.
func withEither(t *testing.T, g *loop.Group, overTLS bool, f func(ctx context.Context, s *loop.Stream, peer net.Conn) error) {
	t.Helper()
	if !overTLS {
		withPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
			return errors.Join(narrow(peer), f(ctx, s, peer))
		})
		return
	}
	tlstest.WithPeer(t, g, nil, func(ctx context.Context, s *loop.Stream, peer *tls.Conn, raw net.Conn) error {
		return errors.Join(narrow(raw), f(ctx, s, peer))
	})
}

func newSync(s *loop.Stream, growable bool) (*compat.SyncStream, error) {
	if !growable {
		return compat.NewSyncStream(s, compat.Options{})
	}
	gs, err := compat.NewGrowableSyncStream(s, compat.Options{})
	if err != nil {
		return nil, err
	}
	return &gs.SyncStream, nil
}

func closeWhileWaiting(ctx context.Context, w waiting, closeIt func(context.Context, *compat.SyncStream) error, s *loop.Stream, peer net.Conn) error {
	ss, err := newSync(s, w.growable)
	if err != nil {
		return err
	}
	var ended loop.Event
	s.Friend(key).OnEnd(ended.Set)
	if err := backendtest.Offload(ctx, func() error { _, err := io.WriteString(peer, "some"); return err }); err != nil {
		return err
	}
	if _, err := ss.FillReadBuf(); err != nil { // so that there is something to be released
		return err
	}
	end, err := w.begin(ctx, ss)
	if err != nil {
		return err
	}
	// The peer reads only once the writer waits.
	got := make(chan int64, 1)
	if err := background(ctx, func() error {
		go func() {
			n, _ := io.Copy(io.Discard, peer) // an end that is no goodbye may be a reset
			got <- n
		}()
		return nil
	}); err != nil {
		return err
	}
	if err := closeIt(ctx, ss); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	written, err := end() // the writer may write more once the peer reads, before Close has begun
	if !errors.Is(err, runtime.ErrClosed) || errors.As(err, new(*loop.PanicError)) {
		return fmt.Errorf("the other half got %v, want ErrClosed", err)
	}
	_, rerr := ss.Read(make([]byte, 1))
	_, ferr := ss.FillReadBuf()
	_, werr := ss.Write([]byte("x"))
	_, uerr := ss.FlushWriteBuf()
	for _, err := range []error{rerr, ferr, werr, uerr, ss.Want(1)} {
		if !errors.Is(err, runtime.ErrClosed) {
			return fmt.Errorf("after Close: %v", err)
		}
	}
	if err := ended.Wait(ctx); err != nil {
		return err
	}
	if out := s.Loop().Pool().Friend(key).Stats().Outstanding; out != 0 {
		return fmt.Errorf("%d buffers are left", out)
	}
	return backendtest.Offload(ctx, func() error {
		if n := <-got; n != int64(written) {
			return fmt.Errorf("%d bytes were written, the peer got %d", written, n)
		}
		return nil
	})
}

// Close does not wait for room in the queue of a stream whose peer reads nothing. It sends
// for as long as Linger, and returns what went wrong.
func TestCloseIsBoundedByLinger(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		withEither(t, g, false, func(ctx context.Context, s *loop.Stream, _ net.Conn) error {
			s.Friend(key).SetLinger(10 * time.Millisecond)
			ss, err := compat.NewSyncStream(s, compat.Options{})
			if err != nil {
				return err
			}
			end, err := flushWaits(ctx, ss)
			if err != nil {
				return err
			}
			if err := ss.Close(); !errors.Is(err, os.ErrDeadlineExceeded) {
				return fmt.Errorf("Close said %v", err)
			}
			if _, err := end(); !errors.Is(err, runtime.ErrClosed) {
				return fmt.Errorf("the writer got %v", err)
			}
			return nil
		})
	})
}

// Neither Close nor Take loses what is pending, with and without room in the stream's queue,
// and also where the caller cannot wait.
func TestEndsLoseNothing(t *testing.T) {
	ends := map[string]func(ss *compat.SyncStream) error{
		"close": (*compat.SyncStream).Close,
		"take":  func(ss *compat.SyncStream) error { _, err := ss.Take(); return err },
	}
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		for name, end := range ends {
			for _, overTLS := range []bool{false, true} {
				for _, queued := range []int{0, inTheWay} {
					for from, run := range map[string]func(ctx context.Context, ss *compat.SyncStream, f func() error) error{
						"task":     func(_ context.Context, _ *compat.SyncStream, f func() error) error { return f() },
						"callback": inCallback,
						"goroutine": func(ctx context.Context, _ *compat.SyncStream, f func() error) error {
							return backendtest.Offload(ctx, f)
						},
					} {
						t.Run(fmt.Sprintf("%s/%s/tls %t/%d queued", name, from, overTLS, queued), func(t *testing.T) {
							withEither(t, g, overTLS, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
								ss, err := compat.NewGrowableSyncStream(s, compat.Options{})
								if err != nil {
									return err
								}
								if err := s.Friend(key).Enqueue(runtime.NewShared(bytes.Repeat([]byte("q"), queued))); err != nil {
									return err
								}
								if _, err := io.WriteString(ss, "goodbye"); err != nil {
									return err
								}
								got := make(chan string, 1)
								if err := background(ctx, func() error {
									go func() { p, _ := io.ReadAll(peer); got <- string(p) }()
									return nil
								}); err != nil {
									return err
								}
								if err := run(ctx, &ss.SyncStream, func() error { return end(&ss.SyncStream) }); err != nil {
									return err
								}
								_ = s.Close() // after Take; after Close it is closed
								return backendtest.Offload(ctx, func() error {
									if p := <-got; len(p) != queued+len("goodbye") || !strings.HasSuffix(p, "goodbye") {
										return fmt.Errorf("the peer got %d bytes, which end in %q", len(p), p[max(0, len(p)-10):])
									}
									return nil
								})
							})
						})
					}
				}
			}
		}
	})
}

// While a task fills, a second fill and Take fail, and change nothing for the first.
func TestBusyWhileFilling(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		withPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
			ss, err := compat.NewSyncStream(s, compat.Options{})
			if err != nil {
				return err
			}
			if _, err := io.WriteString(peer, "one "); err != nil {
				return err
			}
			if _, err := ss.FillReadBuf(); err != nil {
				return err
			}
			end, err := fillWaits(len("one two"))(ctx, ss)
			if err != nil {
				return err
			}
			if taken, err := ss.Take(); taken != nil || !errors.Is(err, runtime.ErrBusy) {
				return fmt.Errorf("taken: %v, %w", taken, err)
			}
			if _, err := ss.FillReadBuf(); !errors.Is(err, runtime.ErrBusy) {
				return fmt.Errorf("a second task fills: %w", err)
			}
			if _, err := io.WriteString(peer, "two"); err != nil {
				return err
			}
			if _, err := end(); err != nil {
				return err
			}
			taken, err := ss.Take()
			if err != nil {
				return err
			}
			p := make([]byte, len("one two"))
			if _, err := io.ReadFull(taken, p); err != nil || string(p) != "one two" {
				return fmt.Errorf("%q, %w", p, err)
			}
			return taken.Close()
		})
	})
}

// A goroutine that may use the stream cannot use a sync stream over it: the error says what
// to do. It can take the sync stream.
func TestSyncStreamOffTheLoop(t *testing.T) {
	uses := map[string]func(ss *compat.SyncStream) error{
		"fill":  func(ss *compat.SyncStream) error { _, err := ss.FillReadBuf(); return err },
		"flush": func(ss *compat.SyncStream) error { _, err := ss.FlushWriteBuf(); return err },
		"write": func(ss *compat.SyncStream) error { _, err := ss.Write([]byte("x")); return err },
		"run": func(ss *compat.SyncStream) error {
			return ss.Run(func(io.ReadWriter) error { return errors.New("it was called") })
		},
		"run head": func(ss *compat.SyncStream) error {
			return ss.RunHead("\n", 100, func(io.ReadWriter) error { return errors.New("it was called") })
		},
	}
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		for _, growable := range []bool{false, true} {
			withPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
				s.Friend(key).AllowGoroutines(ctx)
				ss, err := newSync(s, growable)
				if err != nil {
					return err
				}
				if _, err := io.WriteString(peer, "head\n"); err != nil {
					return err
				}
				if _, err := ss.FillReadBuf(); err != nil {
					return err
				}
				return backendtest.Offload(ctx, func() error {
					for name, use := range uses {
						if err := use(ss); !errors.Is(err, loop.ErrOffLoop) || !strings.Contains(err.Error(), "use the stream itself") {
							return fmt.Errorf("%s: %w", name, err)
						}
					}
					taken, err := ss.Take()
					if err != nil {
						return err
					}
					p := make([]byte, len("head\n"))
					if _, err := io.ReadFull(taken, p); err != nil || string(p) != "head\n" {
						return fmt.Errorf("taken: %q, %w", p, err)
					}
					return taken.Close()
				})
			})
		}
	})
}
