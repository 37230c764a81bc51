package loop_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

var key friend.Key // opens what only this module may call: see internal/friend

// withPeer runs f as a task with a stream and the net.Conn of its peer.
func withPeer(t *testing.T, v backendtest.Variant, f func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) error) {
	t.Helper()
	withPeerOf(t, v, loop.DialOptions{Stream: loop.StreamOptions{QueueLimit: 1000}}, f)
}

// withPeerOf is withPeer with options for the stream.
func withPeerOf(t *testing.T, v backendtest.Variant, opts loop.DialOptions, f func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) error) {
	t.Helper()
	g := backendtest.Group(t, v, 1)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
		s, err := g.Loops()[0].Friend(key).Dial(ctx, ln.Addr().String(), opts)
		if err != nil {
			return err
		}
		peer, err := ln.Accept()
		if err != nil {
			return err
		}
		defer peer.Close()
		if err := peer.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			return err
		}
		return errors.Join(f(ctx, s, peer.(*net.TCPConn)), ignoreClosed(s.Close()))
	}))
}

// The bytes of Grow, Enqueue and Write leave in the order of the calls, also beyond the
// limit. WriteErr reports when the limit is reached.
func TestGrowAndEnqueue(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		withPeer(t, v, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) error {
			sent := 0
			s.Friend(key).OnSent(func() { sent++ })
			var want bytes.Buffer
			grow := func(p string) error {
				b, err := s.Friend(key).Grow(len(p), 100)
				if err != nil {
					return err
				}
				copy(b, p)
				want.WriteString(p)
				return nil
			}
			if s.Friend(key).TailRoom() != 0 {
				return errors.New("an empty queue has a tail")
			}
			if err := grow("one"); err != nil {
				return err
			}
			if room := s.Friend(key).TailRoom(); room < 100 {
				return fmt.Errorf("room for %d, want the 100 that were announced", room)
			}
			if b := s.Friend(key).TryGrow(s.Friend(key).TailRoom() + 1); b != nil {
				return errors.New("TryGrow began a new piece")
			}
			off := make(chan []byte, 1)
			go func() { off <- s.Friend(key).TryGrow(3) }()
			if b := <-off; b != nil { // blocks the loop: otherwise it would send the queue
				return errors.New("TryGrow gave the loop's memory to a goroutine")
			}
			if b := s.Friend(key).TryGrow(3); b != nil {
				want.Write(append(b[:0], "try"...))
			} else {
				return errors.New("TryGrow: there is room")
			}
			if err := errors.Join(grow("two"), s.Friend(key).WriteErr()); err != nil {
				return err
			}
			want.WriteString("three")
			if err := s.Friend(key).Enqueue(runtime.NewShared([]byte("three"))); err != nil {
				return err
			}
			if s.Friend(key).TailRoom() != 0 {
				return errors.New("there is a tail before what comes later")
			}
			if err := errors.Join(grow("four"), grow(string(make([]byte, 2000)))); err != nil {
				return err
			}
			if s.Friend(key).TryGrow(1) != nil {
				return errors.New("TryGrow beyond the limit")
			}
			if err := s.Friend(key).WriteErr(); !errors.Is(err, runtime.ErrBusy) {
				return fmt.Errorf("beyond the limit: %v", err)
			}
			if err := grow("five"); err != nil {
				return err
			}
			if s.Queued() != want.Len() {
				return fmt.Errorf("%d bytes are queued, want %d", s.Queued(), want.Len())
			}
			if err := s.Flush(); err != nil {
				return err
			}
			if sent == 0 || s.Queued() != 0 {
				return fmt.Errorf("OnSent came %d times, %d bytes are queued", sent, s.Queued())
			}
			got := make([]byte, want.Len())
			var err error
			if oerr := loop.Offload(ctx, func() { _, err = io.ReadFull(peer, got) }); oerr != nil || err != nil {
				return errors.Join(oerr, err)
			}
			if !bytes.Equal(got, want.Bytes()) {
				return fmt.Errorf("got %q", got)
			}
			return nil
		})
	})
}

// A stream that is closed without lingering, in the turn in which something was
// written, gives the buffers back.
func TestCloseWithoutLinger(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		withPeer(t, v, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) error {
			if _, err := s.Write([]byte("hello")); err != nil {
				return err
			}
			s.Friend(key).SetLinger(-1)
			if err := s.Close(); err != nil {
				return err
			}
			return ignoreClosed(s.Close())
		})
	})
}

func ignoreClosed(err error) error {
	if errors.Is(err, runtime.ErrClosed) {
		return nil
	}
	return err
}

func TestReceivedAndReadAhead(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		withPeer(t, v, func(ctx context.Context, s *loop.Stream, peer *net.TCPConn) error {
			s.Friend(key).ReadAhead()
			if _, err := peer.Write([]byte("hello")); err != nil {
				return err
			}
			for s.Friend(key).Received() < 5 { // without a reader
				if err := loop.Yield(ctx); err != nil {
					return err
				}
			}
			if s.Friend(key).Received() != 5 || s.Buffered() != 5 {
				return fmt.Errorf("%d received, %d buffered", s.Friend(key).Received(), s.Buffered())
			}
			return nil
		})
	})
}

