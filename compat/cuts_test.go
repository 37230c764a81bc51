package compat_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/tlstest"
	"github.com/noria-go/noria/loop"
)

// An adapter is a sync stream of either kind.
type adapter interface {
	Run(fn func(rw io.ReadWriter) error) error
	RunHead(end string, limit int, fn func(rw io.ReadWriter) error) error
	Split() (*compat.ReadHalf, *compat.WriteHalf)
	Close() error
}

var adapters = map[string]func(s *loop.Stream) (adapter, error){
	"fixed": func(s *loop.Stream) (adapter, error) {
		return compat.NewSyncStream(s, compat.Options{Size: 128 << 10})
	},
	"exact": func(s *loop.Stream) (adapter, error) {
		return compat.NewGrowableSyncStream(s, compat.Options{Exact: true})
	},
	"doubling": func(s *loop.Stream) (adapter, error) {
		return compat.NewGrowableSyncStream(s, compat.Options{Size: 16})
	},
	"linear": func(s *loop.Stream) (adapter, error) {
		gs, err := compat.NewGrowableSyncStream(s, compat.Options{Size: 16})
		if err == nil {
			gs.Friend(key).GrowLinearly(4096)
		}
		return gs, err
	},
}

// A cutInput is the bytes that a peer sends, and the function that has a library parse them
// and returns the result as text. The peer gets an answer of so many bytes.
type cutInput struct {
	input  []byte
	parse  func(a adapter, past *int) (string, error) // past is how much of it has been used up already
	answer int
}

const upgradeRequest = "GET /chat HTTP/1.1\r\nHost: noria.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

// upgradeAnswer is the length of gobwas/ws's answer to upgradeRequest.
var upgradeAnswer = len("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")

func cutInputs() map[string]cutInput {
	inputs := map[string]cutInput{
		"upgrade":      {[]byte(upgradeRequest), parseUpgrade(false), upgradeAnswer},
		"upgrade head": {append([]byte(upgradeRequest), clientFrame(ws.OpText, []byte("hello"))...), parseUpgrade(true), upgradeAnswer},
	}
	// These lengths are written in 7, 16 and 64 bits.
	for _, n := range []int{0, 5, 125, 126, 1000, 65535, 65536} {
		inputs[fmt.Sprintf("frame of %d", n)] = cutInput{clientFrame(ws.OpBinary, bytes.Repeat([]byte("payload "), n/8+1)[:n]), parseFrame, 0}
	}
	return inputs
}

func clientFrame(op ws.OpCode, payload []byte) []byte {
	f := ws.MaskFrameWith(ws.NewFrame(op, true, payload), [4]byte{1, 2, 3, 4})
	return ws.MustCompileFrame(f)
}

// parseUpgrade calls the library's upgrade: with head once, when the head has arrived, and
// a frame behind it; without head again and again, with rollback.
func parseUpgrade(head bool) func(a adapter, past *int) (string, error) {
	return func(a adapter, past *int) (string, error) {
		var hs ws.Handshake
		upgrade := func(rw io.ReadWriter) (err error) {
			hs, err = ws.Upgrade(rw)
			return err
		}
		if !head {
			err := a.Run(upgrade)
			return fmt.Sprintf("%+v", hs), err
		}
		if err := a.RunHead("\r\n\r\n", 4096, upgrade); err != nil {
			return "", err
		}
		*past = len(upgradeRequest)
		frame, err := parseFrame(a, past)
		return fmt.Sprintf("%+v %s", hs, frame), err
	}
}

// parseFrame reads a frame. Without rollback it would lose bytes of a header that is cut.
func parseFrame(a adapter, _ *int) (string, error) {
	var h ws.Header
	var p []byte
	err := a.Run(func(rw io.ReadWriter) (err error) {
		if h, err = ws.ReadHeader(rw); err != nil {
			return err
		}
		p = make([]byte, h.Length)
		_, err = io.ReadFull(rw, p)
		return err
	})
	if err != nil {
		return "", err
	}
	ws.Cipher(p, h.Mask, 0)
	return fmt.Sprintf("%+v %s", h, base64.StdEncoding.EncodeToString(p)), nil
}

