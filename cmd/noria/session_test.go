package main_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/require"
)

// A running is a running noria.
type running struct {
	cmd    *exec.Cmd
	stdout *bufio.Reader
	stderr heard
}

// heard is the program's output so far.
type heard struct {
	mu   sync.Mutex
	text strings.Builder
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(p)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.String()
}

// begin runs noria with these arguments until the test ends.
func begin(t *testing.T, in io.Reader, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	r := &running{cmd: exec.CommandContext(ctx, program, args...)}
	r.cmd.Stdin, r.cmd.Stderr = in, &r.stderr
	stdout, err := r.cmd.StdoutPipe()
	require.NoError(t, err)
	r.stdout = bufio.NewReader(stdout)
	require.NoError(t, r.cmd.Start())
	t.Cleanup(func() { _ = r.cmd.Process.Kill() })
	return r
}

func (r *running) line(t *testing.T) string {
	t.Helper()
	line, err := r.stdout.ReadString('\n')
	require.NoError(t, err, "after %q", line)
	return line
}

// end waits for the program's end. It returns the rest of its output and its exit
// status.
func (r *running) end(t *testing.T) (rest string, status int) {
	t.Helper()
	b, err := io.ReadAll(r.stdout)
	require.NoError(t, err)
	_ = r.cmd.Wait() // ProcessState has the status
	return string(b), r.cmd.ProcessState.ExitCode()
}

// interrupt sends a SIGINT, and then does what end does.
func (r *running) interrupt(t *testing.T) (rest string, status int) {
	t.Helper()
	require.NoError(t, r.cmd.Process.Signal(os.Interrupt))
	return r.end(t)
}

// Closing and receiving do not disturb each other, whichever side closes first.
func TestConnectClosesInOrder(t *testing.T) {
	s := serve(t)
	url := "ws://" + s.ws
	for range 20 {
		out, errs, status := connect(t, "", "--wait", "0", url)
		require.Zero(t, status, errs)
		require.Empty(t, out)
		require.Contains(t, errs, "closed the connection with code 1000")

		out, errs, status = connect(t, strings.Repeat("a line\n", 50_000), "--count", "10", url)
		require.Zero(t, status, errs)
		require.Equal(t, strings.Repeat("a line\n", 10), out)
	}
}

// lines is an input without an end.
type lines struct{}

func (lines) Read(p []byte) (int, error) { return copy(p, "a line\n"), nil }

func TestConnectInterrupted(t *testing.T) {
	s := serve(t)
	for range 10 {
		r := begin(t, lines{}, "connect", "ws://"+s.ws)
		require.Equal(t, "a line\n", r.line(t))
		_, status := r.interrupt(t)
		require.Zero(t, status, r.stderr.String())
		require.Contains(t, r.stderr.String(), "closed the connection with code 1001")
	}
}

// A response that is not WebSocket is shown up to the end of its head, with its control
// characters escaped.
func TestConnectFramesOfAPage(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	r := begin(t, nil, "connect", "--frames", "ws://"+ln.Addr().String())
	c, err := ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	_, err = http.ReadRequest(bufio.NewReader(c))
	require.NoError(t, err)
	_, err = io.WriteString(c, "HTTP/1.1 404 Not Found\r\nX-Title: \u009b31mtitle\r\nContent-Length: 1013\r\n\r\n"+strings.Repeat("not here ", 113)[:1013])
	require.NoError(t, err)
	_, status := r.end(t)
	require.Equal(t, 1, status)
	require.Contains(t, r.stderr.String(), "< HTTP/1.1 404 Not Found\n< X-Title: \\u009b31mtitle\n< Content-Length: 1013\n")
	require.Equal(t, 3, strings.Count(r.stderr.String(), "< "), r.stderr.String())
}

// A silent server cannot keep --frames from ending.
func TestConnectFramesInterrupted(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	r := begin(t, nil, "connect", "--frames", "--timeout", "1h", "ws://"+ln.Addr().String())
	c, err := ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	_, err = http.ReadRequest(bufio.NewReader(c))
	require.NoError(t, err)
	_, status := r.interrupt(t)
	require.Equal(t, 1, status, r.stderr.String())
	require.Contains(t, r.stderr.String(), "canceled")
}

func TestConnectInputIsNotUTF8(t *testing.T) {
	s := serve(t)
	out, errs, status := connect(t, "one\ntwo\ncaf\xe9\nmore\n", "ws://"+s.ws)
	require.Equal(t, 1, status)
	require.Equal(t, "one\ntwo\n", out)
	require.Contains(t, errs, "code 1000")
	require.Contains(t, errs, "line 3 of the input is not UTF-8: --binary")
}

func readFrame(c net.Conn) (h ws.Header, payload []byte, err error) {
	if h, err = ws.ReadHeader(c); err != nil {
		return h, nil, err
	}
	payload = make([]byte, h.Length)
	_, err = io.ReadFull(c, payload)
	ws.Cipher(payload, h.Mask, 0)
	return h, payload, err
}

