package echobench

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backends"
)

// Package ws is compared with TCP and the ported library on the same backend, and
// with every peer.
func TestVersus(t *testing.T) {
	backend := backends.Names()[0]
	list, err := choose(protocols, []string{backend, backend + callback, "net", wsPrefix + backend, wsPrefix + backend + adapter})
	require.NoError(t, err)
	list = append(list, contender{name: "peer", proto: protoWS, command: "x {port}"}, contender{name: "tcp peer", proto: protoTCP, command: "x {port}"})
	rounds := make([][]measurement, len(list))
	for i := range rounds {
		rounds[i] = []measurement{measured(100, 1, 0), measured(110, 1, 0), measured(120, 1, 0)}
	}
	rounds[0] = []measurement{measured(200, 0.5, 0.5), measured(220, 0.5, 0.5), measured(240, 0.5, 0.5)} // TCP is idle at times
	row := newRow(rowKey{Size: 64, Conns: 100, Outstanding: 1}, list, rounds)

	var against []string
	for _, v := range row.Versus {
		require.Equal(t, wsPrefix+backend, v.Name)
		require.Equal(t, v.Against == backend, v.AtMost)
		require.False(t, v.AtLeast)
		want := 1.0
		if v.Against == backend {
			want = 0.5
			require.InDelta(t, 4, v.CPU.Ratio, 1e-9)
		}
		require.InDelta(t, want, v.PerSecond.Ratio, 1e-9)
		against = append(against, v.Against)
	}
	require.Equal(t, []string{backend, wsPrefix + backend + adapter, "peer"}, against)

	var out strings.Builder
	require.NoError(t, row.print(&out))
	require.Contains(t, out.String(), wsPrefix+backend+" against")
	require.Contains(t, out.String(), "<0.50")

	one := newRow(rowKey{}, list[3:4], [][]measurement{{measured(1, 1, 0)}})
	require.NoError(t, one.print(&out), "one contender, one round")
}
