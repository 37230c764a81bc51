package websocket

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/brokenws"
)

// fuzzer returns a Fuzzer with one case, which calls run.
func fuzzer(t *testing.T, run func()) *Fuzzer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	f, err := NewFuzzer(ln, Options{Include: []string{"1.1.1"}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	f.cases[0].run = func(_ *Fuzzer, _ net.Conn, _ *bufio.Reader, _ clientHello, r *Result) {
		run()
		r.Behavior, r.Closing = OK, CloseOK
	}
	return f
}

// TestReportWaits: a client may ask for its report before its last case has been
// judged.
func TestReportWaits(t *testing.T) {
	begun, judged := make(chan struct{}), make(chan struct{})
	f := fuzzer(t, func() {
		close(begun)
		<-judged
	})
	url := fmt.Sprintf("ws://%s/", f.Addr())
	go brokenws.Echo(context.Background(), url+"runCase?case=1&agent=a", nil) //nolint:errcheck // the case does not answer
	<-begun
	require.NoError(t, brokenws.Echo(t.Context(), url+"updateReports?agent=a", nil))
	require.NoError(t, brokenws.Echo(t.Context(), url+"getCaseCount", nil)) // the Fuzzer has time to report
	early := len(f.Done())
	close(judged)
	require.Zero(t, early)
	require.Equal(t, "a", <-f.Done())
	require.True(t, f.Report("a").Results[0].Perfect())
}

// TestNoCaseIsForgotten: at any moment a case either runs or has a result.
func TestNoCaseIsForgotten(t *testing.T) {
	f := fuzzer(t, func() {})
	over, watched := make(chan struct{}), make(chan bool)
	go func() {
		for good := true; ; {
			select {
			case <-over:
				watched <- good
				return
			default:
			}
			f.mu.Lock()
			if n, ok := f.running["a"]; ok && n == 0 && f.results["a"] == nil {
				good = false
			}
			f.mu.Unlock()
		}
	}()
	for range 2000 {
		client, server := net.Pipe()
		go fmt.Fprintf(client, "GET /runCase?case=1&agent=a HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n", newKey())
		f.serve(server)
		f.mu.Lock()
		delete(f.running, "a")
		delete(f.results, "a")
		f.mu.Unlock()
	}
	close(over)
	require.True(t, <-watched)
}
