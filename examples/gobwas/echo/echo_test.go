package echo

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
)

var address = &url.URL{Scheme: "ws", Host: "noria.test", Path: "/"}

// response returns a server's answer to request.
func response(request []byte) []byte {
	_, key, _ := strings.Cut(string(request), "Sec-WebSocket-Key: ")
	key, _, _ = strings.Cut(key, "\r\n")
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return fmt.Appendf(nil, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
}

// The library's own client, on the net package. interop/examples.sh drives the server
// with npm's.
func TestLibrarysClient(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		ends := make(chan error, 1)
		addr := serve(t, backendtest.Group(t, v, 1), Options{}, func(err error) { ends <- err })
		c, _, _, err := ws.Dial(t.Context(), fmt.Sprintf("ws://%s/", addr))
		require.NoError(t, err)
		require.NoError(t, c.SetDeadline(time.Now().Add(30*time.Second)))
		for _, n := range []int{0, 1, 125, 126, 65535, 65536, 5 << 20} {
			message := bytes.Repeat([]byte("x"), n)
			require.NoError(t, wsutil.WriteClientBinary(c, message))
			got, err := wsutil.ReadServerBinary(c)
			require.NoError(t, err)
			require.True(t, bytes.Equal(message, got), "%d bytes", n)
		}
		write := func(op ws.OpCode, fin bool, payload string) {
			_, err := c.Write(frame(true, op, fin, payload))
			require.NoError(t, err)
		}
		write(ws.OpText, false, "in ")
		write(ws.OpPing, true, "ping")
		write(ws.OpContinuation, true, "fragments")
		pong := ws.MustCompileFrame(ws.NewPongFrame([]byte("ping")))
		answer := make([]byte, len(pong))
		_, err = io.ReadFull(c, answer)
		require.NoError(t, err)
		require.Equal(t, pong, answer)
		got, err := wsutil.ReadServerText(c)
		require.NoError(t, err)
		require.Equal(t, "in fragments", string(got))
		write(ws.OpClose, true, "\x03\xe8bye")
		_, err = wsutil.ReadServerBinary(c)
		require.ErrorAs(t, err, &wsutil.ClosedError{})
		_, err = c.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err, "the server ends the connection")
		require.NoError(t, c.Close())
		require.NoError(t, <-ends)

		// A peer that leaves in the middle of a frame, and one that leaves between two.
		for sent, want := range map[string]error{"\x82\xfe": io.ErrUnexpectedEOF, "": io.EOF} {
			c, _, _, err = ws.Dial(t.Context(), fmt.Sprintf("ws://%s/", addr))
			require.NoError(t, err)
			_, err = c.Write([]byte(sent))
			require.NoError(t, err)
			require.NoError(t, c.Close())
			require.ErrorIs(t, <-ends, want)
		}
	})
}

// The example's client with its server.
func TestSay(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		ends := make(chan error, 1)
		addr := serve(t, g, Options{MaxMessage: 100_000}, func(err error) { ends <- err })
		say := func(url, text string) (answer string, err error) {
			err = backendtest.Run(t, g, func(ctx context.Context) error {
				answer, err = Say(ctx, url, text, Options{})
				return err
			})
			return answer, err
		}
		text := strings.Repeat("größer ", 10_000)
		answer, err := say("ws://"+addr+"/any/path", text)
		require.NoError(t, err)
		require.True(t, text == answer)
		require.NoError(t, <-ends)

		_, err = say("ws://"+addr, text+text)
		require.NoError(t, err, "the server has closed, in order")
		require.ErrorContains(t, <-ends, "1009")

		for _, url := range []string{"http://" + addr, "ws://", "ws:// /"} {
			_, err = say(url, "x")
			require.Error(t, err, url)
		}
	})
}

