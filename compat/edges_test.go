package compat_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/tlstest"
	"github.com/noria-go/noria/loop"
)

func roundUp(n int) int {
	size := 512
	for size < n {
		size *= 2
	}
	return size
}

// When a peer announces 16 MiB and sends less, the memory follows what has arrived, at every
// size. The pool's sizes are powers of two.
func TestMemoryFollowsWhatArrived(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		for _, linear := range []bool{false, true} {
			for sent := 5; sent < 4<<20; sent = sent*3 + 1 {
				withPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
					ss, err := compat.NewGrowableSyncStream(s, compat.Options{Exact: true})
					if err != nil {
						return err
					}
					if linear {
						ss.Friend(key).GrowLinearly(defaultSize)
					}
					r, _ := ss.Split()
					message := binary.BigEndian.AppendUint32(nil, 16<<20)
					message = append(message, make([]byte, sent)...)
					go func() { _, _ = peer.Write(message) }() // it fails when the test does
					task, err := loop.Go(ctx, "reader", func(context.Context) error {
						return ss.Run(func(rw io.ReadWriter) error {
							_, err := readFrame(rw)
							return err
						})
					})
					if err != nil {
						return err
					}
					for r.Buffered() < len(message) {
						if err := loop.Yield(ctx); err != nil {
							return fmt.Errorf("%d of %d bytes are there: %w", r.Buffered(), len(message), err)
						}
						if limit := roundUp(2*r.Buffered() + defaultSize); ss.Friend(key).Held() > limit && r.Buffered() > 0 {
							return fmt.Errorf("%d bytes hold %d, more than %d", r.Buffered(), ss.Friend(key).Held(), limit)
						}
					}
					if err := peer.Close(); err != nil {
						return err
					}
					if err := task.Wait(ctx); !errors.Is(err, io.ErrUnexpectedEOF) {
						return fmt.Errorf("a peer gone in the middle: %v", err)
					}
					return ss.Close()
				})
			}
		}
	})
}

// A drained stream holds nothing, however much it held before, and a partial message after
// a large one holds little.
func TestShrinks(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		withPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
			ss, err := compat.NewGrowableSyncStream(s, compat.Options{}) // not Exact: it reads ahead
			if err != nil {
				return err
			}
			r, _ := ss.Split()
			large := frame(bytes.Repeat([]byte("x"), 1<<20))
			go func() { _, _ = peer.Write(append(large, 0, 0, 0)) }()
			read := func() error {
				return ss.Run(func(rw io.ReadWriter) error { _, err := readFrame(rw); return err })
			}
			if err := read(); err != nil {
				return err
			}
			task, err := loop.Go(ctx, "reader", func(context.Context) error { return read() })
			if err != nil {
				return err
			}
			for r.Buffered() < 3 || ss.Friend(key).Held() > defaultSize {
				if err := loop.Yield(ctx); err != nil {
					return fmt.Errorf("%d bytes hold %d: %w", r.Buffered(), ss.Friend(key).Held(), err)
				}
			}
			if _, err := peer.Write([]byte{1, 'y'}); err != nil {
				return err
			}
			if err := task.Wait(ctx); err != nil {
				return err
			}
			if ss.Friend(key).Held() != 0 || s.Loop().Pool().Friend(key).Stats().Outstanding != 0 {
				return fmt.Errorf("a drained stream holds %d bytes", ss.Friend(key).Held())
			}
			return ss.Close()
		})
	})
}

// When a write deadline passes while the queue is full, what was buffered stays, and is sent
// later, once.
func TestFlushDeadlineLosesNothing(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		withPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
			ss, err := compat.NewGrowableSyncStream(s, compat.Options{})
			if err != nil {
				return err
			}
			require.NoError(t, s.SetWriteDeadline(time.Now().Add(10*time.Millisecond)))
			block := bytes.Repeat([]byte("0123456789"), 10_000)
			total := 0
			for err == nil {
				var n int
				if n, err = ss.Write(block); err == nil {
					total += n
					_, err = ss.FlushWriteBuf()
				}
			}
			if _, w := ss.Split(); !errors.Is(err, os.ErrDeadlineExceeded) || w.Pending() == 0 {
				return fmt.Errorf("%d bytes pending, %v", w.Pending(), err)
			}
			got := make(chan error, 1)
			go func() {
				p, err := io.ReadAll(peer)
				if !bytes.Equal(p, bytes.Repeat(block, total/len(block))) {
					err = errors.Join(err, fmt.Errorf("%d bytes came, %d were written", len(p), total))
				}
				got <- err
			}()
			require.NoError(t, s.SetWriteDeadline(time.Time{}))
			return errors.Join(ss.Close(), backendtest.Offload(ctx, func() error { return <-got }))
		})
	})
}