// Every input gives the same result cut at any byte as whole, with each adapter.
func TestEveryCut(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		for kind, newAdapter := range adapters {
			for name, in := range cutInputs() {
				if kind == "exact" && name == "upgrade" {
					continue // the library reads ahead with bufio: Options.Exact is not for it
				}
				t.Run(kind+"/"+name, func(t *testing.T) {
					require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
						all := !testing.Short() && name == "frame of 65536" // minutes for each backend
						return cutEverywhere(ctx, in, newAdapter, all)
					}))
				})
			}
		}
	})
}

func cutEverywhere(ctx context.Context, in cutInput, newAdapter func(*loop.Stream) (adapter, error), all bool) error {
	s, peer, err := streamPair(ctx)
	if err != nil {
		return err
	}
	a, err := newAdapter(s)
	if err != nil {
		return err
	}
	r, _ := a.Split()
	var whole string
	for cut := len(in.input); cut > 0; cut -= cutStep(cut, len(in.input), all) {
		past := 0
		cr := &crew{ctx: ctx}
		cr.run("peer", func(ctx context.Context) error {
			if _, err := peer.Write(in.input[:cut]); err != nil {
				return err
			}
			for cut < len(in.input) && past+r.Buffered() < cut { // it has seen that much and no more
				if err := loop.Yield(ctx); err != nil {
					return err
				}
			}
			_, werr := peer.Write(in.input[cut:])
			_, rerr := io.ReadFull(peer, make([]byte, in.answer))
			return errors.Join(werr, rerr)
		})
		got, err := in.parse(a, &past)
		if err := errors.Join(err, cr.wait()); err != nil {
			return fmt.Errorf("cut at %d of %d: %w", cut, len(in.input), err)
		}
		if cut == len(in.input) {
			whole = got
		}
		if got != whole || r.Buffered() != 0 {
			return fmt.Errorf("cut at %d of %d: got %.200s, and %d bytes left; whole, it was %.200s", cut, len(in.input), got, r.Buffered(), whole)
		}
	}
	return errors.Join(a.Close(), peer.Close())
}

// cutStep returns the distance to the next cut: 1, or more in the middle of a long input
// unless all is set.
func cutStep(cut, size int, all bool) int {
	if near := 40; all || size < 2000 || cut < near || size-cut < near {
		return 1
	}
	return min(997, cut-20)
}

// A TLS handshake of a goroutine over a Conn works with what the peer sends cut at any byte.
func TestTLSHandshakeOverConnAtEveryCut(t *testing.T) {
	serverConfig, clientConfig := tlstest.Configs()
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		ln, err := compat.Listen(g, "127.0.0.1:0", loop.ListenOptions{})
		require.NoError(t, err)
		defer func() { require.NoError(t, ln.Close()) }()
		step := 1
		if testing.Short() {
			step = 29
		}
		total := 1 << 20
		for cut := -1; cut < total; cut += step {
			raw, err := net.Dial("tcp", ln.Addr().String())
			require.NoError(t, err)
			nc, err := ln.Accept()
			require.NoError(t, err)
			cc := &tlstest.CutConn{Conn: raw, Loop: g.Loops()[0], Cut: cut}
			peerDone := make(chan error, 1)
			go func() { peerDone <- tlstest.PingPong(tls.Client(cc, clientConfig)) }()
			c := tls.Server(nc, serverConfig)
			var p [4]byte
			_, rerr := io.ReadFull(c, p[:])
			_, werr := c.Write(p[:])
			require.NoError(t, errors.Join(rerr, werr, <-peerDone, c.Close(), raw.Close()), "cut at %d", cut)
			total = min(total, cc.Written)
		}
	})
}
