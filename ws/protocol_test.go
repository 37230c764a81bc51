package ws_test

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// raw returns a frame with these bytes.
func raw(s string) []byte { return []byte(s) }

func closeFrame(code int, reason string) []byte {
	return fr(frame.Close, true, string([]byte{byte(code >> 8), byte(code)})+reason)
}

// Bytes of a peer that break the protocol, and the status code that it gets: traps.md,
// "What a WebSocket server meets", 4, 5, 7, 9, 10, 12.
func TestProtocolErrors(t *testing.T) {
	zero := "\x00\x00\x00\x00"
	cases := []struct {
		name string
		send []byte
		code ws.StatusCode
	}{
		{"top bit of a 64-bit length", raw("\x82\xff\x80\x00\x00\x00\x00\x00\x00\x01" + zero), ws.StatusProtocolError},
		{"16 bits for a short length", raw("\x82\xfe\x00\x7d" + zero), ws.StatusProtocolError},
		{"64 bits for a short length", raw("\x82\xff\x00\x00\x00\x00\x00\x00\x00\x7d" + zero), ws.StatusProtocolError},
		{"2^62 bytes announced", raw("\x82\xff\x40\x00\x00\x00\x00\x00\x00\x00" + zero + "abc"), ws.StatusMessageTooBig},
		{"one byte too much announced", raw("\x82\xfe\x04\x01" + zero), ws.StatusMessageTooBig},
		{"too much over fragments", bytes.Join([][]byte{fr(frame.Binary, false, strings.Repeat("x", 1000)), fr(frame.Continuation, false, ""),
			fr(frame.Continuation, true, strings.Repeat("x", 25))}, nil), ws.StatusMessageTooBig},
		{"lengths that overflow together", append(fr(frame.Binary, false, "x"), raw("\x80\xff\x7f\xff\xff\xff\xff\xff\xff\xff"+zero)...), ws.StatusMessageTooBig},
		{"a stray continuation", fr(frame.Continuation, true, "x"), ws.StatusProtocolError},
		{"a continuation after a whole message", append(text("x"), fr(frame.Continuation, true, "x")...), ws.StatusProtocolError},
		{"a new message inside a fragmented one", append(fr(frame.Text, false, "x"), text("y")...), ws.StatusProtocolError},
		{"a long ping", fr(frame.Ping, true, strings.Repeat("x", 126)), ws.StatusProtocolError},
		{"a long close", fr(frame.Close, true, "\x03\xe8"+strings.Repeat("x", 124)), ws.StatusProtocolError},
		{"a ping in fragments", fr(frame.Ping, false, "x"), ws.StatusProtocolError},
		{"RSV1 without an extension", raw("\xc1\x81" + zero + "x"), ws.StatusProtocolError},
		{"RSV2", raw("\xa1\x81" + zero + "x"), ws.StatusProtocolError},
		{"RSV3", raw("\x91\x81" + zero + "x"), ws.StatusProtocolError},
		{"opcode 3", fr(3, true, "x"), ws.StatusProtocolError},
		{"opcode 11", fr(11, true, "x"), ws.StatusProtocolError},
		{"bad UTF-8", text("a\xff"), ws.StatusInvalidPayload},
		{"bad UTF-8 before the frame is complete", text("a\xff" + strings.Repeat("x", 100))[:20], ws.StatusInvalidPayload},
		{"bad UTF-8 across fragments", append(fr(frame.Text, false, "\xe2\x82"), fr(frame.Continuation, false, "x")...), ws.StatusInvalidPayload},
		{"UTF-8 that does not end", text("\xe2\x82"), ws.StatusInvalidPayload},
		{"UTF-8 that does not end in its last, empty fragment", append(fr(frame.Text, false, "\xe2\x82"), fr(frame.Continuation, true, "")...), ws.StatusInvalidPayload},
		{"not masked", raw("\x81\x01x"), ws.StatusProtocolError},
		{"half a status code", fr(frame.Close, true, "\x03"), ws.StatusProtocolError},
		{"bad UTF-8 in the reason", closeFrame(1000, "\xff"), ws.StatusInvalidPayload},
	}
	for _, code := range []int{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		cases = append(cases, struct {
			name string
			send []byte
			code ws.StatusCode
		}{fmt.Sprintf("code %d", code), closeFrame(code, ""), ws.StatusProtocolError})
	}
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.MaxMessage = 1024
		addr := serve(t, backendtest.Group(t, v, 1), srv)
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				p := connect(t, addr)
				p.send(c.send)
				p.wantClose(c.code)
				// Byte by byte the result must be the same.
				p = connect(t, addr)
				for i := range c.send {
					p.send(c.send[i : i+1])
				}
				p.wantClose(c.code)
			})
		}
	})
}

