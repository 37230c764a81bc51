package echo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
)

// A script is the peer of a connection. It sends the pieces that next returns, each
// when the connection has used up the previous ones and waits. next gets the bytes that
// the connection has sent so far. If it returns an empty piece, it is called again
// later; nil is the script's end.
type script struct {
	stream *loop.Stream // the connection's
	peer   *loop.Stream // the script's
	next   func(sent []byte) []byte
	sent   []byte
	over   bool // the connection has ended
	done   [2]loop.Event
}

// play starts a script on the loop.
func play(l *loop.Loop, next func(sent []byte) []byte) *script {
	near, far, err := socketPair()
	if err != nil {
		panic(err)
	}
	s := &script{next: next}
	if s.stream, err = l.Friend(friend.Key{}).AdoptConn(near, loop.StreamOptions{}); err != nil {
		panic(err)
	}
	if s.peer, err = l.Friend(friend.Key{}).AdoptConn(far, loop.StreamOptions{}); err != nil {
		panic(err)
	}
	for i, task := range []func(ctx context.Context) error{s.send, s.receive} {
		if err := l.Go("script", task, func(error) { s.done[i].Set() }); err != nil {
			panic(err)
		}
	}
	return s
}

func (s *script) send(ctx context.Context) error {
	for total := int64(0); !s.over; {
		for !s.over && (s.stream.Friend(friend.Key{}).Received() < total || s.stream.Buffered() > 0) {
			if err := loop.Yield(ctx); err != nil {
				return err
			}
		}
		p := s.next(s.sent)
		if p == nil {
			return s.peer.CloseWrite()
		}
		if _, err := s.peer.Write(p); err != nil {
			return err
		}
		total += int64(len(p))
		if err := loop.Yield(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *script) receive(context.Context) error {
	for {
		b, err := s.peer.ReadBuf()
		if err != nil {
			return err
		}
		s.sent = append(s.sent, b.Bytes()...)
		b.Release()
	}
}

// end waits until the script has received everything that the connection has sent.
func (s *script) end() {
	s.over = true
	_ = s.stream.CloseWrite() // the connection may have closed it already
	for i := range s.done {
		_ = s.done[i].Wait(context.Background())
	}
	_ = s.stream.Close()
	_ = s.peer.Close()
}

func socketPair() (near, far net.Conn, err error) {
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix"}) // the kernel chooses a name
	if err != nil {
		return nil, nil, err
	}
	defer ln.Close()
	if near, err = net.DialUnix("unix", nil, ln.Addr().(*net.UnixAddr)); err != nil {
		return nil, nil, err
	}
	far, err = ln.Accept()
	return near, far, err
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
// text, the error that its handler returned, and counts of its sync stream.
type outcome struct {
	sent       string
	err        string
	rollbacks  int64
	wouldBlock int64
	peakBuffer int
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
	s := play(l, next)
	c, err := newConn(s.stream, o, client)
	if err != nil {
		panic(err) // cannot happen: the options are constants
	}
	err = f(c)
	counts := c.sync.Friend(friend.Key{}).Counts()
	_, _ = c.sync.Take()
	s.end()
	return outcome{transcript(s.sent), fmt.Sprint(err), counts.Rollbacks, counts.WouldBlock, counts.PeakBuffer}
}

// transcript returns what a connection has sent, one line for each frame. It leaves out
// a client's request, because the key in it is new each time.
func transcript(sent []byte) string {
	var b strings.Builder
	if _, rest, ok := bytes.Cut(sent, []byte("\r\n\r\n")); ok && bytes.HasPrefix(sent, []byte("GET ")) {
		sent = rest
	}
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
