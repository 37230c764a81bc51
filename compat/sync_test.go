package compat_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

func newReader(p []byte) io.Reader { return bytes.NewReader(p) }

// withPeer runs f as a task with a stream, and the net.Conn of its peer.
func withPeer(t *testing.T, g *loop.Group, f func(ctx context.Context, s *loop.Stream, peer net.Conn) error) {
	t.Helper()
	backendtest.WithPeer(t, g, f)
}

// frame is what a length-prefixed protocol sends.
func frame(payload []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
}

// readFrame is a protocol function that knows nothing of ErrWouldBlock: it loses what it has
// read when it is interrupted.
func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	payload := make([]byte, binary.BigEndian.Uint32(head[:]))
	_, err := io.ReadFull(r, payload)
	return payload, err
}

func TestRunReadsFramesAtEveryCut(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		input := append(frame([]byte("hello")), frame([]byte("a second one"))...)
		for cut := range len(input) {
			withPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
				ss, err := compat.NewGrowableSyncStream(s, compat.Options{Exact: true})
				if err != nil {
					return err
				}
				var got []string
				read := func() error {
					return ss.Run(func(rw io.ReadWriter) error {
						p, err := readFrame(rw)
						if err == nil {
							got = append(got, string(p))
						}
						return err
					})
				}
				if _, err := peer.Write(input[:cut]); err != nil {
					return err
				}
				rest, err := loop.Go(ctx, "rest", func(ctx context.Context) error {
					if err := loop.Yield(ctx); err != nil {
						return err
					}
					_, err := peer.Write(input[cut:])
					return err
				})
				if err != nil {
					return err
				}
				if err := errors.Join(read(), read(), rest.Wait(ctx)); err != nil {
					return err
				}
				if r, _ := ss.Split(); fmt.Sprint(got) != "[hello a second one]" || r.Buffered() != 0 {
					return fmt.Errorf("cut at %d: got %q, %d bytes left", cut, got, r.Buffered())
				}
				return ss.Close()
			})
		}
	})
}

func TestGrowableMemory(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		withPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
			ss, err := compat.NewGrowableSyncStream(s, compat.Options{Exact: true})
			if err != nil {
				return err
			}
			payload := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB
			sent := make(chan error, 1)
			go func() {
				_, err := peer.Write(frame(payload))
				sent <- err
			}()
			var got []byte
			if err := ss.Run(func(rw io.ReadWriter) (err error) {
				got, err = readFrame(rw)
				return err
			}); err != nil {
				return err
			}
			if !bytes.Equal(got, payload) {
				return errors.New("the payload came out changed")
			}
			c := ss.Friend(key).Counts()
			t.Logf("%+v: %.2f copies a byte", c, float64(c.BytesCopied)/float64(len(payload)))
			if c.WouldBlock > 20 {
				return fmt.Errorf("%d round trips", c.WouldBlock)
			}
			if c.PeakBuffer > 2*len(payload)+defaultSize {
				return fmt.Errorf("a buffer of %d bytes", c.PeakBuffer)
			}
			if out := s.Loop().Pool().Friend(key).Stats().Outstanding; out != 0 {
				return fmt.Errorf("%d buffers are held by a drained stream", out)
			}
			return errors.Join(<-sent, ss.Close())
		})
	})
}

func TestMaximumLosesNothing(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		for _, growable := range []bool{false, true} {
			withPeer(t, g, func(_ context.Context, s *loop.Stream, peer net.Conn) error {
				var ss interface {
					io.Reader
					Run(fn func(rw io.ReadWriter) error) error
					FillReadBuf() (int, error)
					Close() error
				}
				if growable {
					gs, err := compat.NewGrowableSyncStream(s, compat.Options{Size: 16, Max: 64, Exact: true})
					require.NoError(t, err)
					ss = gs
				} else {
					fs, err := compat.NewSyncStream(s, compat.Options{Size: 64, Exact: true})
					require.NoError(t, err)
					ss = fs
				}
				message := strings.Repeat("x", 100)
				if _, err := peer.Write(frame([]byte(message))); err != nil {
					return err
				}
				err := ss.Run(func(rw io.ReadWriter) error {
					_, err := readFrame(rw)
					return err
				})
				if !errors.Is(err, compat.ErrTooLarge) {
					return fmt.Errorf("got %v, want ErrTooLarge", err)
				}
				// It does not fit at once, but it can be read piece by piece.
				var got []byte
				for len(got) < 104 {
					var p [10]byte
					n, err := ss.Read(p[:])
					got = append(got, p[:n]...)
					if errors.Is(err, compat.ErrWouldBlock) {
						_, err = ss.FillReadBuf()
					}
					if err != nil {
						return err
					}
				}
				if string(got[4:]) != message {
					return fmt.Errorf("got %q", got)
				}
				return ss.Close()
			})
		}
	})
}

