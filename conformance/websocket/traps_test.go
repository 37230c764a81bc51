package websocket

import (
	"net"
	"path"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/brokenws"
)

// TestEveryTrapHasAFault: a case that nothing fails is worth nothing. TestBroken shows
// that the cases notice the faults.
func TestEveryTrapHasAFault(t *testing.T) {
	o := Options{Traps: true, Include: []string{"trap*"}, MaxMessage: brokenws.MaxMessage, HandshakeTimeout: time.Second}
	var server, client []string
	traps, err := (&target{options: o}).traps()
	require.NoError(t, err)
	for _, c := range traps {
		server = append(server, c.id)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	f, err := NewFuzzer(ln, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	for i := range f.Count() {
		client = append(client, f.ID(i+1))
	}
	for _, role := range []struct {
		ids    []string
		faults []brokenws.Fault
	}{{server, brokenws.All()}, {client, brokenws.Clients()}} {
		for _, id := range role.ids {
			require.True(t, slices.ContainsFunc(role.faults, func(f brokenws.Fault) bool {
				ok, _ := path.Match(f.Case, id) // a case's number is a valid pattern
				return ok
			}), "no fault for %s", id)
		}
		slices.Sort(role.ids)
		require.Len(t, slices.Compact(slices.Clone(role.ids)), len(role.ids), "a number twice")
	}
}
