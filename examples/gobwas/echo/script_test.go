package echo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// A script is a stream that does no I/O. Its bytes arrive in the pieces that next
// returns; next gets the bytes that were sent so far, and returns nil for the peer's
// end.
type script struct {
	compat.Stream // nil: its other methods are never called
	loop          *loop.Loop
	next          func(sent []byte) []byte
	here          []byte // the rest of the last piece
	sent          []byte
}

func (s *script) Loop() *loop.Loop                  { return s.loop }
func (s *script) SetReadDeadline(time.Time) error   { return nil }
func (s *script) Buffered() int                     { return len(s.here) }
func (s *script) CloseWrite() error                 { return nil }
func (s *script) Close() error                      { return nil }
func (s *script) Write(p []byte) (int, error)       { return len(p), nil } // p is empty: the call only waits for room
func (s *script) ReadBuf() (*runtime.Buffer, error) { return s.take(1 << 30) }

func (s *script) take(most int) (*runtime.Buffer, error) {
	if len(s.here) == 0 {
		if s.here = s.next(s.sent); len(s.here) == 0 {
			return nil, io.EOF
		}
	}
	n := min(most, len(s.here))
	b, err := s.loop.Pool().Copy(0, s.here[:n])
	s.here = s.here[n:]
	return b, err
}

func (s *script) Read(p []byte) (int, error) {
	b, err := s.take(len(p))
	if err != nil {
		return 0, err
	}
	defer b.Release()
	return copy(p, b.Bytes()), nil
}

func (s *script) ReadInto(b *runtime.Buffer) (int, error) {
	n, err := s.Read(b.Room())
	b.Extend(n)
	return n, err
}

func (s *script) Unread(b *runtime.Buffer) {
	s.here = slices.Concat(b.Bytes(), s.here)
	b.Release()
}

func (s *script) TryWriteBuf(bufs ...*runtime.Buffer) error {
	for _, b := range bufs {
		s.sent = append(s.sent, b.Bytes()...)
		b.Release()
	}
	return nil
}

// inPieces returns pieces one after another.
func inPieces(pieces ...[]byte) func([]byte) []byte {
	return func([]byte) []byte {
		if len(pieces) == 0 {
			return nil
		}
		p := pieces[0]
		pieces = pieces[1:]
		return p
	}
}

// chunks cuts p into pieces of n bytes.
func chunks(p []byte, n int) (list [][]byte) {
	for len(p) > 0 {
		k := min(n, len(p))
		list, p = append(list, p[:k:k]), p[k:]
	}
	return list
}

// An outcome is the result of a connection over a script: the frames that it sent, as
// text, and the error that its handler returned.
type outcome struct {
	sent   string
	err    string
	counts compat.Counts
}

// runServer runs one connection of a server.
func runServer(l *loop.Loop, o Options, next func([]byte) []byte) outcome {
	return run(l, o, false, next, (*conn).serve)
}

// runFrames runs one connection, of either role, after its handshake.
func runFrames(l *loop.Loop, o Options, client bool, next func([]byte) []byte) outcome {
	return run(l, o, client, next, func(c *conn) error { return c.end(c.echo()) })
}

func run(l *loop.Loop, o Options, client bool, next func([]byte) []byte, f func(*conn) error) outcome {
	s := &script{loop: l, next: next}
	c, err := newConn(s, o, client)
	if err != nil {
		panic(err) // cannot happen: the options are constants
	}
	err = f(c)
	counts := c.sync.Counts()
	_, _ = c.sync.Take()
	return outcome{transcript(s.sent), fmt.Sprint(err), counts}
}

// transcript returns what a connection has sent, one line for each frame.
func transcript(sent []byte) string {
	var b strings.Builder
	if head, rest, ok := bytes.Cut(sent, []byte("\r\n\r\n")); ok && bytes.HasPrefix(sent, []byte("HTTP/")) {
		first, _, _ := strings.Cut(string(head), "\r\n")
		fmt.Fprintln(&b, first)
		sent = rest
	}
	r := bytes.NewReader(sent)
	for r.Len() > 0 {
		h, err := ws.ReadHeader(r)
		p := make([]byte, h.Length)
		if err == nil {
			_, err = io.ReadFull(r, p)
		}
		if err != nil {
			fmt.Fprintf(&b, "half a frame: %v\n", err)
			break
		}
		if h.Masked {
			ws.Cipher(p, h.Mask, 0)
		}
		fmt.Fprintf(&b, "%x fin=%v rsv=%d %s\n", h.OpCode, h.Fin, h.Rsv, short(p))
	}
	return b.String()
}

func short(p []byte) string {
	if len(p) > 20 {
		return fmt.Sprintf("%.20q and so on, %d bytes", p, len(p))
	}
	return fmt.Sprintf("%q", p)
}

// onLoop runs f as a task and returns its result. The backend makes no difference to a
// script.
func onLoop(t testing.TB, g *loop.Group, f func(l *loop.Loop) outcome) (o outcome) {
	t.Helper()
	require.NoError(t, backendtest.Run(t, g, func(context.Context) error {
		o = f(g.Loops()[0])
		return nil
	}))
	return o
}

func group(t *testing.T) *loop.Group { return backendtest.Group(t, backendtest.Variants()[0], 1) }
