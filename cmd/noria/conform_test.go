package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/conformance/websocket"
	"github.com/noria-go/noria/internal/brokenws"
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

// serveBroken serves an echo with the fault of this name; without a fault if the name
// is unknown.
func serveBroken(t *testing.T, name string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var fault *brokenws.Fault
	for _, f := range brokenws.All() {
		if f.Name == name {
			fault = &f
		}
	}
	require.Equal(t, name == "", fault == nil)
	s := brokenws.Serve(ln, fault)
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
	require.NoError(t, json.Unmarshal(b, &report))
	require.Len(t, report.Results, 16+37+5)
	require.Equal(t, "broken", report.Agent)

	b, err = os.ReadFile(filepath.Join(dir, "index.json"))
	require.NoError(t, err)
	var index map[string]map[string]struct{ Behavior, BehaviorClose, Reportfile string }
	require.NoError(t, json.Unmarshal(b, &index))
	require.Equal(t, "OK", index["broken"]["1.1.1"].Behavior)
	require.FileExists(t, filepath.Join(dir, index["broken"]["1.1.1"].Reportfile))
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

// listen starts noria conform --listen, and also returns its URL.
func listen(t *testing.T, args ...string) (*running, string) {
	t.Helper()
	r := begin(t, nil, append([]string{"conform", "--listen", "127.0.0.1:0"}, args...)...)
	var url string
	require.Eventually(t, func() bool {
		m := regexp.MustCompile(`^[0-9]+ cases at (ws://[^/]+)/`).FindStringSubmatch(r.stderr.String())
		if m != nil {
			url = m[1]
		}
		return m != nil
	}, patience, patience/1000)
	return r, url
}

// runAgent runs all cases as this agent, and asks for the report.
func runAgent(t *testing.T, url, name string) {
	t.Helper()
	_, errs, status := connect(t, "", "--autobahn", "--agent", name, url)
	require.Zero(t, status, errs)
}

func TestConformClient(t *testing.T) {
	r, url := listen(t, "--once", "--strict", "--cases", "1.*,2.*,7.*", "--autobahn")
	require.Contains(t, r.stderr.String(), "64 cases")
	runAgent(t, url, "noria")
	report, status := r.end(t)
	require.Zero(t, status, report)
	require.Contains(t, report, "client under test")
	require.Contains(t, report, "16 of 16")
}

// The files hold the reports of several clients, whatever names they give themselves.
func TestConformClients(t *testing.T) {
	dir := t.TempDir()
	agents := []string{"", "a/../b", "noria"}
	r, url := listen(t, "--cases", "1.1.1", "--report", filepath.Join(dir, "report"), "--json", filepath.Join(dir, "all.json"))
	for _, name := range append(agents, "noria") { // the last runs twice
		runAgent(t, url, name)
	}
	out, status := r.interrupt(t)
	require.Zero(t, status, r.stderr.String())
	require.LessOrEqual(t, strings.Count(out, "client under test"), len(agents)+1, "no run has two reports: %s", out)

	b, err := os.ReadFile(filepath.Join(dir, "report", "index.json"))
	require.NoError(t, err)
	var index map[string]map[string]struct{ Behavior, Reportfile string }
	require.NoError(t, json.Unmarshal(b, &index))
	require.Len(t, index, len(agents))
	b, err = os.ReadFile(filepath.Join(dir, "all.json"))
	require.NoError(t, err)
	reports := json.NewDecoder(bytes.NewReader(b))
	for _, name := range agents {
		require.Equal(t, "OK", index[name]["1.1.1"].Behavior, name)
		require.FileExists(t, filepath.Join(dir, "report", index[name]["1.1.1"].Reportfile))
		var p websocket.Report
		require.NoError(t, reports.Decode(&p))
		require.Equal(t, name, p.Agent)
	}
	require.False(t, reports.More())
}

// A SIGINT prints the results so far, although no client asked for its report. With
// --once the report counts the cases that did not run, too.
func TestConformClientInterrupted(t *testing.T) {
	r, _ := listen(t, "--cases", "1.1.1")
	_, status := r.interrupt(t)
	require.Equal(t, 1, status)
	require.Contains(t, r.stderr.String(), "no client has run a case")

	for _, tt := range []struct {
		once   string
		client []string // the client's side of case 1.1.1, which wants an empty message back
		in     string
		want   string
		cases  int
		status int
	}{
		{"--once=false", []string{"--ping", "1"}, "", "FAILED", 1, 1},
		{"--once=false", []string{"--wait", "1h"}, "\n", "OK", 1, 0}, // the suite closes the connection
		{"--once", []string{"--wait", "1h"}, "\n", "OK", 3, 1},
	} {
		r, url := listen(t, "--cases", "1.1.[123]", "--patience", "1s", "--json", "-", tt.once)
		_, _, _ = connect(t, tt.in, append(tt.client, url+"/runCase?case=1&agent=a")...)
		for judged := ""; !strings.Contains(judged, tt.want); { // the case is judged some time after the client has closed
			judged, _, _ = connect(t, "", "--wait", "1h", "--count", "1", url+"/getCaseStatus?case=1&agent=a")
		}
		report, status := r.interrupt(t)
		require.Equal(t, tt.status, status, report)
		var p websocket.Report
		require.NoError(t, json.Unmarshal([]byte(report), &p), "nothing but JSON")
		require.Len(t, p.Results, tt.cases)
		require.Equal(t, websocket.Behavior(tt.want), p.Results[0].Behavior)
	}
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
	// No server listens at these addresses: the flags are refused before anything is
	// dialed.
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
