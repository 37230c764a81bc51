package compat_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
)

// A goroutine can close or take a sync stream while the loop refuses posts.
func TestSyncStreamWhilePostsAreFull(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.CrowdedGroup(t, v, 1)
		for name, end := range map[string]func(ss *compat.SyncStream) error{
			"close": (*compat.SyncStream).Close,
			"take": func(ss *compat.SyncStream) error {
				s, err := ss.Take()
				return errors.Join(err, s.Close())
			},
		} {
			withPeer(t, g, func(ctx context.Context, s *loop.Stream, peer net.Conn) error {
				s.Friend(key).AllowGoroutines(ctx)
				ss, err := newSync(s, true)
				if err != nil {
					return err
				}
				if _, err := ss.Write([]byte(name)); err != nil {
					return err
				}
				return backendtest.Offload(ctx, func() error {
					if err := backendtest.WhileCrowded(t, s.Loop(), func() error { return end(ss) }); err != nil {
						return err
					}
					got, err := io.ReadAll(peer)
					require.Equal(t, name, string(got))
					return err
				})
			})
		}
	})
}

func TestTakeOverWhilePostsAreFull(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		l := backendtest.CrowdedGroup(t, v, 1).Loops()[0]
		for _, pumped := range []bool{false, true} {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer ln.Close()
			near, err := net.Dial("tcp", ln.Addr().String())
			require.NoError(t, err)
			far, err := ln.Accept()
			require.NoError(t, err)
			defer far.Close()
			if pumped {
				near = struct{ net.Conn }{near}
			}
			var c *compat.Conn
			require.NoError(t, backendtest.WhileCrowded(t, l, func() error {
				s, was, err := compat.TakeOver(l, near, compat.TakeOverOptions{})
				if err != nil {
					return err
				}
				require.Equal(t, pumped, was)
				return l.Friend(key).Call(context.Background(), "use", func(context.Context) error {
					c = compat.NewConn(s)
					return nil
				})
			}))
			require.NoError(t, backendtest.WhileCrowded(t, l, func() error {
				_, err := io.WriteString(c, "hello")
				return errors.Join(err, c.Close())
			}))
			got, err := io.ReadAll(far)
			require.NoError(t, err)
			require.Equal(t, "hello", string(got))
		}
	})
}