// pinged serves a client that pings and closes. answer answers the ping of this number;
// pinged answers the Close frame.
func pinged(t *testing.T, answer func(c net.Conn, number int, payload []byte) error) (url string) {
	t.Helper()
	return webSocketServer(t, ws.HTTPUpgrader{}, func(_ *http.Request, c net.Conn) error {
		for number := 1; ; number++ {
			h, payload, err := readFrame(c)
			if err != nil {
				return err
			}
			if h.OpCode == ws.OpClose {
				return ws.WriteFrame(c, ws.NewCloseFrame(payload))
			}
			if err := answer(c, number, payload); err != nil {
				return err
			}
		}
	})
}

// A signal ends --ping in the same way before the next ping and before its pong.
func TestConnectPingInterrupted(t *testing.T) {
	asked := make(chan struct{}, 1) // the second ping has arrived
	url := pinged(t, func(c net.Conn, number int, payload []byte) error {
		if number > 1 {
			asked <- struct{}{}
			return nil
		}
		return ws.WriteFrame(c, ws.NewPongFrame(payload))
	})
	for _, every := range []string{"1h", "1ms"} {
		r := begin(t, nil, "connect", "--ping", "3", "--every", every, url)
		require.Contains(t, r.line(t), "pong 1: ")
		if every == "1ms" {
			<-asked
		}
		rest, status := r.interrupt(t)
		require.Zero(t, status, r.stderr.String())
		require.Contains(t, rest, "1 pings: least ")
		require.Contains(t, r.stderr.String(), "code 1001")
	}
}

// A ping that is not answered in time is an error. So is a ping during which the server
// closes the connection, even in order.
func TestConnectPingFails(t *testing.T) {
	closes := pinged(t, func(c net.Conn, _ int, _ []byte) error {
		return ws.WriteFrame(c, ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, "")))
	})
	silent := pinged(t, func(net.Conn, int, []byte) error { return nil })
	for url, says := range map[string]string{closes: "ping 1: the connection has ended", silent: "ping 1: no pong within 1s"} {
		_, errs, status := connect(t, "", "--ping", "2", "--timeout", "1s", url)
		require.Equal(t, 1, status)
		require.Contains(t, errs, says)
		require.Contains(t, errs, "code 1000")
	}
}

// Only the server gets to see the password.
func TestConnectKeepsThePassword(t *testing.T) {
	s := serve(t)
	for _, args := range [][]string{
		{"ws://user:secret@" + s.ws + "/"},
		{"--frames", "--origin", "http://elsewhere", "ws://user:secret@" + s.ws + "/"},
		{"--frames", "-H", "Proxy-Authorization: secret", "ws://user:secret@" + s.ws + "/"},
		{"--frames", "ws://user:secret@127.0.0.1:1/"},
		{"ws://user:secret@127.0.0.1:1/"},
		{"--autobahn", "ws://user:secret@127.0.0.1:1/"},
	} {
		_, errs, _ := connect(t, "", append(args, "--wait", "0")...)
		require.Contains(t, errs, "ws://user:xxxxx@", "%v", args)
		require.NotContains(t, errs, "secret", "%v", args)
		require.NotContains(t, errs, base64.StdEncoding.EncodeToString([]byte("user:secret")), "%v", args)
	}
	_, errs, status := connect(t, "", "--frames", "--wait", "0", "ws://user:secret@"+s.ws)
	require.Zero(t, status, errs)
	require.Contains(t, errs, "> Authorization: xxxxx\n")
	_, errs, status = connect(t, "", "ws://user:secret@%/")
	require.Equal(t, 1, status)
	require.NotContains(t, errs, "secret")
}

// The reader of the output may be slow: while received messages wait to be printed,
// --wait does not run out.
func TestConnectSlowOutput(t *testing.T) {
	const wait, messages, text = "1s", 3000, "more of these than a pipe holds, and a batch of messages"
	url := webSocketServer(t, ws.HTTPUpgrader{}, func(_ *http.Request, c net.Conn) error {
		for range messages {
			if err := wsutil.WriteServerText(c, []byte(text)); err != nil {
				return err
			}
		}
		return answerClose(c)
	})
	r := begin(t, nil, "connect", "--wait", wait, url)
	require.Equal(t, text+"\n", r.line(t))
	// Meanwhile a second client, with nothing to print, has waited as long.
	silent := webSocketServer(t, ws.HTTPUpgrader{}, func(_ *http.Request, c net.Conn) error { return answerClose(c) })
	_, errs, status := connect(t, "", "--wait", wait, silent)
	require.Zero(t, status, errs)
	rest, status := r.end(t)
	require.Zero(t, status, r.stderr.String())
	require.Equal(t, messages-1, strings.Count(rest, text+"\n"))
}

// answerClose reads a Close frame and answers it.
func answerClose(c net.Conn) error {
	_, payload, err := readFrame(c)
	if err != nil {
		return err
	}
	return ws.WriteFrame(c, ws.NewCloseFrame(payload))
}
