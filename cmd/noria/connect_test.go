package main_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/require"
)

// connect runs noria connect with this input.
func connect(t *testing.T, in string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{"connect"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	require.NoError(t, ctx.Err(), "%v does not end: %s", args, errs.String())
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func TestConnectLines(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		s := serve(t, "--backend", backend, "--compress")
		for _, compress := range []string{"--compress=false", "--compress"} {
			long := strings.Repeat("a long line ", 10_000)
			out, errs, status := connect(t, "hello\r\nwörld\n\n"+long+"\nlast", "--backend", backend, compress, "--wait", "1h", "--count", "5", "ws://"+s.ws+"/any/path")
			require.Zero(t, status, errs)
			require.Equal(t, "hello\nwörld\n\n"+long+"\nlast\n", out)
			require.Contains(t, errs, "connected to ws://"+s.ws+"/any/path")
			require.Equal(t, compress == "--compress", strings.Contains(errs, "compressed (permessage-deflate)"), errs)
			require.Contains(t, errs, "1000")
		}
	})
}

func TestConnectBinary(t *testing.T) {
	s := serve(t)
	in := make([]byte, 300_000)
	_, _ = rand.Read(in)
	out, errs, status := connect(t, string(in), "--binary", "--wait", "2s", "ws://"+s.ws)
	require.Zero(t, status, errs)
	require.True(t, string(in) == out, "%d bytes came back as %d", len(in), len(out))
}

func TestConnectOneMessageAndFrames(t *testing.T) {
	s := serve(t)
	out, errs, status := connect(t, "", "--message", "one", "--frames", "-H", "X-Token: abc", "ws://"+s.ws+"/a?b=c")
	require.Zero(t, status, errs)
	require.Equal(t, "one\n", out)
	for _, want := range []string{"> GET /a?b=c HTTP/1.1\n", "> Host: " + s.ws + "\n", "> X-Token: abc\n", "< HTTP/1.1 101 ",
		"> text FIN, 3 bytes, mask ", "< text FIN, 3 bytes, header 8103\n<   00000000  6f 6e 65 ", "|one|", "> close FIN, 2 bytes, mask ", "< close FIN, 2 bytes, code 1000"} {
		require.Contains(t, errs, want)
	}
	out, errs, status = connect(t, "", "--timeout", "0", "--message", "", "ws://"+s.ws)
	require.Zero(t, status, errs)
	require.Equal(t, "\n", out, "an empty message is one too")
	out, _, status = connect(t, "", "--binary", "--message", "\x01", "ws://"+s.ws)
	require.Zero(t, status)
	require.Equal(t, "\x01", out)
}

func TestConnectPing(t *testing.T) {
	s := serve(t)
	out, errs, status := connect(t, "", "--timeout", "0", "ws://"+s.ws, "--ping", "3", "--every", "1ms")
	require.Zero(t, status, errs)
	require.Equal(t, 3, strings.Count(out, "pong "), out)
	require.Contains(t, out, "3 pings: least ")
}

// webSocketServer returns the URL of a server that upgrades requests as up says and
// runs f with each connection.
func webSocketServer(t *testing.T, up ws.HTTPUpgrader, f func(r *http.Request, c net.Conn) error) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, _, err := up.Upgrade(r, w)
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		if err := f(r, c); err != nil {
			t.Errorf("%s: %v", r.URL, err)
		}
	}))
	t.Cleanup(s.Close)
	return "ws://" + strings.TrimPrefix(s.URL, "http://")
}

// wantClose reads a Close frame.
func wantClose(c net.Conn) error {
	h, err := ws.ReadHeader(c)
	if err == nil && h.OpCode != ws.OpClose {
		err = fmt.Errorf("got %+v, want a close", h)
	}
	return err
}