// Two tasks use the two halves at the same time, over a plain stream and over TLS.
func TestSplitHalves(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		data := backendtest.RandomBytes(backendtest.Rand(t), backendtest.Bulk())
		halves := func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
			ss, err := compat.NewSyncStream(s, compat.Options{Size: 1000})
			if err != nil {
				return err
			}
			r, w := ss.Split()
			peerDone := make(chan error, 2)
			go func() { _, err := peer.Write(data); peerDone <- err }()
			go func() {
				p := make([]byte, len(data))
				_, err := io.ReadFull(peer, p)
				if !bytes.Equal(p, data) {
					err = errors.Join(err, errors.New("the peer got something else"))
				}
				peerDone <- err
			}()
			writer, err := loop.Go(ctx, "writer", func(context.Context) error {
				for p := data; len(p) > 0; {
					n, err := w.Write(p)
					p = p[n:]
					if errors.Is(err, compat.ErrWouldBlock) || len(p) == 0 {
						_, err = w.FlushWriteBuf()
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
			got := make([]byte, 0, len(data))
			for len(got) < len(data) {
				var p [777]byte
				n, err := r.Read(p[:])
				got = append(got, p[:n]...)
				if errors.Is(err, compat.ErrWouldBlock) {
					_, err = r.FillReadBuf()
				}
				if err != nil {
					return err
				}
			}
			if !bytes.Equal(got, data) {
				return errors.New("what came is something else")
			}
			return errors.Join(writer.Wait(ctx), backendtest.Offload(ctx, func() error { return errors.Join(<-peerDone, <-peerDone) }), ss.Close())
		}
		t.Run("tcp", func(t *testing.T) {
			withPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error { return halves(ctx, s, peer) })
		})
		t.Run("tls", func(t *testing.T) {
			tlstest.WithPeer(t, g, nil, func(ctx context.Context, c *loop.Stream, peer *tls.Conn, _ net.Conn) error {
				return halves(ctx, c, peer)
			})
		})
	})
}

// RunHead calls its function once, however slowly the head arrives, with exactly the head,
// and drops what the function has not read of it.
func TestRunHead(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		withPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
			ss, err := compat.NewGrowableSyncStream(s, compat.Options{Exact: true})
			if err != nil {
				return err
			}
			if _, err := ss.Read(make([]byte, 1<<20)); !errors.Is(err, compat.ErrWouldBlock) {
				return err // what was wanted before must not be waited for
			}
			go func() {
				for _, b := range []byte("GET /\r\nA: b\r\n\r\nframes") {
					_, _ = peer.Write([]byte{b})
				}
				_ = peer.(*net.TCPConn).CloseWrite()
			}()
			calls := 0
			if err := ss.RunHead("\r\n\r\n", 1000, func(rw io.ReadWriter) error {
				calls++
				var p [5]byte
				_, err := io.ReadFull(rw, p[:])
				_, werr := io.WriteString(rw, strings.Repeat("w", 100_000)) // more than a buffer
				return errors.Join(err, werr)
			}); err != nil || calls != 1 {
				return fmt.Errorf("%d calls, %w", calls, err)
			}
			taken, err := ss.Take()
			if err != nil {
				return err
			}
			rest, err := io.ReadAll(taken)
			if string(rest) != "frames" {
				return fmt.Errorf("left: %q, %w", rest, err)
			}
			return taken.Close()
		})
		const limit, end = 100, "\r\n\r\n"
		errCalled := errors.New("called")
		for name, tc := range map[string]struct {
			send string // at once, and there before it is asked for
			want error
		}{
			"too long":             {strings.Repeat("a", 200), compat.ErrTooLarge},
			"as long as it may be": {strings.Repeat("a", limit-len(end)) + end, errCalled},
			"a byte too long":      {strings.Repeat("a", limit-len(end)+1) + end, compat.ErrTooLarge},
			"ends too late":        {strings.Repeat("a", 2*limit) + end + "frames", compat.ErrTooLarge},
			"cut off":              {"GET", io.ErrUnexpectedEOF},
			"nothing":              {"", io.EOF},
		} {
			withPeer(t, g, func(_ context.Context, s *loop.Stream, peer net.Conn) error {
				ss, err := compat.NewGrowableSyncStream(s, compat.Options{})
				if err != nil {
					return err
				}
				if _, err := io.WriteString(peer, tc.send); err != nil {
					return err
				}
				if err := peer.(*net.TCPConn).CloseWrite(); err != nil {
					return err
				}
				err = ss.RunHead(end, limit, func(io.ReadWriter) error { return errCalled })
				if !errors.Is(err, tc.want) {
					return fmt.Errorf("%s: got %v", name, err)
				}
				return ss.Close()
			})
		}
	})
}

