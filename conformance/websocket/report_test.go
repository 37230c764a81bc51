package websocket_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/conformance/websocket"
	"github.com/noria-go/noria/internal/brokenws"
)

// TestCasesNotRun: a client that leaves out cases has not passed them.
func TestCasesNotRun(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	f, err := websocket.NewFuzzer(ln, websocket.Options{Include: []string{"1.1.*", "trap*"}, Traps: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	require.NoError(t, brokenws.Echo(t.Context(), fmt.Sprintf("ws://%s/runCase?case=2&agent=lazy", f.Addr()), nil))
	require.NoError(t, brokenws.Echo(t.Context(), fmt.Sprintf("ws://%s/updateReports?agent=lazy", f.Addr()), nil))
	require.Equal(t, "lazy", <-f.Done())
	p := f.Report("lazy")
	require.Len(t, p.Results, f.Count())
	require.Equal(t, p.Results, f.Partial("lazy").Results, "it has asked for its report")
	for i, r := range p.Results {
		require.NotEmpty(t, r.Expectation)
		if i == 1 {
			require.True(t, r.Perfect(), r)
			continue
		}
		require.Equal(t, websocket.Failed, r.Behavior)
		require.Equal(t, "the client did not connect for this case", r.Why)
	}
}

// TestJSON: a written report can be read back.
func TestJSON(t *testing.T) {
	p, err := websocket.RunServer(context.Background(), serveBroken(t, nil).URL(), websocket.Options{Include: []string{"1.1.[12]", "2.1", "7.1.1", "trap02.version-0"}, Traps: true})
	require.NoError(t, err)
	require.Len(t, p.Results, 5)
	require.NotEmpty(t, p.Results[1].Received)
	p.Started = p.Started.Round(0).UTC() // without the monotonic clock
	var b bytes.Buffer
	require.NoError(t, p.WriteJSON(&b))
	var read *websocket.Report
	require.NoError(t, json.Unmarshal(b.Bytes(), &read))
	require.Equal(t, p, read)
}

// TestIndex: agents whose names give the same file name have separate files.
func TestIndex(t *testing.T) {
	agents := []string{"a/b", "a_b", "A b", "a_b_2"}
	var p websocket.Report
	for _, agent := range agents {
		p.Results = append(p.Results, &websocket.Result{ID: "1.1.1", Agent: agent})
	}
	dir := t.TempDir()
	require.NoError(t, p.WriteIndex(dir))
	read := func(name string, to any) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b, to))
	}
	var index map[string]map[string]struct{ Reportfile string }
	read("index.json", &index)
	require.Len(t, index, len(agents))
	for _, agent := range agents {
		var r websocket.Result
		read(index[agent]["1.1.1"].Reportfile, &r)
		require.Equal(t, agent, r.Agent)
	}
}
