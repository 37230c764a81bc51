package loop_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// A task that alternates between WaitAny(Writable) and TryWriteBuf, on a stream that
// can no longer be waited for, gets the reason and does not spin.
func TestTryWriteBufSaysWhyNotToWait(t *testing.T) {
	for name, c := range map[string]struct {
		opts     loop.StreamOptions
		deadline time.Time
	}{
		"deadline":     {loop.StreamOptions{QueueLimit: 1000}, time.Unix(1, 0)},
		"idle timeout": {loop.StreamOptions{QueueLimit: 1000, IdleTimeout: 20 * time.Millisecond}, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			c.opts.Linger = -1
			backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
				withPeerOf(t, v, loop.DialOptions{Stream: c.opts}, func(ctx context.Context, s *loop.Stream, _ *net.TCPConn) error {
					if err := s.Friend(key).Enqueue(runtime.NewShared(make([]byte, 16<<20))); err != nil {
						return err
					}
					if err := s.SetWriteDeadline(c.deadline); err != nil {
						return err
					}
					b := runtime.NewShared([]byte("x"))
					defer b.Release()
					for range 1000 {
						if err := s.TryWriteBuf(b); !errors.Is(err, runtime.ErrBusy) {
							if !errors.Is(err, os.ErrDeadlineExceeded) {
								return fmt.Errorf("TryWriteBuf: %v", err)
							}
							return nil
						}
						if _, err := loop.WaitAny(ctx, s.Writable()); err != nil {
							return err
						}
					}
					return errors.New("the stream stays writable, and TryWriteBuf stays busy")
				})
			})
		})
	}
}

// A shortWriter takes n bytes and fails with err.
type shortWriter struct {
	n   int
	err error
}

func (w shortWriter) Write(p []byte) (int, error) { return min(w.n, len(p)), w.err }

// WriteTo counts the bytes that the writer has taken, also when it has not taken all.
func TestWriteToCounts(t *testing.T) {
	broken := errors.New("broken")
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		withPeer(t, v, func(_ context.Context, s *loop.Stream, peer *net.TCPConn) error {
			for _, c := range []struct{ gives, want error }{{broken, broken}, {nil, io.ErrShortWrite}} {
				if _, err := peer.Write([]byte("hello")); err != nil {
					return err
				}
				if n, err := s.WriteTo(shortWriter{2, c.gives}); n != 2 || err != c.want {
					return fmt.Errorf("WriteTo: %d, %v; want 2, %v", n, err, c.want)
				}
			}
			return nil
		})
	})
}
