package main_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"sync"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backends"
)

// requireEcho sends small and large messages over several connections at once, ends
// each with a half-close, and requires the same bytes back and then the end.
func requireEcho(t *testing.T, address string) {
	t.Helper()
	var wg sync.WaitGroup
	for seed := range uint64(8) {
		wg.Go(func() {
			sent := make([]byte, 1+int(seed)*100_000)
			_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(sent)
			got, err := roundTrip(address, sent)
			if err != nil || !bytes.Equal(sent, got) {
				t.Errorf("echo of %d bytes: %d came back, equal: %v, error: %v", len(sent), len(got), bytes.Equal(sent, got), err)
			}
		})
	}
	wg.Wait()
}

func roundTrip(address string, sent []byte) ([]byte, error) {
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	written := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		if err == nil {
			err = c.(*net.TCPConn).CloseWrite()
		}
		written <- err
	}()
	got, err := io.ReadAll(c)
	if werr := <-written; err == nil {
		err = werr
	}
	return got, err
}

func requireWebSocketEcho(t *testing.T, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, buffered, _, err := ws.Dial(ctx, "ws://"+address+"/")
	require.NoError(t, err)
	require.Nil(t, buffered)
	defer c.Close()
	for _, size := range []int{0, 5, 125, 126, 65535, 65536, 300_000} {
		sent := bytes.Repeat([]byte("noria "), size/6+1)[:size]
		require.NoError(t, wsutil.WriteClientText(c, sent))
		got, op, err := wsutil.ReadServerData(c)
		require.NoError(t, err)
		require.Equal(t, ws.OpText, op)
		require.True(t, bytes.Equal(sent, got), "%d bytes", size)
	}
	require.NoError(t, wsutil.WriteClientMessage(c, ws.OpClose, ws.NewCloseFrameBody(ws.StatusNormalClosure, "bye")))
	_, _, err = wsutil.ReadServerData(c)
	var closed wsutil.ClosedError
	require.ErrorAs(t, err, &closed)
	require.Equal(t, ws.StatusNormalClosure, closed.Code)
}

// each runs f for every backend of this build.
func each(t *testing.T, f func(t *testing.T, backend string)) {
	for _, backend := range backends.Names() {
		t.Run(backend, func(t *testing.T) { f(t, backend) })
	}
}

func TestServeEchoes(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		for name, extra := range map[string][]string{
			"one loop":   {"--loops", "1"},
			"two loops":  {"--loops", "2", "--pin"},
			"goroutines": {"--goroutine"},
		} {
			t.Run(name, func(t *testing.T) {
				s := serve(t, append(extra, "--backend", backend)...)
				requireEcho(t, s.tcp)
				requireWebSocketEcho(t, s.ws)
				require.Contains(t, s.line("backend "), "backend "+backend+",")
				require.Contains(t, s.line("backend "), "asked for by Options.Backend")
				s.signal(t)
				require.Zero(t, s.wait(t), s.stderr.String())
			})
		}
	})
}

func TestServeSaysWhyWithoutAChoice(t *testing.T) {
	s := serve(t)
	require.Contains(t, s.line("backend "), "using "+backends.Names()[0])
	s.signal(t)
	require.Zero(t, s.wait(t))
}

func TestServeTheEnvironmentGoesBeforeTheFlag(t *testing.T) {
	names := backends.Names()
	last := names[len(names)-1]
	cmd := exec.Command(program, serveArgs("--backend", names[0])...)
	cmd.Env = append(cmd.Environ(), backends.Variable+"="+last)
	s := start(t, cmd)
	require.Contains(t, s.line("backend "), "backend "+last+",")
	require.Contains(t, s.line("backend "), backends.Variable)
}

// ping requires an echo on c.
func ping(t *testing.T, c net.Conn) {
	t.Helper()
	_, err := c.Write([]byte("ping"))
	require.NoError(t, err)
	_, err = io.ReadFull(c, make([]byte, 4))
	require.NoError(t, err)
}

// requireStopping waits until the server refuses new connections.
func requireStopping(t *testing.T, address string) {
	t.Helper()
	require.Eventually(t, func() bool {
		c, err := net.DialTimeout("tcp", address, patience)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	}, patience, patience/1000, "new connections are still accepted")
}

// After the signal an open connection still works and a new one is refused. The program
// ends when the last connection has ended.
func TestServeDrains(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		s := serve(t, "--backend", backend, "--loops", "2", "--drain", "1h")
		c := dial(t, s.tcp)
		ping(t, c)
		s.signal(t)
		requireStopping(t, s.tcp)
		ping(t, c)
		require.NoError(t, c.Close())
		require.Zero(t, s.wait(t), s.stderr.String())
	})
}

func TestServeEndsTheDrainByForce(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		s := serve(t, "--backend", backend, "--drain", "50ms")
		c := dial(t, s.tcp)
		ping(t, c)
		s.signal(t)
		_, err := c.Read(make([]byte, 1))
		require.Error(t, err, "the server closes it")
		require.Zero(t, s.wait(t), s.stderr.String())
	})
}