// Without a checkpoint, a read of more than a fixed buffer holds gets it piece by piece.
func TestFixedExactWithoutCheckpoint(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		withPeer(t, g, func(_ context.Context, s *loop.Stream, peer net.Conn) error {
			ss, err := compat.NewSyncStream(s, compat.Options{Size: 64, Exact: true})
			if err != nil {
				return err
			}
			if _, err := peer.Write(bytes.Repeat([]byte("z"), 200)); err != nil {
				return err
			}
			p := make([]byte, 200)
			for n := 0; n < len(p); {
				m, err := ss.Read(p[n:])
				n += m
				if errors.Is(err, compat.ErrWouldBlock) {
					_, err = ss.FillReadBuf()
				}
				if err != nil {
					return fmt.Errorf("after %d bytes: %w", n, err)
				}
			}
			return ss.Close()
		})
	})
}

// Want returns ErrWouldBlock until all the bytes have arrived, and an error if they cannot.
func TestWant(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		withPeer(t, g, func(_ context.Context, s *loop.Stream, peer net.Conn) error {
			ss, err := compat.NewGrowableSyncStream(s, compat.Options{}) // not Exact
			if err != nil {
				return err
			}
			message := frame(bytes.Repeat([]byte("w"), 1<<20))
			go func() {
				_, _ = peer.Write(message[:len(message)/2])
				_, _ = peer.Write(message[len(message)/2:])
				_, _ = peer.Write(message[:100])
				_ = peer.(*net.TCPConn).CloseWrite()
			}()
			calls := 0
			read := func(rw io.ReadWriter) error {
				calls++
				var head [4]byte
				if _, err := io.ReadFull(rw, head[:]); err != nil {
					return err
				}
				n := int(binary.BigEndian.Uint32(head[:]))
				if err := ss.Want(n); err != nil {
					return err
				}
				_, err := io.ReadFull(rw, make([]byte, n))
				return err
			}
			if err := ss.Run(read); err != nil || calls > 3 {
				return fmt.Errorf("%d calls, %w", calls, err)
			}
			if err := ss.Run(read); !errors.Is(err, io.ErrUnexpectedEOF) {
				return fmt.Errorf("half a message: %v", err)
			}
			if err := ss.Want(101); !errors.Is(err, io.ErrUnexpectedEOF) {
				return fmt.Errorf("after the end: %v", err)
			}
			return ss.Close()
		})
	})
}

// A Want that exceeds the maximum fails at once, however large it is.
func TestWantMoreThanCanBe(t *testing.T) {
	const limit = 1 << 20
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		for _, n := range []int{limit, math.MaxInt / 2, math.MaxInt - 4, math.MaxInt - 3, math.MaxInt} {
			withPeer(t, g, func(_ context.Context, s *loop.Stream, peer net.Conn) error {
				ss, err := compat.NewGrowableSyncStream(s, compat.Options{Max: limit})
				if err != nil {
					return err
				}
				if _, err := peer.Write(make([]byte, 100)); err != nil {
					return err
				}
				calls := 0
				err = ss.Run(func(rw io.ReadWriter) error {
					calls++
					if _, err := io.ReadFull(rw, make([]byte, 4)); err != nil {
						return err
					}
					return ss.Want(n)
				})
				if !errors.Is(err, compat.ErrTooLarge) || calls > 2 {
					return fmt.Errorf("%d wanted: %d calls, %w", n, calls, err)
				}
				return ss.Close()
			})
		}
	})
}
