package echobench

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// measured returns a measurement with these messages per second, and these shares
// of the window in which the server ran and in which its CPU was idle.
func measured(rate, busy, idle float64) measurement {
	return measurement{PerSecond: rate, CPU: busy * 1e6 / rate, Busy: busy, Idle: idle, P50: 1, P99: 2, P999: 1e6 / rate}
}

func TestRowComparesWithTheBetterNet(t *testing.T) {
	list, err := choose(protocols, []string{"net", "net-1"})
	require.NoError(t, err)
	list = append(list, contender{name: "other", proto: protoTCP, command: "x {port}"})
	row := newRow(rowKey{Size: 64, Conns: 100, Outstanding: 1}, list, [][]measurement{
		{measured(80, 1, 0), measured(90, 1, 0), measured(100, 0.99, 0)},
		{measured(110, 1, 0), measured(100, 1, 0), measured(120, 0.98, 0)},
		{measured(220, 1, 0), measured(230, 1, 0), measured(210, 1, 0)},
	})
	require.InDelta(t, 90.0/110, *row.Contenders[0].Ratio, 1e-9)
	require.InDelta(t, 1, *row.Contenders[1].Ratio, 1e-9)
	require.InDelta(t, 2, *row.Contenders[2].Ratio, 1e-9)
	require.Equal(t, &Spread{220, 210, 230}, row.Contenders[2].PerSecond)
	require.Nil(t, row.Contenders[2].Allocs, "nobody counted")
}

func TestRowBoundByTheClientHasNoRatio(t *testing.T) {
	list, err := choose(protocols, []string{"net", "net-1"})
	require.NoError(t, err)
	for _, tt := range []struct {
		name                       string
		net, other                 measurement
		netBound, bound, disturbed bool
	}{
		{"both busy", measured(1, 0.97, 0), measured(0.9, 1, 0), false, false, false},
		{"the other has time", measured(1, 1, 0), measured(0.9, 0.5, 0.5), false, true, false},
		{"net has time", measured(1, 0.9, 0.1), measured(0.9, 1, 0), true, false, false},
		{"a neighbour takes the time", measured(1, 1, 0), measured(0.9, 0.7, 0.1), false, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			row := newRow(rowKey{Size: 64, Conns: 1}, list, [][]measurement{{tt.net}, {tt.other}})
			require.Equal(t, tt.netBound, row.Contenders[0].ClientBound)
			require.Equal(t, tt.bound, row.Contenders[1].ClientBound)
			require.Equal(t, tt.disturbed, row.Contenders[1].Disturbed)
			require.Equal(t, !tt.bound && !tt.netBound, row.Contenders[1].Ratio != nil)
			require.NotNil(t, row.Contenders[1].CPU)
		})
	}
}

func TestRowWithGarbageComparesTheTail(t *testing.T) {
	list, err := choose(protocols, []string{"net", "net-1"})
	require.NoError(t, err)
	row := newRow(rowKey{Garbage: true}, list, [][]measurement{{measured(100, 0.5, 0)}, {measured(50, 0.5, 0)}})
	require.InDelta(t, 2, *row.Contenders[1].TailRatio, 1e-9)
	require.Nil(t, row.Contenders[1].Ratio)
	require.Nil(t, row.Contenders[1].CPU)
	require.False(t, row.Contenders[1].ClientBound)
}

func TestReportPrints(t *testing.T) {
	list, err := choose(protocols, []string{"net", "net-1"})
	require.NoError(t, err)
	r := &Report{ServerCPU: -1, Settings: settings{Rounds: 1, Window: time.Second}, Notes: []string{"look"}, Rows: []*Row{
		newRow(rowKey{Size: 64, Conns: 100, Outstanding: 1}, list, [][]measurement{{measured(100, 1, 0)}, {measured(50, 0.5, 0.1)}})}}
	var out strings.Builder
	require.NoError(t, r.print(&out))
	for _, part := range []string{"64 bytes, 100 connections", "50%*!", "bound by the client", "disturbed", "note: look", "n/a"} {
		require.Contains(t, out.String(), part)
	}
}

func TestRowsAndNotes(t *testing.T) {
	b := &bench{settings: settings{Sizes: []int{1, 2}, Conns: []int{3}, Outstanding: []int{1, 16}, Garbage: true}}
	require.Equal(t, []rowKey{{1, 3, 1, false}, {1, 3, 16, false}, {2, 3, 1, false}, {2, 3, 16, false}, garbageRow}, b.rows())
	b.note("once")
	b.note("once")
	require.Len(t, b.notes, 1)
}