func TestConnectSaysWhatItIsTold(t *testing.T) {
	up := ws.HTTPUpgrader{Protocol: func(p string) bool { return p == "mqtt" }}
	url := webSocketServer(t, up, func(r *http.Request, c net.Conn) error {
		body := ws.NewCloseFrameBody(4321, r.Header.Get("X-A")+" "+r.Header.Get("Origin")+" "+r.Host)
		if err := wsutil.WriteServerMessage(c, ws.OpBinary, []byte("bin")); err != nil {
			return err
		}
		if err := wsutil.WriteServerMessage(c, ws.OpClose, body); err != nil {
			return err
		}
		return wantClose(c)
	})
	out, errs, status := connect(t, "", "-H", "X-A: 1", "-H", "X-B: 2", "--origin", "http://here", "--host", "there", "--subprotocol", "chat", "--subprotocol", "mqtt", url)
	require.Equal(t, 1, status)
	require.Contains(t, errs, "subprotocol mqtt")
	require.Equal(t, 1, strings.Count(errs, "code 4321"), "once: %s", errs)
	require.Contains(t, errs, "1 http://here there")
	require.Contains(t, out, "binary, 3 bytes\n00000000  62 69 6e ")
}

func TestConnectFails(t *testing.T) {
	s := serve(t)
	notWS := httptest.NewServer(http.NotFoundHandler())
	defer notWS.Close()
	for _, tt := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"ws://127.0.0.1:1/"}, 1, "refused"},
		{[]string{"tcp://" + s.ws}, 1, "scheme"},
		{[]string{"ws://" + s.ws + "/#a"}, 1, "%23"},
		{[]string{"--frames", "ws:///"}, 1, "no host"},
		{[]string{"--frames", "--message", "hi", "ftp://" + s.ws}, 1, `scheme is "ftp"`},
		{[]string{"--frames", "ws://127.0.0.1:1/"}, 1, "dial ws://127.0.0.1:1/: dial tcp 127.0.0.1:1: connect: connection refused\n"},
		{[]string{strings.Replace(notWS.URL, "http", "ws", 1)}, 1, "404"},
		{[]string{"--origin", "http://elsewhere", "ws://" + s.ws}, 1, "403"},
		{[]string{"--frames", "--origin", "http://elsewhere", "ws://" + s.ws}, 1, "dial ws://" + s.ws + ": the server answered 403"},
		{[]string{"-H", "nothing", "ws://" + s.ws}, 2, "Name: value"},
		{[]string{"-H", "Upgrade: x", "ws://" + s.ws}, 1, "cannot be set"},
		{[]string{"--max-message", "0", "ws://" + s.ws}, 1, "--max-message 0"},
		{[]string{"--ca", "/nowhere", "ws://" + s.ws}, 1, "/nowhere"},
		{[]string{"--ca", "\x1b[31m", "ws://" + s.ws}, 1, `\x1b[31m`}, // no error commands a terminal
		{[]string{"--ca", "connect_test.go", "ws://" + s.ws}, 1, "no certificate"},
		{[]string{"--timeout", "-1s", "ws://" + s.ws}, 2, "--timeout -1s"},
		{[]string{"--ping", "-3", "ws://" + s.ws}, 2, "--ping -3"},
		{[]string{"--count", "-1", "ws://" + s.ws}, 2, "--count -1"},
		{[]string{"--ping", "1", "--message", "hi", "ws://" + s.ws}, 2, "--message and --ping do not go together"},
		{[]string{"--autobahn", "--ping", "1", "ws://" + s.ws}, 2, "--autobahn does not go with"},
		{[]string{"--message", "caf\xe9", "ws://" + s.ws}, 2, "--binary"},
		{[]string{}, 2, "want a URL"},
		{[]string{"a", "b"}, 2, `unexpected "b"`},
		{[]string{"--help"}, 0, "Autobahn"},
	} {
		_, errs, status := connect(t, "", tt.args...)
		require.Equal(t, tt.status, status, "%v: %s", tt.args, errs)
		require.Contains(t, errs, tt.says, "%v", tt.args)
	}
}

// certificate makes one for 127.0.0.1 and returns its files.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"noria.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	return cert, key
}