// A Close frame is answered with its own code, and bytes after it are ignored.
func TestCloseCodes(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		addr := serve(t, backendtest.Group(t, v, 1), echoServer())
		for _, code := range []ws.StatusCode{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
			p := connect(t, addr)
			p.send(closeFrame(int(code), "κόσμε"))
			p.wantCloseFrame(code)
			p.wantEnd()
		}
		p := connect(t, addr)
		p.send(fr(frame.Close, true, ""))
		p.wantCloseFrame(ws.StatusNoStatus)
		p.wantEnd()

		p = connect(t, addr)
		p.send(append(closeFrame(1000, ""), text("after")...))
		h, _, err := p.read()
		require.NoError(t, err)
		require.Equal(t, frame.Close, h.Op, "what comes after a Close frame is not answered")
	})
}

// deflated returns a frame that the standard library's flate has compressed.
func deflated(op frame.Opcode, payload string) []byte {
	return rsv1(fr(op, true, deflatedPayload(payload)))
}

func deflatedPayload(payload string) string {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, 5)
	if err == nil {
		_, err = w.Write([]byte(payload))
	}
	if err = errors.Join(err, w.Flush()); err != nil {
		panic(err)
	}
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}

func rsv1(f []byte) []byte {
	f[0] |= 0x40
	return f
}

var bomb = sync.OnceValue(func() []byte { return deflated(frame.Binary, strings.Repeat("\x00", 20<<20)) })

const deflateOffer = "Sec-WebSocket-Extensions: permessage-deflate\r\n"

// Compression: bombs, reserved bits in the wrong place, text that is invalid once it is
// inflated: traps.md 8 and 9.
func TestDeflateErrors(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		srv := echoServer()
		srv.MaxMessage = 100_000
		srv.Compression = &ws.Compression{}
		addr := serve(t, backendtest.Group(t, v, 1), srv)
		open := func(t *testing.T) *peer {
			p := dialTCP(t, addr)
			p.send([]byte(strings.Replace(request, "\r\n\r\n", "\r\n"+deflateOffer+"\r\n", 1)))
			require.Contains(t, p.head(), "permessage-deflate")
			return p
		}
		long := deflated(frame.Text, strings.Repeat("noria ", 1000))
		for _, c := range []struct {
			name string
			send []byte
			code ws.StatusCode
		}{
			{"a bomb", bomb(), ws.StatusMessageTooBig},
			{"one byte too much", deflated(frame.Binary, strings.Repeat("\x00", 100_001)), ws.StatusMessageTooBig},
			{"corrupt", rsv1(fr(frame.Binary, true, "\xff\xff\xff\xff")), ws.StatusInvalidPayload},
			{"bad UTF-8", deflated(frame.Text, strings.Repeat("x", 1000)+"\xff"), ws.StatusInvalidPayload},
			{"RSV1 on a continuation", append(rsv1(fr(frame.Binary, false, "")), rsv1(fr(frame.Continuation, true, "x"))...), ws.StatusProtocolError},
			{"RSV1 on a ping", rsv1(fr(frame.Ping, true, "")), ws.StatusProtocolError},
			{"RSV2", append([]byte{}, 0xe1, 0x80, 0, 0, 0, 0), ws.StatusProtocolError},
		} {
			t.Run(c.name, func(t *testing.T) {
				p := open(t)
				p.send(c.send)
				p.wantClose(c.code)
			})
		}
		p := open(t)
		for range 3 {
			for i := range long { // byte for byte
				p.send(long[i : i+1])
			}
			h, payload, err := p.read()
			require.NoError(t, err)
			require.Equal(t, uint8(frame.Rsv1), h.Rsv)
			require.Less(t, len(payload), 1000)
		}
		// A message below the threshold is not compressed, and an empty one neither.
		p.send(deflated(frame.Text, "short"))
		p.want(frame.Text, "short")
		p.send(rsv1(fr(frame.Text, true, "\x00")))
		p.want(frame.Text, "")
	})
}

