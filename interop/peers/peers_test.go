// Package peers tests Noria's WebSocket, in both roles, with clients and servers of
// other authors. It is a module of its own, so that Noria does not depend on them;
// `make interop` runs it.
package peers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria"
	"github.com/noria-go/noria/internal/backends"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws"
)

// patience limits each wait. Only a failing test waits so long.
const patience = time.Minute

// A variant is one configuration of Noria's side.
type variant struct {
	backend  string
	compress string // "", or the options for compression of the peer and of Noria
}

func (v variant) String() string {
	s := v.backend
	if v.compress != "" {
		s += " compressed, " + v.compress
	}
	return s
}

const (
	takeover   = "takeover"
	noTakeover = "no takeover"
)

func each(t *testing.T, f func(t *testing.T, v variant)) {
	for _, backend := range backends.Names() {
		for _, compress := range []string{"", takeover, noTakeover} {
			v := variant{backend, compress}
			t.Run(v.String(), func(t *testing.T) { f(t, v) })
		}
	}
}

func (v variant) options() ws.Options {
	o := ws.Options{MaxMessage: 16 << 20}
	if v.compress != "" {
		no := v.compress == noTakeover
		o.Compression = &ws.Compression{ServerNoContextTakeover: no, ClientNoContextTakeover: no}
	}
	return o
}

// start starts loops that end with the test.
func (v variant) start(t *testing.T) *loop.Group {
	t.Helper()
	g, err := noria.Start(noria.Options{Backend: v.backend, Loops: 1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.Stop()) })
	return g
}

// serve serves srv until the test ends, and returns its URL.
func (v variant) serve(t *testing.T, srv *ws.Server) string {
	t.Helper()
	g := v.start(t)
	ls, err := g.Listen("127.0.0.1:0", loop.ListenOptions{})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Serve(ctx, ls, srv) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
	})
	return "ws://" + ls.Addr().String() + "/a/path?with=query"
}

// handler echoes, and closes when a text asks for it.
func handler(ctx context.Context, c *ws.Conn) error {
	for {
		m, err := c.Receive(ctx)
		if err != nil {
			return err
		}
		var code ws.StatusCode
		if m.Type() == ws.TypeText && m.Len() < 100 {
			if n, _ := fmt.Sscanf(string(m.Bytes()), "close %d", &code); n == 1 {
				m.Release()
				return c.Close(code, "as you wish")
			}
		}
		if err := c.Send(ctx, m); err != nil {
			return err
		}
	}
}

// dial runs f as a task with a connection to url.
func (v variant) dial(t *testing.T, url string, f func(ctx context.Context, c *ws.Conn) error) {
	t.Helper()
	g := v.start(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, g.Loop().Call(ctx, "client", func(ctx context.Context) error {
		c, err := ws.Dial(ctx, url, ws.DialOptions{Options: v.options(), Subprotocols: []string{"none", "echo"}})
		if err != nil {
			return err
		}
		if c.Subprotocol() != "echo" {
			return fmt.Errorf("the subprotocol is %q", c.Subprotocol())
		}
		if c.Compressed() != (v.compress != "") {
			return fmt.Errorf("compressed: %v", c.Compressed())
		}
		return errors.Join(f(ctx, c), closeOnce(c))
	}))
}

func closeOnce(c *ws.Conn) error {
	if err := c.Close(ws.StatusNormalClosure, "done"); err != nil && !strings.Contains(err.Error(), "closed") {
		return err
	}
	return nil
}

// echoes sends every message of the list and requires it back.
func echoes(ctx context.Context, c *ws.Conn) error {
	for i, m := range messages() {
		typ := ws.TypeBinary
		if m.text {
			typ = ws.TypeText
		}
		if err := c.Send(ctx, ws.NewMessage(typ, bytes.Clone(m.data))); err != nil {
			return fmt.Errorf("message %d of %d bytes: %w", i, len(m.data), err)
		}
		got, err := c.Receive(ctx)
		if err != nil {
			return fmt.Errorf("message %d of %d bytes: %w", i, len(m.data), err)
		}
		if got.Type() != typ || !bytes.Equal(got.Bytes(), m.data) {
			return fmt.Errorf("message %d of %d bytes came back as %v of %d", i, len(m.data), got.Type(), got.Len())
		}
		got.Release()
	}
	return nil
}

// asksToClose asks the server to close with each of these codes, on one connection for
// each.
func (v variant) asksToClose(t *testing.T, url string) {
	for _, code := range closeCodes {
		v.dial(t, url, func(ctx context.Context, c *ws.Conn) error {
			if err := c.SendText(ctx, fmt.Sprintf("close %d", code)); err != nil {
				return err
			}
			_, err := c.Receive(ctx)
			var closed *ws.CloseError
			if !errors.As(err, &closed) || int(closed.Code) != code || closed.Reason != "as you wish" {
				return fmt.Errorf("want code %d, got %w", code, err)
			}
			return nil
		})
	}
}

var closeCodes = []int{1000, 1001, 1003, 1008, 1011, 3000, 4999}

// A message is sent and must come back.
type message struct {
	data []byte
	text bool
}

// messages returns messages of each length class, and large ones, some of which
// compress well.
func messages() (list []message) {
	noise := make([]byte, 8<<20)
	_, _ = rand.NewChaCha8([32]byte{6}).Read(noise)
	words := bytes.Repeat([]byte("a wheel turns, größer und größer. "), 8<<20/30)
	for _, n := range []int{0, 1, 125, 126, 127, 300, 4096, 65535, 65536, 1 << 20, 8 << 20} {
		text := words[:n]
		for len(text) > 0 && text[len(text)-1]&0x80 != 0 { // do not cut a character
			text = text[:len(text)-1]
		}
		list = append(list, message{data: noise[:n]}, message{data: text, text: true})
	}
	return list
}

// listen serves h over HTTP until the test ends and returns the ws URL.
func listen(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return "ws" + strings.TrimPrefix(s.URL, "http") + "/x"
}