func TestServeASecondSignalEndsItAtOnce(t *testing.T) {
	s := serve(t, "--drain", "1h")
	ping(t, dial(t, s.tcp))
	s.signal(t)
	requireStopping(t, s.tcp) // a second signal that arrives while the first is pending is lost: signal(7)
	s.signal(t)
	require.Equal(t, 1, s.wait(t))
}

// With reuse-port listeners the system would let a second program listen at the address
// and would give it half of the connections.
func TestServeRefusesAnAddressInUse(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		for _, loops := range []string{"1", "2"} {
			for _, second := range []string{"1", "2"} {
				t.Run(loops+" then "+second, func(t *testing.T) {
					s := serve(t, "--backend", backend, "--loops", loops)
					for _, args := range [][]string{{"--tcp", s.tcp}, {"--tcp", "127.0.0.1:0", "--ws", s.ws}} {
						out, err := exec.Command(program, append([]string{"serve", "--backend", backend, "--loops", second}, args...)...).CombinedOutput()
						var exit *exec.ExitError
						require.ErrorAs(t, err, &exit)
						require.Equal(t, 1, exit.ExitCode(), "%s", out)
						require.Contains(t, string(out), "in use")
						require.Contains(t, string(out), args[len(args)-1])
					}
					requireEcho(t, s.tcp)
				})
			}
		}
	})
}

func TestServeBadFlags(t *testing.T) {
	for _, tt := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"serve", "--tcp", "nowhere"}, 1, "host:port"},
		{[]string{"serve", "--tcp", "example.com:80"}, 1, "must be an IP address"},
		{[]string{"serve", "--backend", "kqueue"}, 1, "kqueue"},
		{[]string{"serve", "--loops", "-1"}, 1, "-1 loops"},
		{[]string{"serve", "--loops", "100000"}, 1, "100000 loops, want 1 to 1024"},
		{[]string{"serve", "--lops", "1"}, 2, "lops"},
		{[]string{"serve", "--max-message", "0"}, 1, "--max-message 0"},
		{[]string{"serve", "--tls-cert", "x"}, 1, "go together"},
		{[]string{"serve", "--tls-cert", "/nowhere", "--tls-key", "/nowhere"}, 1, "/nowhere"},
		{[]string{"serve", "--tcp", "127.0.0.1:0", "--tls-cert", "x", "--tls-key", "y"}, 1, "give --ws too"},
		{[]string{"serve", "7000"}, 2, `unexpected "7000"`},
		{[]string{"swerve"}, 2, `no command "swerve"`},
		{nil, 2, "Usage"},
		{[]string{"help"}, 0, "Usage"},
		{[]string{"serve", "--help"}, 0, "SIGTERM"},
	} {
		out, err := exec.Command(program, tt.args...).CombinedOutput()
		status := 0
		if err != nil {
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit)
			status = exit.ExitCode()
		}
		require.Equal(t, tt.status, status, "%v: %s", tt.args, out)
		require.Contains(t, string(out), tt.says, "%v", tt.args)
	}
}

func TestServeThePage(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		s := serve(t, "--backend", backend)
		require.Equal(t, "page http://"+s.ws+"/", s.line("page "))
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
		for _, tt := range []struct {
			method, path string
			status       int
			says         string
		}{
			{"GET", "/", 200, "<title>Noria echo</title>"},
			{"GET", "/?x=1", 200, "new WebSocket("},
			{"HEAD", "/", 200, ""},
			{"GET", "/elsewhere", 404, "there is a page on /"},
			{"DELETE", "/", 405, "GET / is a page"},
		} {
			req, err := http.NewRequest(tt.method, "http://"+s.ws+tt.path, nil)
			require.NoError(t, err)
			r, err := client.Do(req)
			require.NoError(t, err)
			body, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			require.NoError(t, r.Body.Close())
			require.Equal(t, tt.status, r.StatusCode, "%s %s", tt.method, tt.path)
			require.Contains(t, string(body), tt.says)
			if tt.status == 200 {
				require.Equal(t, "text/html; charset=utf-8", r.Header.Get("Content-Type"))
			}
		}
		requireWebSocketEcho(t, s.ws)
	})
}

func TestServeWebSocketFlags(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		s := serve(t, "--backend", backend, "--max-message", "300000")
		requireWebSocketEcho(t, s.ws)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		c, _, _, err := ws.Dial(ctx, "ws://"+s.ws+"/")
		require.NoError(t, err)
		defer c.Close()
		require.NoError(t, ws.WriteHeader(c, ws.Header{Fin: true, OpCode: ws.OpBinary, Masked: true, Length: 300_001}))
		_, _, err = wsutil.ReadServerData(c)
		var closed wsutil.ClosedError
		require.ErrorAs(t, err, &closed)
		require.Equal(t, ws.StatusMessageTooBig, closed.Code)
	})
}