func TestRunWritesOnce(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		withPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
			ss, err := compat.NewSyncStream(s, compat.Options{Size: 16})
			if err != nil {
				return err
			}
			// The function writes more than the buffer holds and reads an answer, so it is
			// called several times. The peer must get each byte once.
			peerDone := make(chan error, 1)
			go func() {
				got := make([]byte, 40)
				_, err := io.ReadFull(peer, got)
				if err == nil && string(got) != strings.Repeat("q", 40) {
					err = fmt.Errorf("the peer got %q", got)
				}
				_, werr := peer.Write([]byte("answer"))
				_, rerr := io.ReadFull(peer, got[:3])
				if string(got[:3]) != "bye" {
					rerr = errors.Join(rerr, fmt.Errorf("the peer got %q at the end", got[:3]))
				}
				peerDone <- errors.Join(err, werr, rerr)
			}()
			calls := 0
			if err := ss.Run(func(rw io.ReadWriter) error {
				calls++
				if _, err := io.WriteString(rw, strings.Repeat("q", 40)); err != nil {
					return err
				}
				var p [6]byte
				if _, err := io.ReadFull(rw, p[:]); err != nil {
					return err
				}
				_, err := io.WriteString(rw, "bye")
				return err
			}); err != nil {
				return err
			}
			if calls < 3 {
				return fmt.Errorf("it was called %d times", calls)
			}
			return errors.Join(loop.Offload(ctx, func() { err = <-peerDone }), err, ss.Close())
		})
	})
}

func TestRunRefusesWhatCannotBeReplayed(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		withPeer(t, g, func(_ context.Context, s *loop.Stream, peer net.Conn) error {
			ss, err := compat.NewSyncStream(s, compat.Options{Size: 16})
			if err != nil {
				return err
			}
			calls := 0
			err = ss.Run(func(rw io.ReadWriter) error {
				calls++
				_, err := fmt.Fprintf(rw, "%-32d", calls)
				return err
			})
			if !errors.Is(err, compat.ErrNotReplayable) {
				return fmt.Errorf("got %v", err)
			}
			if err := ss.Close(); !errors.Is(err, compat.ErrNotReplayable) {
				return fmt.Errorf("Close says %v: what was not sent must not go unsaid", err)
			}
			return nil
		})
	})
}

// A deadline that ends Run loses nothing. Run with the same function sends nothing twice; with
// another function it fails, unless the caller gives up the first one.
func TestRunGoesOn(t *testing.T) {
	question := strings.Repeat("question ", 20) // more than the buffer holds
	ask := func(rw io.ReadWriter) error {
		if _, err := io.WriteString(rw, question); err != nil {
			return err
		}
		_, err := io.ReadFull(rw, make([]byte, len("answer")))
		return err
	}
	other := func(rw io.ReadWriter) error {
		_, err := io.WriteString(rw, "something else")
		return err
	}
	for name, tc := range map[string]struct {
		answer string
		then   func(ss *compat.SyncStream) error
		want   string
	}{
		"the same again": {"answer", func(ss *compat.SyncStream) error { return ss.Run(ask) }, question},
		"something else": {"", func(ss *compat.SyncStream) error {
			if err := ss.Run(other); !errors.Is(err, compat.ErrNotReplayable) {
				return fmt.Errorf("another function: %w", err)
			}
			return nil
		}, question},
		"something else, on purpose": {"", func(ss *compat.SyncStream) error {
			_, w := ss.Split()
			w.Commit()
			return ss.Run(other)
		}, question + "something else"},
	} {
		t.Run(name, func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				g := backendtest.Group(t, v, 1)
				require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
					s, peer, err := streamPair(ctx)
					if err != nil {
						return err
					}
					ss, err := compat.NewSyncStream(s, compat.Options{Size: 64, Exact: true})
					if err != nil {
						return err
					}
					if err := s.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
						return err
					}
					if err := ss.Run(ask); !errors.Is(err, os.ErrDeadlineExceeded) {
						return fmt.Errorf("the first time: %w", err)
					}
					_, werr := peer.Write([]byte(tc.answer))
					if err := errors.Join(werr, s.SetReadDeadline(time.Time{}), tc.then(ss)); err != nil {
						return err
					}
					_ = ss.Close() // after a refusal it says so again
					got, err := io.ReadAll(peer)
					if err == nil && string(got) != tc.want {
						err = fmt.Errorf("the peer got %q, want %q", got, tc.want)
					}
					return errors.Join(err, peer.Close())
				}))
			})
		})
	}
}

