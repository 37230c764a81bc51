package tlslayer_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/tlstest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// A write that a deadline has cut short can be continued later.
func TestTLSWriteDeadline(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		data := backendtest.RandomBytes(backendtest.Rand(t), 8<<20)
		sum := sha256.Sum256(data)
		tlstest.WithPeer(t, g, nil, func(ctx context.Context, c *loop.Stream, peer *tls.Conn, _ net.Conn) error {
			require.NoError(t, c.SetWriteDeadline(time.Now().Add(20*time.Millisecond)))
			n, err := c.Write(data) // the peer does not read yet
			if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n == len(data) {
				return fmt.Errorf("%d bytes, %v", n, err)
			}
			require.NoError(t, c.SetWriteDeadline(time.Time{}))
			peerDone := make(chan error, 1)
			go func() { peerDone <- sameBytes(peer, sum) }()
			_, err = c.Write(data[n:])
			require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Millisecond)))
			if _, err := c.ReadBuf(); !errors.Is(err, os.ErrDeadlineExceeded) {
				return fmt.Errorf("reading: %v", err)
			}
			return errors.Join(err, c.CloseWrite(), backendtest.Offload(ctx, func() error { return <-peerDone }), c.Close())
		})
	})
}

// Writes that wait for a write with a part in the queue use no CPU meanwhile and follow in
// order, and no bytes get into the middle of a write.
func TestTLSWritersTakeTurns(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		tlstest.WithPeer(t, g, nil, func(ctx context.Context, c *loop.Stream, peer *tls.Conn, _ net.Conn) error {
			var want []byte
			var writers []*loop.Task
			write := func(letter byte, n int) error {
				p := bytes.Repeat([]byte{letter}, n)
				w, err := loop.Go(ctx, "writer "+string(letter), func(context.Context) error { _, err := c.Write(p); return err })
				writers = append(writers, w)
				want = append(want, p...)
				return err
			}
			if err := errors.Join(write('a', 16<<20), untilStuck(ctx, c, new(int))); err != nil {
				return err
			}
			// There is room, but not enough to wake the one that waits for it.
			c.Friend(key).SetQueueLimit(c.Queued() + 1000)
			if err := errors.Join(write('b', 100_000), write('c', 100_000)); err != nil {
				return err
			}
			killed, err := loop.Go(ctx, "writer that is killed", func(context.Context) error { return c.WriteBuf(runtime.NewShared([]byte("d"))) })
			if err != nil {
				return err
			}
			if err := errors.Join(write('e', 100_000)); err != nil {
				return err
			}

			const turns = 1000
			before, _ := c.Loop().Friend(key).Stats()
			for range turns {
				if err := loop.Yield(ctx); err != nil {
					return err
				}
			}
			after, _ := c.Loop().Friend(key).Stats()
			if spun := after.Resumes - before.Resumes; spun > turns+100 {
				return fmt.Errorf("%d resumptions in %d turns, while nothing moves", spun, turns)
			}
			if err := c.TryWriteBuf(); !errors.Is(err, runtime.ErrBusy) {
				return fmt.Errorf("TryWriteBuf: %v", err)
			}
			short, cancel := context.WithTimeout(ctx, time.Millisecond)
			defer cancel()
			if _, err := loop.WaitAny(short, c.Writable()); !errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("a write would wait, and WaitAny says: %v", err)
			}
			killed.Cancel(true)
			if err := killed.Wait(ctx); !errors.Is(err, runtime.ErrCanceled) {
				return fmt.Errorf("killed while it waits for its turn: %v", err)
			}

			got := make([]byte, len(want))
			if err := backendtest.Offload(ctx, func() error { _, err := io.ReadFull(peer, got); return err }); err != nil {
				return err
			}
			if !bytes.Equal(want, got) {
				return errors.New("the bytes of a Write did not stay together, or not in order")
			}
			for _, w := range writers {
				if err := w.Wait(ctx); err != nil {
					return err
				}
			}
			if _, err := loop.WaitAny(ctx, c.Writable()); err != nil {
				return err
			}
			return errors.Join(c.TryWriteBuf(), c.Friend(key).Enqueue(runtime.NewShared([]byte("X"))), c.Close())
		})
	})
}

// A write deadline ends the write with a part in the queue, and the writes that wait for
// it.
func TestTLSWriteDeadlineOfAllWriters(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		tlstest.WithPeer(t, g, nil, func(ctx context.Context, c *loop.Stream, _ *tls.Conn, raw net.Conn) error {
			var writers []*loop.Task
			for range 3 {
				w, err := loop.Go(ctx, "writer", func(context.Context) error { _, err := c.Write(make([]byte, 16<<20)); return err })
				if err != nil {
					return err
				}
				writers = append(writers, w)
			}
			if err := errors.Join(untilStuck(ctx, c, new(int)), c.SetWriteDeadline(time.Now().Add(time.Millisecond))); err != nil {
				return err
			}
			for _, w := range writers {
				if err := w.Wait(ctx); !errors.Is(err, os.ErrDeadlineExceeded) {
					return fmt.Errorf("%v", err)
				}
			}
			_ = raw.Close()
			_ = c.Close() // it says that the peer is gone
			return nil
		})
	})
}

// After a bad record crypto/tls encrypts nothing more. A task that meets this only
// when it waits for room, or for everything to be sent, fails and does not wait.
func TestTLSWriteAfterBadRecord(t *testing.T) {
	for name, write := range map[string]func(s *loop.Stream) error{
		"Write": func(s *loop.Stream) error { _, err := s.Write(make([]byte, queueLimit+1)); return err },
		"Flush": func(s *loop.Stream) error {
			if _, err := s.Write([]byte("x")); err != nil {
				return err
			}
			return s.Flush()
		},
		"CloseWrite": func(s *loop.Stream) error {
			if _, err := s.Write([]byte("x")); err != nil {
				return err
			}
			return s.CloseWrite()
		},
	} {
		t.Run(name, func(t *testing.T) {
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				g := backendtest.Group(t, v, 1)
				tlstest.WithPeer(t, g, nil, func(ctx context.Context, s *loop.Stream, _ *tls.Conn, raw net.Conn) error {
					if _, err := raw.Write(append([]byte{23, 3, 3, 0, 32}, make([]byte, 32)...)); err != nil {
						return err
					}
					if _, err := s.ReadBuf(); err == nil {
						return errors.New("reading a bad record succeeds")
					}
					for s.Queued() > 0 { // the alert
						if err := loop.Yield(ctx); err != nil {
							return err
						}
					}
					var alert *net.OpError
					if err := write(s); !errors.As(err, &alert) || alert.Op != "local error" {
						return fmt.Errorf("writing: %v", err)
					}
					_ = s.Close() // it reports the same
					return nil
				})
			})
		})
	}
}