// serverPeer accepts one connection and answers the handshake with the given response.
func serverPeer(t *testing.T, answer func(key string) string) (addr string, accepted chan *peer) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	accepted = make(chan *peer, 1)
	go func() {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		p := newPeer(t, nc)
		key := ""
		for line := range strings.Lines(p.head()) {
			if k, ok := strings.CutPrefix(line, "Sec-WebSocket-Key: "); ok {
				key = strings.TrimSpace(k)
			}
		}
		p.send([]byte(answer(key)))
		accepted <- p
	}()
	return ln.Addr().String(), accepted
}

// The client's side: a masked frame of a server, and a frame that arrives in the same
// segment as the response.
func TestClientProtocol(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		for _, c := range []struct {
			name string
			send []byte
			code ws.StatusCode
		}{
			{"masked", text("x"), ws.StatusProtocolError},
			{"bad UTF-8", raw("\x81\x01\xff"), ws.StatusInvalidPayload},
			{"too big", raw("\x82\x7f\x40\x00\x00\x00\x00\x00\x00\x00"), ws.StatusMessageTooBig},
		} {
			addr, accepted := serverPeer(t, func(key string) string { return switching(key) + "\x81\x02at" + string(c.send) })
			require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) error {
				conn, err := ws.Dial(ctx, "ws://"+addr, ws.DialOptions{})
				if err != nil {
					return err
				}
				m, err := conn.Receive(ctx)
				if err != nil {
					return err
				}
				if string(m.Bytes()) != "at" {
					return fmt.Errorf("got %q", m.Bytes())
				}
				m.Release()
				_, err = conn.Receive(ctx)
				var broken *ws.ProtocolError
				if !errors.As(err, &broken) || broken.Code != c.code || ws.CloseStatus(err) != c.code {
					return fmt.Errorf("%s: %v", c.name, err)
				}
				if _, again := conn.Receive(ctx); again != err {
					return fmt.Errorf("the second time it is %v", again)
				}
				if err := conn.SendText(ctx, "x"); !errors.Is(err, net.ErrClosed) {
					return fmt.Errorf("sending: %v", err)
				}
				p := <-accepted
				go func() { // reads the answer and the end
					_, _ = io.Copy(io.Discard, p)
					p.Close()
				}()
				return conn.Close(ws.StatusNormalClosure, "")
			}))
		}
	})
}

func switching(key string) string {
	return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + acceptKey(key) + "\r\n\r\n"
}

// A server that is no WebSocket server, or answers with something else.
func TestDialErrors(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		dial := func(answer func(key string) string) error {
			addr, _ := serverPeer(t, answer)
			return backendtest.Run(t, g, func(ctx context.Context) error {
				c, err := ws.Dial(ctx, "ws://"+addr+"/x", ws.DialOptions{})
				if err == nil {
					err = errors.Join(errors.New("it was opened"), c.CloseNow())
				}
				return err
			})
		}
		err := dial(func(string) string { return "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope" })
		var status *ws.StatusError
		require.ErrorAs(t, err, &status)
		require.Equal(t, 404, status.Status)
		require.ErrorContains(t, err, "404")
		require.ErrorContains(t, dial(func(string) string { return switching("another key") }), "Sec-WebSocket-Accept")
		require.ErrorContains(t, dial(func(string) string { return "SSH-2.0-OpenSSH_9.2\r\n\r\n" }), "not HTTP")
		require.ErrorContains(t, dial(func(string) string { return strings.Repeat("x", 100_000) }), "too long")
		require.ErrorIs(t, backendtest.Run(t, g, func(ctx context.Context) error {
			_, err := ws.Dial(ctx, "ftp://localhost/", ws.DialOptions{})
			if err == nil || !strings.Contains(err.Error(), "scheme") {
				return fmt.Errorf("a bad scheme: %v", err)
			}
			_, err = ws.Dial(ctx, "ws://localhost/", ws.DialOptions{Options: ws.Options{Policy: 7}})
			if err == nil || !strings.Contains(err.Error(), "policy") {
				return fmt.Errorf("a bad policy: %v", err)
			}
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			_, err = ws.Dial(ctx, "ws://127.0.0.1:1/", ws.DialOptions{})
			return err
		}), context.Canceled)
	})
}
