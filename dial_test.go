package noria_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/dialer"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/tcp"
	"github.com/noria-go/noria/ws"
)

// An opener opens a connection to an echo server. It returns a function that sends a
// text, waits for its echo and closes the connection; and the connection's loop.
type opener struct {
	name string
	dial func(ctx context.Context, address string, g *loop.Group) (talk func(ctx context.Context) error, on *loop.Loop, err error)
}

var openers = []opener{
	{"tcp", func(ctx context.Context, address string, g *loop.Group) (func(context.Context) error, *loop.Loop, error) {
		c, err := tcp.Dial(ctx, address, tcp.DialOptions{Net: loop.DialOptions{Group: g}})
		if err != nil {
			return nil, nil, err
		}
		return func(context.Context) error { return talk(c) }, c.Loop(), nil
	}},
	{"compat", func(ctx context.Context, address string, g *loop.Group) (func(context.Context) error, *loop.Loop, error) {
		c, err := compat.Dial(ctx, address, loop.DialOptions{Group: g})
		if err != nil {
			return nil, nil, err
		}
		return func(context.Context) error { return talk(c) }, c.Loop(), nil
	}},
	{"ws", func(ctx context.Context, address string, g *loop.Group) (func(context.Context) error, *loop.Loop, error) {
		c, err := ws.Dial(ctx, "ws://"+address+"/", ws.DialOptions{Net: loop.DialOptions{Group: g}})
		if err != nil {
			return nil, nil, err
		}
		return func(ctx context.Context) error {
			if err := c.SendText(ctx, "hello"); err != nil {
				return err
			}
			m, err := c.Receive(ctx)
			if err != nil {
				return err
			}
			if string(m.Bytes()) != "hello" {
				return errors.New("the echo is wrong")
			}
			m.Release()
			return c.Close(ws.StatusNormalClosure, "")
		}, c.Loop(), nil
	}},
}

// talk sends a text, waits for its echo, and closes c.
func talk(c net.Conn) error {
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	p := make([]byte, 5)
	if _, err := io.ReadFull(c, p); err != nil {
		return err
	}
	if string(p) != "hello" {
		return errors.New("the echo is wrong")
	}
	return c.Close()
}

// echoService serves the kind of connections that an opener makes.
func echoService(name string) loop.Service {
	if name == "ws" {
		return &ws.Server{Handler: func(ctx context.Context, c *ws.Conn) error {
			for {
				m, err := c.Receive(ctx)
				if err != nil {
					return err
				}
				if err := c.Send(ctx, m); err != nil {
					return err
				}
			}
		}}
	}
	return &tcp.Server{Handler: func(_ context.Context, c *loop.Stream) error {
		_, err := io.Copy(c, c)
		return err
	}}
}

// Dial has one rule in tcp, ws and compat: a task's connection belongs to the task's
// loop, and a goroutine's to a loop of the group that it names, or to the loop of the
// handler that it is, or to a group that is started for it.
func TestDial(t *testing.T) {
	// The group that is started for goroutines stays: it is no leak of a case below.
	require.NoError(t, dialer.On(t.Context(), nil, "nowhere", func(context.Context, bool) error { return nil }))
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for _, d := range openers {
			t.Run(d.name, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				g := backendtest.Group(t, v, 2)
				ls, err := g.Listen("127.0.0.1:0", loop.ListenOptions{})
				require.NoError(t, err)
				sctx, stop := context.WithCancel(ctx)
				served := make(chan error, 1)
				go func() { served <- g.Serve(sctx, ls, echoService(d.name)) }()
				defer func() {
					stop()
					require.NoError(t, <-served)
				}()
				address := ls.Addr().String()

				t.Run("task", func(t *testing.T) {
					home := g.Loops()[1]
					require.NoError(t, home.Call(ctx, "dial", func(ctx context.Context) error {
						talk, on, err := d.dial(ctx, address, nil)
						if err == nil && on != home {
							err = errors.New("the connection is on another loop")
						}
						return errors.Join(err, talk(ctx))
					}))
				})
				t.Run("goroutine with a group", func(t *testing.T) {
					talk, on, err := d.dial(ctx, address, g)
					require.NoError(t, err)
					require.Contains(t, g.Loops(), on)
					require.NoError(t, talk(ctx))
				})
				t.Run("handler on a goroutine", func(t *testing.T) {
					home := g.Loops()[0]
					require.NoError(t, home.Call(ctx, "dial", func(ctx context.Context) (err error) {
						oerr := loop.Offload(ctx, func() {
							var talk func(context.Context) error
							var on *loop.Loop
							if talk, on, err = d.dial(ctx, address, nil); err != nil {
								return
							}
							if on != home {
								err = errors.New("the connection is on another loop")
							}
							err = errors.Join(err, talk(ctx))
						})
						return errors.Join(err, oerr)
					}))
				})
				t.Run("goroutine", func(t *testing.T) {
					talk, on, err := d.dial(ctx, address, nil)
					require.NoError(t, err)
					require.NotContains(t, g.Loops(), on)
					require.NoError(t, talk(ctx))
				})
				t.Run("context that has ended", func(t *testing.T) {
					ended, end := context.WithCancel(ctx)
					end()
					_, _, err := d.dial(ended, address, g)
					require.ErrorIs(t, err, context.Canceled)
				})
			})
		}
	})
}

