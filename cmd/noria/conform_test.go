package main_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/conformance/websocket"
	"github.com/noria-go/noria/conformance/websocket/broken"
)

// conform runs noria conform and returns its exit status and output.
func conform(t *testing.T, args ...string) (int, string) {
	t.Helper()
	out, err := exec.Command(program, append([]string{"conform"}, args...)...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	if exit != nil {
		return exit.ExitCode(), string(out)
	}
	return 0, string(out)
}

// serveBroken serves an echo with a fault, or without one if there is none of
// this name.
func serveBroken(t *testing.T, name string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var fault *broken.Fault
	for _, f := range broken.All() {
		if f.Name == name {
			fault = &f
		}
	}
	require.Equal(t, name == "", fault == nil)
	s := broken.Serve(ln, fault)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s.URL()
}

func TestConformServer(t *testing.T) {
	dir := t.TempDir()
	status, out := conform(t, serveBroken(t, ""), "--cases", "1.*,7.*,trap03*", "--strict", "--json", filepath.Join(dir, "all.json"), "--report", dir, "-v")
	require.Zero(t, status, out)
	require.Contains(t, out, "16 of 16")
	require.Contains(t, out, "trap03.together")

	b, err := os.ReadFile(filepath.Join(dir, "all.json"))
	require.NoError(t, err)
	var report websocket.Report
	require.NoError(t, json.Unmarshal(stripEvents(b), &report))
	require.Len(t, report.Results, 16+37+3)
	require.Equal(t, "broken", report.Agent)

	b, err = os.ReadFile(filepath.Join(dir, "index.json"))
	require.NoError(t, err)
	var index map[string]map[string]struct{ Behavior, BehaviorClose, Reportfile string }
	require.NoError(t, json.Unmarshal(b, &index))
	require.Equal(t, "OK", index["broken"]["1.1.1"].Behavior)
	require.FileExists(t, filepath.Join(dir, index["broken"]["1.1.1"].Reportfile))
}

// stripEvents takes out what is written for people and cannot be read back.
func stripEvents(b []byte) []byte {
	return regexp.MustCompile(`(?s)"received": (null|\[.*?\]),\n`).ReplaceAll(b, nil)
}

func TestConformFindsFaults(t *testing.T) {
	status, out := conform(t, "--cases", "2.*", "--patience", "1s", serveBroken(t, "does not answer pings"))
	require.Equal(t, 1, status, out)
	require.Contains(t, out, "2.1  FAILED")

	status, out = conform(t, "--cases", "6.4.*", "--patience", "1s", serveBroken(t, "checks UTF-8 only when the message is complete"))
	require.Zero(t, status, out)
	require.Contains(t, out, "NON-STRICT")
	status, out = conform(t, "--cases", "6.4.*", "--patience", "1s", "--strict", serveBroken(t, "checks UTF-8 only when the message is complete"))
	require.Equal(t, 1, status, out)
}

func TestConformClient(t *testing.T) {
	cmd := exec.Command(program, "conform", "--listen", "127.0.0.1:0", "--once", "--strict", "--cases", "1.*,2.*,7.*", "--autobahn")
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewScanner(stdout)
	require.True(t, lines.Scan())
	m := regexp.MustCompile(`^64 cases at (ws://[^/]+)/`).FindStringSubmatch(lines.Text())
	require.NotNil(t, m, lines.Text())

	agent, err := exec.Command(program, "connect", "--autobahn", m[1]).CombinedOutput()
	require.NoError(t, err, string(agent))
	var rest string
	for lines.Scan() {
		rest += lines.Text() + "\n"
	}
	require.NoError(t, cmd.Wait(), rest)
	require.Contains(t, rest, "client under test")
	require.Contains(t, rest, "16 of 16")
}

func TestConformArguments(t *testing.T) {
	for _, args := range [][]string{{}, {"ws://127.0.0.1:1/", "--listen", "127.0.0.1:0"}, {"--frobnicate"}, {"ws://127.0.0.1:1/", "ws://127.0.0.1:2/"}} {
		status, out := conform(t, args...)
		require.Equal(t, 2, status, "%v: %s", args, out)
	}
	for url, says := range map[string]string{"http://127.0.0.1/": "is not ws://HOST/", "ws://127.0.0.1:1/": "refused"} {
		status, out := conform(t, url)
		require.Equal(t, 1, status)
		require.Contains(t, out, says)
	}
	status, out := conform(t, "ws://127.0.0.1:1/", "--cases", "[")
	require.Equal(t, 1, status)
	require.Contains(t, out, "pattern")
	// Nobody listens at these: it is found out before.
	for _, args := range [][]string{
		{"ws://127.0.0.1:1/", "--cases", "nope*"},
		{"ws://127.0.0.1:1/", "--cases", "trap*", "--autobahn"},
		{"ws://127.0.0.1:1/", "--exclude", "*"},
		{"--listen", "127.0.0.1:0", "--cases", "nope*"},
	} {
		status, out := conform(t, args...)
		require.Equal(t, 1, status, "%v: %s", args, out)
		require.Contains(t, out, "select no case", "%v", args)
	}
}