// A function that reads although a Write was refused is called again before Run waits for
// bytes: the peer does not have the question yet.
func TestRunRefusedBothWays(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
			s, peer, err := streamPair(ctx)
			if err != nil {
				return err
			}
			ss, err := compat.NewSyncStream(s, compat.Options{Exact: true})
			if err != nil {
				return err
			}
			const size = 20_000
			cr := &crew{ctx: ctx}
			cr.run("peer", func(context.Context) error {
				_, err := io.ReadFull(peer, make([]byte, size))
				_, werr := peer.Write([]byte("ok"))
				return errors.Join(err, werr)
			})
			err = ss.Run(func(rw io.ReadWriter) error {
				_, werr := rw.Write(make([]byte, size))
				_, rerr := io.ReadFull(rw, make([]byte, 2))
				return errors.Join(werr, rerr)
			})
			return errors.Join(err, cr.wait(), ss.Close(), peer.Close())
		}))
	})
}

// Run fails when its function ignores an error of rw and returns nil. The peer has the
// beginning of what the function wrote.
func TestRunSeesWhatIsPassedOver(t *testing.T) {
	text := strings.Repeat("0123456789", 10)
	for name, tc := range map[string]struct {
		run  func(ss *compat.SyncStream, s *loop.Stream) error
		want error
		got  int // bytes of text that the peer gets
	}{
		"the buffer is full": {func(ss *compat.SyncStream, _ *loop.Stream) error {
			return ss.Run(func(rw io.ReadWriter) error {
				for i := range text {
					_, _ = io.WriteString(rw, text[i:i+1])
				}
				return nil
			})
		}, io.ErrShortWrite, 64},
		"less is written again": {func(ss *compat.SyncStream, _ *loop.Stream) error {
			n := len(text)
			return ss.Run(func(rw io.ReadWriter) error {
				_, err := io.WriteString(rw, text[:n])
				n = 5
				return err
			})
		}, compat.ErrNotReplayable, 64},
		"nothing is written again": {func(ss *compat.SyncStream, _ *loop.Stream) error {
			n := len(text)
			return ss.Run(func(rw io.ReadWriter) (err error) {
				if n > 0 {
					_, err = io.WriteString(rw, text)
				}
				n = 0
				return err
			})
		}, compat.ErrNotReplayable, 64},
		"there is no memory": {func(ss *compat.SyncStream, s *loop.Stream) error {
			taken := exhaust(s.Loop().Pool())
			err := ss.Run(func(rw io.ReadWriter) error {
				_, _ = io.WriteString(rw, text)
				return nil
			})
			for _, b := range taken {
				b.Release()
			}
			return err
		}, runtime.ErrNoBuffers, 0},
		"a deadline passes": {func(ss *compat.SyncStream, s *loop.Stream) error {
			s.Unread(runtime.NewShared([]byte("head\n")))
			return ss.RunHead("\n", 10, func(rw io.ReadWriter) error {
				err := s.SetWriteDeadline(longAgo)
				_, _ = io.WriteString(rw, text)
				return errors.Join(err, s.SetWriteDeadline(time.Time{}))
			})
		}, os.ErrDeadlineExceeded, 64},
	} {
		t.Run(name, func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				g := backendtest.Group(t, v, 1)
				withPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
					ss, err := compat.NewSyncStream(s, compat.Options{Size: 64})
					if err != nil {
						return err
					}
					// ErrWouldBlock would tell the caller to try again, and to send it twice.
					if err := tc.run(ss, s); !errors.Is(err, tc.want) || errors.Is(err, compat.ErrWouldBlock) {
						return fmt.Errorf("got %v, want %v", err, tc.want)
					}
					if err := ss.Close(); err != nil && !errors.Is(err, tc.want) {
						return err
					}
					return backendtest.Offload(ctx, func() error {
						p, err := io.ReadAll(peer)
						if string(p) != text[:tc.got] {
							err = errors.Join(err, fmt.Errorf("the peer got %q", p))
						}
						return err
					})
				})
			})
		})
	}
}