// A peer's mistakes, and the code that the peer gets for each, in both roles.
func TestViolations(t *testing.T) {
	raw := func(head string) func(bool) []byte {
		return func(toServer bool) []byte {
			b := []byte(head)
			if toServer {
				b[1] |= 0x80
				b = append(b, 0, 0, 0, 0)
			}
			return b
		}
	}
	type part struct {
		op      ws.OpCode
		fin     bool
		payload string
	}
	frames := func(parts ...part) func(bool) []byte {
		return func(toServer bool) (all []byte) {
			for _, p := range parts {
				all = append(all, frame(toServer, p.op, p.fin, p.payload)...)
			}
			return all
		}
	}
	closing := func(code int, reason string) func(bool) []byte {
		return frames(part{ws.OpClose, true, string([]byte{byte(code >> 8), byte(code)}) + reason})
	}
	cases := map[string]struct {
		send func(toServer bool) []byte
		code ws.StatusCode
	}{
		"too long, announced":          {raw("\x82\x7e\x03\xe9"), 1009},
		"2^62 bytes, announced":        {raw("\x82\x7f\x40\x00\x00\x00\x00\x00\x00\x00"), 1009},
		"too long, over fragments":     {frames(part{ws.OpBinary, false, strings.Repeat("x", 1000)}, part{ws.OpContinuation, true, "x"}), 1009},
		"the top bit of a length":      {raw("\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x01"), 1002},
		"16 bits for a short length":   {raw("\x82\x7e\x00\x7d"), 1002},
		"64 bits for a short length":   {raw("\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x7e"), 1002},
		"RSV1":                         {raw("\xc2\x00"), 1002},
		"RSV2":                         {raw("\xa2\x00"), 1002},
		"RSV3":                         {raw("\x92\x00"), 1002},
		"opcode 3":                     {raw("\x83\x00"), 1002},
		"opcode 11":                    {raw("\x8b\x00"), 1002},
		"a long ping":                  {raw("\x89\x7e\x00\x7e"), 1002},
		"a ping in fragments":          {raw("\x09\x00"), 1002},
		"a stray continuation":         {frames(part{ws.OpContinuation, true, "x"}), 1002},
		"a message inside another":     {frames(part{ws.OpText, false, "a"}, part{ws.OpText, true, "b"}), 1002},
		"the wrong masking":            {func(toServer bool) []byte { return frame(!toServer, ws.OpText, true, "x") }, 1002},
		"bad UTF-8":                    {frames(part{ws.OpText, true, "caf\xe9"}), 1007},
		"bad UTF-8, not the last part": {frames(part{ws.OpText, false, "ok\xff"}), 1007},
		"bad UTF-8, over fragments":    {frames(part{ws.OpText, false, "\xf4"}, part{ws.OpContinuation, false, "\x90"}), 1007},
		"half a character":             {frames(part{ws.OpText, false, "caf\xc3"}, part{ws.OpContinuation, true, ""}), 1007},
		"half a close code":            {frames(part{ws.OpClose, true, "\x03"}), 1002},
		"close code 999":               {closing(999, ""), 1002},
		"close code 1004":              {closing(1004, ""), 1002},
		"close code 1005":              {closing(1005, ""), 1002},
		"close code 1015":              {closing(1015, ""), 1002},
		"close code 5000":              {closing(5000, ""), 1002},
		"a close reason, no UTF-8":     {closing(1000, "\xff"), 1007},
	}
	g := group(t)
	for name, c := range cases {
		for _, server := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/server=%v", name, server), func(t *testing.T) {
				got := onLoop(t, g, func(l *loop.Loop) outcome {
					return runFrames(l, Options{MaxMessage: 1000}, !server, inPieces(c.send(server), []byte("what follows")))
				})
				require.Equal(t, fmt.Sprintf("8 fin=true rsv=0 %q\n", []byte{byte(c.code >> 8), byte(c.code)}), got.sent)
				require.Contains(t, got.err, fmt.Sprintf("closed with code %d", c.code))
			})
		}
	}
	// Valid codes that the library would refuse.
	for _, code := range []int{1000, 1003, 1007, 1012, 1013, 1014, 3000, 4999} {
		got := onLoop(t, g, func(l *loop.Loop) outcome {
			return runFrames(l, Options{}, false, inPieces(closing(code, "Größe")(true)))
		})
		require.Equal(t, fmt.Sprintf("8 fin=true rsv=0 %q\n", []byte{byte(code >> 8), byte(code)}), got.sent)
		require.Equal(t, "<nil>", got.err)
	}
}

// A request without an end is limited in bytes; TestServerConforms limits a slow one in
// time.
func TestLongRequest(t *testing.T) {
	got := onLoop(t, group(t), func(l *loop.Loop) outcome {
		return runServer(l, Options{}, func([]byte) []byte { return bytes.Repeat([]byte("x"), 1000) })
	})
	require.Empty(t, got.sent)
	require.Contains(t, got.err, "no end of the head")
}