func TestTimer(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
			var fired, never loop.Timer
			var done loop.Event
			calls := 0
			fired.Init(g.Loops()[0], func() { calls++; done.Set() })
			never.Init(g.Loops()[0], func() { calls += 100 })
			never.Set(time.Millisecond)
			fired.Set(time.Hour)
			fired.Set(10 * time.Millisecond) // moves the timer
			never.Stop()
			never.Stop()
			if err := done.Wait(ctx); err != nil {
				return err
			}
			if calls != 1 {
				return fmt.Errorf("%d calls", calls)
			}
			return nil
		}))
	})
}

// A drain does not reach a task that is apart; a kill does, and so does the end
// of its parent.
func TestGoApart(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
			var goOn loop.Event
			var apart, kid *loop.Task
			parent, err := loop.Go(ctx, "parent", func(ctx context.Context) (err error) {
				if kid, err = loop.Go(ctx, "kid", func(ctx context.Context) error { return goOn.Wait(ctx) }); err != nil {
					return err
				}
				apart, err = loop.TaskOf(ctx).Friend(key).GoApart("apart", func(own context.Context) error {
					if err := goOn.Wait(own); err != nil {
						return fmt.Errorf("its own context: %w", err)
					}
					// It may wait with its parent's context, and the end of that wakes it.
					var never loop.Event
					if err := never.Wait(ctx); !errors.Is(err, context.Canceled) {
						return fmt.Errorf("the parent's context: %w", err)
					}
					return never.Wait(own)
				})
				if err != nil {
					return err
				}
				var never loop.Event
				_ = never.Wait(context.Background()) // until it is killed
				return nil
			})
			if err != nil {
				return err
			}
			if err := loop.Yield(ctx); err != nil {
				return err
			}
			parent.Cancel(false)
			if err := kid.Wait(ctx); !errors.Is(err, context.Canceled) {
				return fmt.Errorf("the kid of a drained parent: %w", err)
			}
			if apart.Friend(key).Context().Err() != nil {
				return errors.New("the drain reached the task")
			}
			goOn.Set()
			if err := loop.Yield(ctx); err != nil {
				return err
			}
			parent.Cancel(true)
			if err := apart.Wait(ctx); !errors.Is(err, runtime.ErrCanceled) && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("killed with its parent: %w", err)
			}
			return parent.Wait(ctx)
		}))
	})
}

// All functions given to OnEnd are called, in order, also when one panics.
func TestOnEnd(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		withPeer(t, v, func(_ context.Context, s *loop.Stream, _ *net.TCPConn) error {
			var called []int
			s.Friend(key).OnEnd(func() { called = append(called, 1); panic("contained") })
			s.Friend(key).OnEnd(func() { called = append(called, 2) })
			s.Friend(key).OnEnd(func() { called = append(called, 3) })
			err := s.Close()
			if !slices.Equal(called, []int{1, 2, 3}) {
				err = errors.Join(err, fmt.Errorf("called: %v", called))
			}
			return err
		})
	})
}

// AdoptConn refuses types other than package net's, even if they have a descriptor.
func TestAdoptConnRefuses(t *testing.T) {
	type wrapped struct{ *net.TCPConn }
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		gram, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(t.TempDir(), "s")})
		require.NoError(t, err)
		defer gram.Close()
		udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		require.NoError(t, err)
		defer udp.Close()
		withPeer(t, v, func(_ context.Context, s *loop.Stream, peer *net.TCPConn) error {
			for _, nc := range []net.Conn{udp, gram, wrapped{peer}, s} {
				if _, err := s.Loop().Friend(key).AdoptConn(nc, loop.StreamOptions{}); !errors.Is(err, errors.ErrUnsupported) {
					return fmt.Errorf("%T: %v", nc, err)
				}
			}
			_, err := peer.Write([]byte("x")) // AdoptConn has left it to the caller
			return err
		})
	})
}

// NextTurn calls its function in the next turn, also when a posted function or a timer
// calls NextTurn: after the tasks of this turn, and after the send of what they wrote.
func TestNextTurn(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		lp := g.Loops()[0]
		require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
			for name, start := range map[string]func(f func()){
				"posted": func(f func()) { require.NoError(t, lp.Post(f)) },
				"timer": func(f func()) {
					var timer loop.Timer
					timer.Init(lp, f)
					timer.Set(0)
				},
				"next turn's": func(f func()) { lp.Friend(key).NextTurn(f) },
			} {
				var order []string
				var ready, done loop.Event
				task, err := loop.Go(ctx, "task", func(ctx context.Context) error {
					err := ready.Wait(ctx)
					order = append(order, "task")
					return err
				})
				if err != nil {
					return err
				}
				if err := loop.Yield(ctx); err != nil {
					return err
				}
				start(func() {
					lp.Friend(key).NextTurn(func() {
						order = append(order, "next")
						done.Set()
					})
					ready.Set()
				})
				if err := errors.Join(task.Wait(ctx), done.Wait(ctx)); err != nil {
					return err
				}
				if want := []string{"task", "next"}; !slices.Equal(order, want) {
					return fmt.Errorf("%s: %v", name, order)
				}
			}
			return nil
		}))
	})
}