// Run keeps what a call has sent to compare it with the next call's, up to a limit.
func TestRunLimitsWhatOneCallSends(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		withPeer(t, g, func(_ context.Context, s *loop.Stream, peer net.Conn) error {
			ss, err := compat.NewSyncStream(s, compat.Options{Size: 16 << 20})
			if err != nil {
				return err
			}
			got := make(chan int64, 1)
			go func() { n, _ := io.Copy(io.Discard, peer); got <- n }()
			block := make([]byte, 1<<20)
			calls, total := 0, 0
			err = ss.Run(func(rw io.ReadWriter) error {
				calls++
				for total = 0; total <= defaultMax+16<<20; {
					n, err := rw.Write(block)
					total += n
					if err != nil {
						return err
					}
				}
				return nil
			})
			if !errors.Is(err, compat.ErrTooLarge) || calls != 5 || total != defaultMax+16<<20 {
				return fmt.Errorf("%d calls, the last one wrote %d bytes: %w", calls, total, err)
			}
			_, w := ss.Split()
			if w.Commit(); w.Pending() != 0 {
				return fmt.Errorf("%d bytes were not rolled back", w.Pending())
			}
			if err := ss.Close(); err != nil {
				return err
			}
			if n := <-got; n != defaultMax {
				return fmt.Errorf("the peer got %d bytes", n)
			}
			return nil
		})
	})
}

// The output of a call that succeeds at once is copied once, into the buffer, and has no
// limit but Options.Max.
func TestRunKeepsNoCopyOfWhatSucceeds(t *testing.T) {
	const size = defaultMax + 1<<20
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		withPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
			ss, err := compat.NewGrowableSyncStream(s, compat.Options{Max: 2 * defaultMax})
			if err != nil {
				return err
			}
			got := make(chan int64, 1)
			go func() { n, _ := io.Copy(io.Discard, peer); got <- n }()
			text := make([]byte, size)
			before := allocated()
			if err := ss.Run(func(rw io.ReadWriter) error {
				_, err := rw.Write(text)
				return err
			}); err != nil {
				return err
			}
			if n := allocated() - before; n > size/2 { // the watchdog and the peer allocate too
				return fmt.Errorf("Run allocated %d bytes", n)
			}
			if err := ss.Close(); err != nil {
				return err
			}
			return backendtest.Offload(ctx, func() error {
				if n := <-got; n != size {
					return fmt.Errorf("the peer got %d bytes", n)
				}
				return nil
			})
		})
	})
}

// allocated returns how many bytes the program has allocated on Go's heap.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// Rollback goes back to the checkpoint and no further, in both directions, whether or not
// the bytes before it were flushed meanwhile.
func TestRollbackKeepsWhatLiesBeforeTheCheckpoint(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		for _, flushed := range []bool{false, true} {
			withPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
				ss, err := compat.NewGrowableSyncStream(s, compat.Options{})
				if err != nil {
					return err
				}
				r, w := ss.Split()
				if _, err := io.WriteString(peer, "one two"); err != nil {
					return err
				}
				for r.Buffered() < len("one two") {
					if _, err := r.FillReadBuf(); err != nil {
						return err
					}
				}
				r.Checkpoint() // the later one replaces it
				var p [4]byte
				if _, err := io.ReadFull(r, p[:]); err != nil || string(p[:]) != "one " {
					return fmt.Errorf("before the checkpoint: %q, %w", p, err)
				}
				if _, err := io.WriteString(w, "before "); err != nil {
					return err
				}
				r.Checkpoint()
				w.Checkpoint()
				for _, text := range []string{"behind", "behind it"} {
					if _, err := io.ReadFull(r, p[:3]); err != nil || string(p[:3]) != "two" {
						return fmt.Errorf("behind the checkpoint: %q, %w", p[:3], err)
					}
					if _, err := io.WriteString(w, text); err != nil {
						return err
					}
					if flushed {
						if _, err := w.FlushWriteBuf(); err != nil {
							return err
						}
					}
					r.Rollback()
					w.Rollback()
				}
				if want := len("before "); !flushed && w.Pending() != want {
					return fmt.Errorf("%d bytes are pending, want %d", w.Pending(), want)
				}
				if _, err := io.WriteString(w, "behind it all"); err != nil {
					return err
				}
				if err := ss.Close(); err != nil {
					return err
				}
				return backendtest.Offload(ctx, func() error {
					p, err := io.ReadAll(peer)
					if string(p) != "before behind it all" {
						err = errors.Join(err, fmt.Errorf("the peer got %q", p))
					}
					return err
				})
			})
		}
	})
}

// exhaust takes every buffer that the pool still has.
func exhaust(pool *runtime.Pool) (taken []*runtime.Buffer) {
	for size := 1 << 30; size > 0; {
		b, err := pool.Get(size)
		if err != nil {
			size /= 2
			continue
		}
		taken = append(taken, b)
	}
	return taken
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]compat.Options{
		"small":       {Size: 1},
		"negative":    {Size: -1},
		"huge":        {Size: 1<<30 + 1},
		"max":         {Size: 1024, Max: 512},
		"max is huge": {Max: 1<<30 + 1},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := compat.NewGrowableSyncStream(nil, o)
			require.ErrorContains(t, err, "compat: ")
		})
	}
}
