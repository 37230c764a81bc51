package websocket_test

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/conformance/websocket"
	"github.com/noria-go/noria/internal/brokenws"
)

func serveBroken(t *testing.T, f *brokenws.Fault) *brokenws.Server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := brokenws.Serve(ln, f)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// messages is how many messages each case of groups 12 and 13 sends in tests.
const messages = 8

// A run tests the endpoint that has the fault; with nil, the one without a fault.
type run func(f *brokenws.Fault, o websocket.Options) (*websocket.Report, error)

func runServer(f *brokenws.Fault, o websocket.Options) (*websocket.Report, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := brokenws.Serve(ln, f)
	// A busy machine may take long to connect, which no case is to notice as a fault.
	o.Dial = func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{Timeout: time.Minute}).DialContext(context.WithoutCancel(ctx), "tcp", ln.Addr().String())
	}
	p, err := websocket.RunServer(context.Background(), s.URL(), o)
	return p, errors.Join(err, s.Close())
}

func runClient(f *brokenws.Fault, o websocket.Options) (*websocket.Report, error) {
	return websocket.RunClient(context.Background(), brokenClient(f), o)
}

// TestBroken shows that the suite can fail: each faulty server fails the case
// that names its fault.
func TestBroken(t *testing.T) { testFaults(t, brokenws.All(), runServer) }

// TestBrokenClient is TestBroken for clients.
func TestBrokenClient(t *testing.T) { testFaults(t, brokenws.Clients(), runClient) }

// faultOptions are the options for cases that must notice a fault.
func faultOptions(traps bool, cases ...string) websocket.Options {
	return websocket.Options{Include: cases, Traps: traps, Patience: 500 * time.Millisecond, Messages: messages,
		MaxMessage: brokenws.MaxMessage, HandshakeTimeout: brokenws.HandshakeTimeout}
}

// testFaults runs the case of each fault. Most of the time goes into waiting for events
// that do not happen, so more cases run at once than there are CPUs.
func testFaults(t *testing.T, faults []brokenws.Fault, run run) {
	type outcome struct {
		report *websocket.Report
		err    error
	}
	slots := make(chan struct{}, 8)
	for _, f := range faults {
		t.Run(f.Case+"/"+f.Name, func(t *testing.T) {
			done := make(chan outcome, 1)
			go func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				p, err := run(&f, faultOptions(f.Only, f.Case))
				done <- outcome{p, err}
			}()
			t.Parallel()
			o := <-done
			require.NoError(t, o.err)
			// Some faults are only noticed by the second of two cases.
			require.NotEmpty(t, o.report.Imperfect(), "no case notices the fault: %s", o.report.Results)
			t.Log(o.report.Imperfect()[0])
		})
	}
}

// TestBrokenByTheFault: a case of TestBroken notices the fault and nothing else, since
// without the fault the same options find nothing.
func TestBrokenByTheFault(t *testing.T) { testWithoutFaults(t, brokenws.All(), runServer) }

// TestBrokenClientByTheFault is TestBrokenByTheFault for clients.
func TestBrokenClientByTheFault(t *testing.T) { testWithoutFaults(t, brokenws.Clients(), runClient) }

func testWithoutFaults(t *testing.T, faults []brokenws.Fault, run run) {
	var cases []string
	for _, f := range faults {
		cases = append(cases, f.Case)
	}
	for tries := 1; ; tries++ {
		p, err := run(nil, faultOptions(true, cases...))
		require.NoError(t, err)
		// A busy machine is late now and then; a real mistake shows again.
		if tries == 5 || len(p.Imperfect()) == 0 {
			require.Empty(t, p.Imperfect())
			return
		}
		cases = nil
		for _, r := range p.Imperfect() {
			cases = append(cases, r.ID)
		}
	}
}

func brokenClient(f *brokenws.Fault) func(ctx context.Context, url string) error {
	return func(ctx context.Context, url string) error { return brokenws.Echo(ctx, url, f) }
}

// TestBrokenWithoutFault: without a fault, the server that the faulty ones are made of
// passes everything.
func TestBrokenWithoutFault(t *testing.T) {
	p, err := websocket.RunServer(context.Background(), serveBroken(t, nil).URL(), websocket.Options{Traps: true, Messages: messages, MaxMessage: brokenws.MaxMessage})
	require.NoError(t, err)
	if len(p.Imperfect()) > 0 {
		require.NoError(t, p.WriteText(os.Stderr, false))
	}
	require.Empty(t, p.Imperfect())
}

func TestBrokenClientWithoutFault(t *testing.T) {
	websocket.TestClient(t, brokenClient(nil), websocket.Options{Traps: true, Messages: messages, MaxMessage: brokenws.MaxMessage})
}

// faultOf returns the server's fault of this name.
func faultOf(t *testing.T, name string) *brokenws.Fault {
	t.Helper()
	all := brokenws.All()
	i := slices.IndexFunc(all, func(f brokenws.Fault) bool { return f.Name == name })
	require.NotEqual(t, -1, i, name)
	return &all[i]
}

// TestEndless: the judge does not keep everything that an endless sender sends.
func TestEndless(t *testing.T) {
	for _, name := range []string{"answers without end", "sends pongs without end"} {
		p, err := websocket.RunServer(context.Background(), serveBroken(t, faultOf(t, name)).URL(), websocket.Options{Traps: true, Include: []string{"trap12.after-close"}})
		require.NoError(t, err)
		require.Contains(t, p.Results[0].Why, "than the case expects by far", name)
	}
}

// TestWithoutCompression: an endpoint without compression is incomplete and not wrong.
func TestWithoutCompression(t *testing.T) {
	f := faultOf(t, "does no compression")
	o := websocket.Options{Traps: true, Include: []string{"1.*", "12.*.1", "13.*.1", "trap0[3-9]*", "trap1[0-3]*"}, Exclude: []string{"trap06*"}, Messages: messages, MaxMessage: brokenws.MaxMessage}
	server, err := websocket.RunServer(context.Background(), serveBroken(t, f).URL(), o)
	require.NoError(t, err)
	client, err := websocket.RunClient(context.Background(), brokenClient(f), o)
	require.NoError(t, err)
	for _, p := range []*websocket.Report{server, client} {
		require.Empty(t, p.Failures())
		require.NotEmpty(t, p.Imperfect())
		for _, r := range p.Imperfect() {
			require.Equal(t, websocket.Unimplemented, r.Behavior, r)
		}
	}
}

func TestFaults(t *testing.T) {
	for _, faults := range [][]brokenws.Fault{brokenws.All(), brokenws.Clients()} {
		require.GreaterOrEqual(t, len(faults), 40)
		var names []string
		for _, f := range faults {
			require.NotContains(t, names, f.Name)
			names = append(names, f.Name)
		}
		require.False(t, slices.Contains(names, ""))
	}
}