func TestTLS(t *testing.T) {
	cert, key := certificate(t)
	each(t, func(t *testing.T, backend string) {
		s := serve(t, "--backend", backend, "--tls-cert", cert, "--tls-key", key)
		url := "wss://" + s.ws + "/"
		for _, args := range [][]string{{"--ca", cert}, {"--insecure"}, {"--ca", cert, "--host", "noria.test:99"}, {"--ca", cert, "--frames"}} {
			out, errs, status := connect(t, "secret\n", append(args, "--count", "1", "--backend", backend, url)...)
			require.Zero(t, status, errs)
			require.Equal(t, "secret\n", out, "%v", args)
		}
		_, errs, status := connect(t, "secret\n", "--backend", backend, url)
		require.Equal(t, 1, status, errs)
		require.Contains(t, errs, "certificate")
		require.Equal(t, "page https://"+s.ws+"/", s.line("page "))
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
		r, err := client.Get("https://" + s.ws + "/")
		require.NoError(t, err)
		body, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		require.NoError(t, r.Body.Close())
		require.Contains(t, string(body), "<title>Noria echo</title>")
		s.signal(t)
		require.Zero(t, s.wait(t), s.stderr.String())
	})
}

// A fuzzing server of three cases: the agent must run all of them and then ask for the
// report.
func TestConnectAutobahn(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	url := webSocketServer(t, ws.HTTPUpgrader{}, func(r *http.Request, c net.Conn) error {
		mu.Lock()
		seen = append(seen, r.URL.Path+" "+r.URL.Query().Get("case")+" "+r.URL.Query().Get("agent"))
		mu.Unlock()
		switch {
		case r.URL.Path == "/getCaseCount":
			if err := wsutil.WriteServerText(c, []byte("3")); err != nil {
				return err
			}
		case r.URL.Query().Get("case") == "2": // a case in which the server breaks the protocol
			if err := ws.WriteFrame(c, ws.NewFrame(ws.OpCode(3), true, nil)); err != nil {
				return err
			}
			return wantClose(c)
		case r.URL.Path == "/runCase":
			sent := bytes.Repeat([]byte("x"), 70_000)
			if err := wsutil.WriteServerBinary(c, sent); err != nil {
				return err
			}
			got, op, err := wsutil.ReadClientData(c)
			if err != nil || op != ws.OpBinary || !bytes.Equal(got, sent) {
				return fmt.Errorf("echo: %v, %d bytes, %w", op, len(got), err)
			}
		}
		if err := wsutil.WriteServerMessage(c, ws.OpClose, ws.NewCloseFrameBody(1000, "")); err != nil {
			return err
		}
		return wantClose(c) // the agent's answer; then the server ends the connection
	})
	out, errs, status := connect(t, "", "--autobahn", "--agent", "a b", url+"/")
	require.Zero(t, status, errs)
	require.Equal(t, "3 cases\n3 of 3\n", out)
	mu.Lock()
	got := seen
	mu.Unlock()
	require.Equal(t, []string{"/getCaseCount  ", "/runCase 1 a b", "/runCase 2 a b", "/runCase 3 a b", "/updateReports  a b"}, got)
	silent := webSocketServer(t, ws.HTTPUpgrader{}, func(_ *http.Request, c net.Conn) error {
		if err := wsutil.WriteServerText(c, []byte("many")); err != nil {
			return err
		}
		return wantClose(c)
	})
	_, errs, status = connect(t, "", "--autobahn", silent)
	require.Equal(t, 1, status)
	require.Contains(t, errs, "is it a fuzzing server?")
	_, errs, status = connect(t, "", "--autobahn", "ws://127.0.0.1:1")
	require.Equal(t, 1, status)
	require.Contains(t, errs, "asking for the number of cases")
}

// Noria's own suite judges Noria's client, with the cases about wrong handshakes.
func TestConnectAutobahnAgainstConform(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		fuzzer, url := listen(t, "--once", "--cases", "1.*,2.*,3.*,5.*,7.*,9.1.1,12.1.1,trap*", "--messages", "50")
		_, errs, status := connect(t, "", "--autobahn", "--compress", "--backend", backend, url)
		require.Zero(t, status, errs)
		report, status := fuzzer.end(t)
		require.Zero(t, status, report)
	})
}