// The end of the context ends a task's Dial, whichever context the task gives.
func TestDialFromATaskEndsWithTheContext(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // it accepts no connection, so no handshake ends
	require.NoError(t, err)
	defer ln.Close()
	address := ln.Addr().String()
	dials := map[string]func(ctx context.Context, g *loop.Group) error{
		"tcp": func(ctx context.Context, g *loop.Group) error {
			_, err := tcp.Dial(ctx, address, tcp.DialOptions{TLS: &tls.Config{}, HandshakeTimeout: time.Minute, Net: loop.DialOptions{Group: g}})
			return err
		},
		"ws": func(ctx context.Context, g *loop.Group) error {
			_, err := ws.Dial(ctx, "ws://"+address+"/", ws.DialOptions{HandshakeTimeout: time.Minute, Net: loop.DialOptions{Group: g}})
			return err
		},
	}
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		for name, dial := range dials {
			for from, base := range map[string]func(own context.Context) context.Context{
				"its own":     func(own context.Context) context.Context { return own },
				"another one": func(context.Context) context.Context { return t.Context() },
			} {
				t.Run(name+", "+from, func(t *testing.T) {
					require.NoError(t, backendtest.Run(t, g, func(own context.Context) error {
						ctx, cancel := context.WithTimeout(base(own), 10*time.Millisecond)
						defer cancel()
						begun := time.Now()
						if err := dial(ctx, g); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > 30*time.Second {
							return fmt.Errorf("after %v: %v", time.Since(begun), err)
						}
						return nil
					}))
				})
			}
		}
	})
}

// A function that a loop calls outside any task cannot dial, on another loop's thread
// either: it would hold its own.
func TestDialFromAPostedFunction(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g, other := backendtest.Group(t, v, 1), backendtest.Group(t, v, 1)
		for _, d := range openers {
			for _, to := range []*loop.Group{g, other} {
				result := make(chan error, 1)
				require.NoError(t, g.Loops()[0].Post(func() {
					_, _, err := d.dial(ended, "127.0.0.1:1", to)
					result <- err
				}))
				require.ErrorIs(t, <-result, loop.ErrOffLoop, d.name)
			}
		}
	})
}

// A function that a loop calls outside any task begins to close what belongs to another
// loop, and does not wait for it.
func TestCloseFromAPostedFunction(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g, other := backendtest.Group(t, v, 1), backendtest.Group(t, v, 1)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer ln.Close()
		c, err := tcp.Dial(t.Context(), ln.Addr().String(), tcp.DialOptions{Net: loop.DialOptions{Group: other}})
		require.NoError(t, err)
		peer, err := ln.Accept()
		require.NoError(t, err)
		defer peer.Close()
		ls, err := other.Listen("127.0.0.1:0", loop.ListenOptions{})
		require.NoError(t, err)
		closed := make(chan error, 2)
		require.NoError(t, g.Loops()[0].Post(func() {
			closed <- c.Close()
			closed <- ls.Close()
		}))
		require.NoError(t, <-closed)
		require.NoError(t, <-closed)
		require.NoError(t, peer.SetReadDeadline(time.Now().Add(30*time.Second)))
		_, err = peer.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		require.Eventually(t, func() bool { // the port becomes free
			again, err := other.Listen(ls.Addr().String(), loop.ListenOptions{})
			return err == nil && again.Close() == nil
		}, 30*time.Second, time.Millisecond)
	})
}
