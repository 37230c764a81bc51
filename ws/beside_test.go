package ws_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// Inflating a long message lets others have their turns. When one of them ends the
// connection, what there is of the message must not be taken for all of it.
func TestEndWhileInflating(t *testing.T) {
	message := deflated(frame.Binary, strings.Repeat("\x00", 5<<20))
	receives := map[string]func(ctx context.Context, c *ws.Conn) (int, error){
		"Receive": func(ctx context.Context, c *ws.Conn) (int, error) {
			m, err := c.Receive(ctx)
			if m == nil {
				return 0, err
			}
			defer m.Release()
			return m.Len(), err
		},
		"Reader": func(ctx context.Context, c *ws.Conn) (int, error) {
			_, r, err := c.NextReader(ctx)
			if err != nil {
				return 0, err
			}
			n, err := io.Copy(io.Discard, struct{ io.Reader }{r})
			return int(n), err
		},
		"Reader.WriteTo": func(ctx context.Context, c *ws.Conn) (int, error) {
			_, r, err := c.NextReader(ctx)
			if err != nil {
				return 0, err
			}
			n, err := r.WriteTo(io.Discard)
			return int(n), err
		},
	}
	ends := map[string]func(c *ws.Conn) error{
		"CloseNow": (*ws.Conn).CloseNow,
		"Close":    func(c *ws.Conn) error { return c.Close(4001, "") },
	}
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for how, receive := range receives {
			for who, end := range ends {
				t.Run(how+","+who, func(t *testing.T) {
					result := make(chan error, 1)
					srv := echoServer()
					srv.Compression = &ws.Compression{}
					srv.MaxMessage = 10 << 20
					srv.Handler = func(ctx context.Context, c *ws.Conn) error {
						if _, err := loop.WaitAny(ctx, c.Readable()); err != nil { // it has begun to inflate
							return err
						}
						if _, err := loop.Go(ctx, "ends", func(context.Context) error { return end(c) }); err != nil {
							return err
						}
						n, err := receive(ctx, c)
						switch {
						case err == nil && (n < 5<<20 || who == "CloseNow"):
							err = fmt.Errorf("%d bytes, and no error", n)
						case n < 5<<20 && !errors.Is(err, runtime.ErrBusy):
							err = nil
						}
						result <- err
						return nil
					}
					p := connectPacked(t, serve(t, backendtest.Group(t, v, 1), srv), "permessage-deflate")
					p.send(append(bytes.Clone(message), closeFrame(4001, "")...))
					require.NoError(t, <-result)
					toTheEnd(p)
				})
			}
		}
	})
}

// A duringWrite is a Writer that has something else happen while it writes: what it
// was given must stay as it is.
type duringWrite struct {
	do   func() error
	less int // it writes so many bytes less than it is given
	got  []byte
}

var errShort = errors.New("this Writer writes less")

func (d *duringWrite) Write(p []byte) (int, error) {
	before := bytes.Clone(p)
	if err := d.do(); err != nil {
		return 0, err
	}
	if !bytes.Equal(before, p) {
		return 0, errors.New("the bytes have changed")
	}
	d.got = append(d.got, p[:len(p)-d.less]...)
	if d.less > 0 {
		return len(p) - d.less, errShort
	}
	return len(p), nil
}

// While a Reader's bytes are written, which may take long, whoever ends the
// connection does not take them away; nor is what was not written lost unsaid.
func TestEndWhileWriteToWrites(t *testing.T) {
	content := strings.Repeat("0123456789", 1000)
	for _, c := range []struct {
		name  string
		do    func(ctx context.Context, c *ws.Conn) error
		ended bool
	}{
		{"nothing", func(context.Context, *ws.Conn) error { return nil }, false},
		{"a turn", func(ctx context.Context, _ *ws.Conn) error { return loop.Yield(ctx) }, false},
		{"Readable", func(ctx context.Context, c *ws.Conn) error { _, err := loop.WaitAny(ctx, c.Readable()); return err }, false},
		{"CloseNow", func(_ context.Context, c *ws.Conn) error { return c.CloseNow() }, true},
		{"Close", func(_ context.Context, c *ws.Conn) error { return c.Close(4001, "") }, true},
		{"Close elsewhere", goroutine(func(_ context.Context, c *ws.Conn) error { return c.Close(4001, "") }), true},
		{"Close beside", func(ctx context.Context, c *ws.Conn) error {
			closer, err := closeBeside(ctx, c)
			return errors.Join(err, closer.Wait(ctx))
		}, true},
	} {
		for _, whole := range []bool{false, true} { // it was received before the Reader was asked for
			for _, less := range []int{0, 1} {
				read := func(ctx context.Context, conn *ws.Conn) error {
					if whole {
						if _, err := loop.WaitAny(ctx, conn.Readable()); err != nil {
							return err
						}
					}
					_, r, err := conn.NextReader(ctx)
					if err != nil {
						return err
					}
					w := &duringWrite{do: func() error { return c.do(ctx, conn) }, less: less}
					n, err := r.WriteTo(w)
					rest, rerr := io.ReadAll(r)
					got := string(w.got) + string(rest)
					switch {
					case int(n) != len(w.got):
						return fmt.Errorf("%d bytes are said to be written, which were %d", n, len(w.got))
					case !strings.HasPrefix(content, got):
						return fmt.Errorf("got %d bytes, other ones", len(got))
					case less > 0 && !errors.Is(err, errShort):
						return fmt.Errorf("the Writer's error became %w", err)
					case rerr == nil && len(got) != len(content):
						return fmt.Errorf("%d bytes are taken for all of the message (%w)", len(got), err)
					case !c.ended && rerr != nil:
						return fmt.Errorf("the rest: %w", rerr)
					}
					return nil
				}
				t.Run(fmt.Sprintf("%s,whole=%v,less=%d", c.name, whole, less), func(t *testing.T) {
					backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
						result := make(chan error, 1)
						srv := echoServer()
						srv.Handler = func(ctx context.Context, c *ws.Conn) error { result <- read(ctx, c); return nil }
						frames := [][]byte{fr(frame.Text, true, content)}
						if !whole {
							frames = [][]byte{fr(frame.Text, false, content[:6000]), fr(frame.Continuation, true, content[6000:])}
						}
						message := bytes.Join(append(frames, closeFrame(4001, "")), nil)
						p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
						p.send(message)
						require.NoError(t, <-result)
						toTheEnd(p)

						srv = echoServer()
						srv.Handler = func(ctx context.Context, c *ws.Conn) error {
							if whole {
								return c.SendText(ctx, content)
							}
							w, err := c.NextWriter(ctx, ws.TypeText)
							if err != nil {
								return err
							}
							_, err = io.WriteString(w, content[:6000])
							err = errors.Join(err, w.Flush())
							_, werr := io.WriteString(w, content[6000:])
							return errors.Join(err, werr, w.Close())
						}
						g := backendtest.Group(t, v, 2)
						addr := serve(t, g, srv)
						require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
							c, err := ws.Dial(ctx, "ws://"+addr, ws.DialOptions{})
							if err != nil {
								return err
							}
							err = read(ctx, c)
							_ = c.CloseNow() // it may be closed
							return err
						}))
					})
				})
			}
		}
	}
}
